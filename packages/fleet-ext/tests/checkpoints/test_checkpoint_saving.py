"""Disks that are full, ranks that are lost, saves in the background, and what is kept."""

import errno
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from damages import DAMAGES, flip
from oarlock.fleet_ext.checkpoints import (
    CheckpointError,
    Checkpoints,
    Sharded,
    files,
    latest,
    load,
    prune,
    save,
    saving,
)

# fmt: skip
from oarlock.fleet_ext.transport import TransportError
from ranks import together, well
from states import (
    SAVED,
    WANTED,
    array_of,
    as_had,
    check_same,
    one_step,
    saved_by,
    x_of,
)


class TestDisks:
    @pytest.fixture
    def small(self, tmp_path):
        folder = tmp_path / "small"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
            pytest.skip("a small disk cannot be made here: that needs root, and leave to mount")
        yield folder
        subprocess.run(["umount", str(folder)], check=True)

    def test_a_full_disk_is_told_to_all_ranks_and_nothing_is_left(self, small):
        state = {"x": np.ones((1000, 100), np.float32)}
        too_large = {"x": np.ones((5000, 100), np.float32)}

        def run(group):
            save(state, small, 1, group).wait()
            for _ in range(2):
                with pytest.raises(CheckpointError, match=os.strerror(errno.ENOSPC)):
                    save(too_large, small, 2, group).wait()
                group.barrier().wait()
                assert os.listdir(small) == ["step-000001"]
                group.barrier().wait()
            return load(latest(small, group).path, {"x": np.zeros((1000, 100), np.float32)}, group)

        assert well(together(2, run))[0].step == 1

    def test_one_rank_that_cannot_write_fails_all(self, tmp_path):
        code = f"""
import resource, sys
import numpy as np
from oarlock.fleet_ext.checkpoints import CheckpointError, Sharded, save
from ranks import together

def run(group):
    # Only now: ranks have files for what they say to each other, too.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    save({{"x": np.ones(10)}}, sys.argv[1], 1, group).wait()
    count = 200_000 if group.rank == 1 else 10
    try:
        save({{f"{{group.rank}}": Sharded(np.ones(count))}}, sys.argv[1], 2, group).wait()
    except CheckpointError as error:
        return str(error), type(error.__cause__)

for rank, (text, cause) in enumerate(together(3, run)):
    assert text.startswith("rank 1: ") and "{os.strerror(errno.EFBIG)}" in text, text
    assert cause is (OSError if rank == 1 else type(None)), cause
"""
        path = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", code, tmp_path], env=path, check=True, timeout=100)
        assert os.listdir(tmp_path) == ["step-000001"]

    @pytest.mark.parametrize("stage", ("write_tensors", "write_bytes", "sync_folder", "free_name"))
    def test_an_error_at_any_stage_is_told_to_all_ranks_and_nothing_is_left(
        self, tmp_path, monkeypatch, stage
    ):
        function = getattr(saving, stage)

        def failing(path, *more):
            if stage == "write_tensors" and path.name != files.file_of(1):
                return function(path, *more)
            raise OSError(errno.EIO, "the disk is on fire")

        def run(group):
            group.barrier().wait()
            with pytest.raises(CheckpointError, match="^rank [01]: .*the disk is on fire"):
                save({"x": np.ones(30_000)}, tmp_path, 2, group).wait()

        monkeypatch.setattr(saving, stage, failing)
        well(together(3, run))
        assert os.listdir(tmp_path) == []
        monkeypatch.setattr(saving, stage, function)
        assert latest(saved_by(3, tmp_path)[0][0].parent).step == 7

    def test_ranks_must_share_the_folder(self, tmp_path):
        def run(group):
            with pytest.raises(CheckpointError, match="^rank 1: .*No such file"):
                save({"x": np.ones(3)}, tmp_path / str(group.rank), 2, group).wait()

        (tmp_path / "1").mkdir()
        well(together(2, run))

    def test_a_program_that_ends_waits_for_its_checkpoint(self, tmp_path):
        code = """
import sys, time
import numpy as np
from oarlock.fleet_ext.checkpoints import save, saving
write = saving.write_tensors
saving.write_tensors = lambda *arguments: [time.sleep(0.3), write(*arguments)][1]
save({"x": np.ones(3)}, sys.argv[1], 5)
"""
        path = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", code, tmp_path], env=path, check=True, timeout=60)
        assert latest(tmp_path).step == 5


def test_a_rank_that_is_lost_is_an_error_and_nothing_is_visible(tmp_path):
    def run(group):
        if group.rank == 2:
            group.barrier().wait()
            return
        handle = save({"x": np.ones(3)}, tmp_path, 1, group.subgroup(range(3), "checkpoints"))
        group.barrier().wait()
        with pytest.raises(TransportError):
            handle.wait(20)

    well(together(3, run))
    assert latest(tmp_path) is None
    one_step(tmp_path, 2)
    assert os.listdir(tmp_path) == ["step-000002"]


class Gate:
    """Holds up the writing of files."""

    def __init__(self, monkeypatch):
        self.open, self.reached = threading.Event(), threading.Event()

        def gated(*arguments):
            self.reached.set()
            assert self.open.wait(20)
            return files.write_tensors(*arguments)

        monkeypatch.setattr(saving, "write_tensors", gated)


class TestBackground:
    @pytest.fixture
    def gate(self, monkeypatch):
        return Gate(monkeypatch)

    def test_training_goes_on_with_the_tensors(self, tmp_path, gate):
        def run(group):
            state = as_had(SAVED, group.rank, 2)
            own = group.subgroup(range(2), "checkpoints")
            handle = save(state, tmp_path, 1, own, metadata=(numbers := [1, 2]))
            assert not handle.done() and handle.staging_s > 0
            for one in state.values():
                array_of(one)[...] = 0
            numbers.append(3)
            total = group.all_reduce(np.ones(4)).wait()  # the training's messages are not disturbed
            assert (total == 2).all()
            assert gate.reached.wait(20)
            with pytest.raises(TimeoutError):
                handle.wait(0.01)
            assert handle.written == 0 < handle.bytes and latest(tmp_path) is None
            group.barrier().wait()
            gate.open.set()
            path = handle.wait()
            assert handle.written == handle.bytes
            wanted = as_had(WANTED, group.rank, 2, filled=False)
            assert load(path, wanted, own).metadata == ([1, 2], [1, 2])
            check_same(wanted, as_had(WANTED, group.rank, 2))
            own.close()

        well(together(2, run))

    def test_a_group_saves_one_at_a_time(self, tmp_path, gate):
        def run(group):
            first = save({"x": np.ones(3)}, tmp_path, 1, group)
            with pytest.raises(ValueError, match="group 'all' still saves a checkpoint"):
                save({"x": np.ones(3)}, tmp_path, 2, group)
            gate.open.set()
            first.wait()
            return save({"x": np.ones(3)}, tmp_path, 2, group).wait()

        assert well(together(2, run)) == [tmp_path / "step-000002"] * 2

    def test_checkpoints_wait_for_the_one_before(self, tmp_path, gate):
        def run(group):
            x = np.ones(50_000)
            with Checkpoints(tmp_path, group) as checkpoints:
                first = checkpoints.save({"x": x}, 1)
                threading.Timer(0.2, gate.open.set).start()
                x += 1
                second = checkpoints.save({"x": x}, 2)
                assert first.done()
            assert second.done()
            for step, handle in ((1, first), (2, second)):
                found = np.zeros(50_000)
                load(handle.wait(), {"x": found}, group)
                assert (found == step).all()

        well(together(2, run))

    def test_wait_waits(self, tmp_path, gate):
        gate.open.set()
        assert save({"x": np.ones(3)}, tmp_path, 1, wait=True).done()
        assert latest(tmp_path).step == 1


class TestKeeping:
    def test_so_many_stay(self, tmp_path):
        def run(group):
            with Checkpoints(tmp_path, group, keep=2) as checkpoints:
                for step in range(5):
                    checkpoints.save(
                        {"x": np.full(5, step, np.float32), "y": np.ones((2, 2))}, step
                    )

        well(together(2, run))
        assert sorted(os.listdir(tmp_path)) == ["step-000003", "step-000004"]

    @pytest.mark.parametrize("damage", ("no manifest", "empty file"))
    def test_those_that_are_not_good_do_not_count(self, tmp_path, damage):
        for step in range(4):
            saved_by(2, tmp_path, step)
        for step in (2, 3):
            DAMAGES[damage][0](tmp_path / f"step-{step:06d}")
        assert prune(tmp_path, 1) == [tmp_path / "step-000000"]
        assert prune(tmp_path, 2) == []
        assert latest(tmp_path).step == 1

    def test_nothing_goes_where_the_new_one_does_not_read_back(self, tmp_path, monkeypatch):
        with Checkpoints(tmp_path, keep=1) as checkpoints:
            checkpoints.save({"x": np.full(5, 1, np.float32), "y": np.ones((2, 2))}, 1)
        rename = Path.rename

        def harmful(path, target):
            flip(path / files.file_of(0), -1)
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", harmful)
        with Checkpoints(tmp_path, keep=1) as checkpoints:
            handle = checkpoints.save({"x": np.full(5, 2, np.float32), "y": np.ones((2, 2))}, 2)
            with pytest.raises(CheckpointError, match="is damaged"):
                handle.wait()
        assert x_of(latest(tmp_path).path) == 1

    def test_a_step_that_is_saved_again_is_newer(self, tmp_path):
        first, second, third = (one_step(tmp_path, 3, value) for value in (10, 11, 12))
        assert [one.name for one in (first, second, third)] == ["step-000003", "step-000003.1", "step-000003.2"]  # fmt: skip
        assert latest(tmp_path).path == third and x_of(third) == 12
        flip(third / files.file_of(0), -1)
        assert x_of(latest(tmp_path).path) == 11
        assert prune(tmp_path, 2) == [first]

    def test_other_folders_are_left_alone(self, tmp_path):
        for name in ("step-12", "step-000001.part", "runs", ".step-000001.part"):
            (tmp_path / name).mkdir()
        one_step(tmp_path, 1)
        one_step(tmp_path, 1_234_567)
        assert prune(tmp_path, 1) == [tmp_path / "step-000001"]
        assert latest(tmp_path).path.name == "step-1234567"
        assert len(os.listdir(tmp_path)) == 5

    @pytest.mark.parametrize("size", (1, 3))
    def test_a_job_goes_on_where_it_was(self, tmp_path, size):
        def train(steps, group):
            state = {"x": np.zeros(4), "m": Sharded(np.zeros(1), (size,), (group.rank,))}
            with Checkpoints(tmp_path, group, keep=2) as checkpoints:
                loaded = checkpoints.restore(state)
                first = 0 if loaded is None else loaded.step
                for step in range(first, steps):
                    state["m"].local[:] += step
                    state["x"] += group.all_reduce(state["m"].local.copy()).wait()
                    checkpoints.save(state, step + 1)
            return first, state["x"].tolist(), state["m"].local.tolist()

        well(together(size, lambda group: train(3, group)))
        found = well(together(size, lambda group: train(6, group)))
        shutil.rmtree(tmp_path)
        plain = well(together(size, lambda group: train(6, group)))
        assert [one[0] for one in found] == [3] * size
        assert [one[1:] for one in found] == [one[1:] for one in plain]

    def test_keep_is_at_least_one(self, tmp_path):
        for function in (prune, lambda folder, keep: Checkpoints(folder, keep=keep)):
            with pytest.raises(ValueError, match="keep must be at least 1, not 0"):
                function(tmp_path, 0)


def test_memory_of_copies_is_used_again(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        x = np.ones(100_000)
        checkpoints.save({"x": x}, 1)
        before = checkpoints._staging._parts["x"][0].ctypes.data
        checkpoints.save({"x": x}, 2)
        assert checkpoints._staging._parts["x"][0].ctypes.data == before
