"""A short drill, with real faults, and its arithmetic."""

import subprocess
import sys

import pytest
from oarlock.fleet_ext import lab
from oarlock.fleet_ext.drill import Drill, Fault, run, schedule
from oarlock.fleet_ext.drill.report import Course, compared


def course(steps, begin=0.0, end=10.0, more=()):
    lines = [{"time": at, "step": step, "loss": loss} for step, (at, loss) in enumerate(steps)]
    return Course({"a": [*lines, *more]}, begin, end)


def test_what_a_report_counts():
    undisturbed = course([(float(number), 10.0 - number) for number in range(10)])
    recovery = {
        "time": 6.0,
        "recovery": "gone",
        "step": 3,
        "epoch": 2,
        "nodes": ["a"],
        "seconds": 0.5,
    }
    first = {**recovery, "recovery": "the beginning", "epoch": 1, "seconds": 3.0}
    back = {**recovery, "epoch": 4, "seconds": 30.0}  # it was away in epoch 3
    steps = [(0.0, 10.0), (1.0, 9.0), (2.0, 8.0), (6.0, 7.0), (7.0, 6.6)]
    found = compared(course(steps, more=(first, recovery, back)), undisturbed, [(2.5, "kill")])
    assert found.kept == pytest.approx(0.5) and found.faults == [("kill", 4.0)]
    assert found.recoveries == [0.5] and found.missing == 0 and found.twice == 0
    assert found.apart == pytest.approx(0.1)
    assert "throughput kept: 50.0 %" in str(found) and "kill: 4.00 s" in str(found)


def test_steps_that_are_lost_or_taken_from_two_states_are_counted():
    disturbed = Course({
        "a": [{"time": 1.0, "step": 0, "loss": 1.0}, {"time": 2.0, "step": 2, "loss": 0.5}],
        "b": [{"time": 1.0, "step": 0, "loss": 1.5}],
    }, 0.0, 10.0)  # fmt: skip
    found = compared(disturbed, course([(1.0, 1.0)]), [])
    assert found.missing == 1 and found.twice == 1


def test_faults_come_in_turn_each_in_its_interval():
    found = schedule(("kill", "stop"), 10.0, 50.0, seed=1)
    assert [one.kind for one in found] == ["kill", "stop", "kill", "stop"]
    assert all(10 * number < one.at < 10 * (number + 1) for number, one in enumerate(found))
    assert (
        found
        == schedule(("kill", "stop"), 10.0, 50.0, seed=1)
        != schedule(("kill", "stop"), 10.0, 50.0, seed=2)
    )
    with pytest.raises(ValueError, match="kill, stop, link"):
        schedule(("fire",), 10.0, 50.0, seed=0)
    with pytest.raises(ValueError, match="every"):
        schedule(("kill",), 0.0, 50.0, seed=0)


def test_training_goes_on_with_the_same_losses_whatever_happens(tmp_path):
    why = lab.unavailable()
    if why is not None:
        pytest.skip(f"no network namespaces: {why}")
    faults = [Fault(2.0, "kill"), Fault(6.0, "stop", 3.0), Fault(10.0, "link", 3.0)]
    said = []
    found = run(Drill(seconds=14.0, faults=faults, cpus=None), tmp_path / "drill", said.append)
    assert [kind for kind, _ in found.faults] == ["kill", "stop", "link"]
    assert found.missing == 0 and found.twice == 0 and found.apart == 0.0
    assert len(found.recoveries) >= 6 and all(gap < 5.0 for _, gap in found.faults)


def test_bad_options_are_told():
    done = subprocess.run(
        [sys.executable, "-m", "oarlock.fleet_ext.cli.main", "drill", "--faults", "fire"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and "kill, stop, link" in done.stderr
