"""Memory is that of the process, and limits hold or say why they cannot."""

import os
import subprocess
import sys

import pytest

from oarlock.accept.measure import resources
from oarlock.accept.measure.resources import LimitUnavailable, limited

MIB = 2**20


def test_peak_memory_remembers_what_was_freed():
    before = resources.peak_memory()
    block = bytearray(os.urandom(1) * (300 * MIB))
    del block
    assert resources.peak_memory() >= before + 250 * MIB or before > 500 * MIB


def test_peak_memory_counts_children():
    code = "b = bytearray(b'x' * (200 * 2**20)); print('ready', flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout.readline() == b"ready\n"
    assert resources.peak_memory() >= resources._high_water("self") + 150 * MIB
    child.communicate(b"\n")


def test_cpu_time_grows_with_work():
    before = resources.cpu_seconds()
    while resources.cpu_seconds() - before < 0.02:
        sum(range(10_000))


def test_whole_cpus_by_affinity():
    allowed = os.sched_getaffinity(0)
    with limited(cpus=1):
        assert os.sched_getaffinity(0) == {min(allowed)}
        inherited = "import os; print(len(os.sched_getaffinity(0)))"
        assert subprocess.check_output([sys.executable, "-c", inherited]) == b"1\n"
    assert os.sched_getaffinity(0) == allowed


def test_the_limit_goes_when_the_work_fails():
    allowed = os.sched_getaffinity(0)
    with pytest.raises(KeyError), limited(cpus=1):
        raise KeyError
    assert os.sched_getaffinity(0) == allowed


@pytest.mark.parametrize("limits", [{"cpus": 0}, {"cpus": 10_000}, {"memory": 0}])
def test_wrong_limits_are_named(limits):
    with pytest.raises(ValueError, match=next(iter(limits))), limited(**limits):
        pass


def test_a_memory_limit_holds_or_says_why_not():
    code = "b = bytearray(b'x' * (400 * 2**20))"
    try:
        with limited(memory=100 * MIB):
            done = subprocess.run([sys.executable, "-c", code])
    except LimitUnavailable as error:
        assert "cgroup" in str(error)
    else:
        assert done.returncode == -9


def test_without_cgroup_v2_the_reason_is_told(tmp_path, monkeypatch):
    mounts = tmp_path / "mountinfo"
    mounts.write_text("22 1 0:21 / /proc rw - proc proc rw\n")
    monkeypatch.setattr(resources, "_CGROUP_MOUNTS", mounts)
    with pytest.raises(LimitUnavailable, match="no cgroup v2 is mounted"), limited(cpus=0.5):
        pass
