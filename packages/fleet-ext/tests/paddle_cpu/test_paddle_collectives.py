"""Every operation of paddle.distributed on CPUs, by three processes."""

import paddle
import pytest
from oarlock.fleet_ext.paddle_cpu import install, installing

from collectives_rank import CHECKS, SIZE
from paddle_ranks import run_ranks


@pytest.fixture(scope="module")
def said():
    ranks = run_ranks(SIZE, "collectives_rank.py")
    return [{one["check"]: one["error"] for one in lines} for lines in ranks]


@pytest.mark.parametrize("name", [one.__name__ for one in CHECKS])
def test_operations_are_right_on_all_ranks(said, name):
    for rank, found in enumerate(said):
        assert found[name] is None, f"rank {rank}: {found[name]}"


def test_paddle_gets_its_names_back():
    from paddle.base import core
    from paddle.distributed import collective, parallel
    from paddle.distributed.fleet.layers.mpu import mp_ops

    def names():
        return (
            collective._new_process_group_impl,
            parallel._new_process_group_impl,
            mp_ops._C_ops,
            core.EagerReducer,
            hasattr(core, "nccl_version"),
            hasattr(parallel.ParallelEnv, "_device_id"),
        )

    before = names()
    with install():
        assert all(one is not other for one, other in zip(names()[:4], before[:4]))
        with pytest.raises(RuntimeError, match="installed already"):
            install()
    assert names() == before
    install().uninstall()
    assert names() == before


def test_other_versions_of_paddle_are_refused(monkeypatch):
    monkeypatch.setattr(paddle, "__version__", "3.4.0")
    with pytest.raises(RuntimeError, match="3.3"):
        install()
    assert installing._current is None
