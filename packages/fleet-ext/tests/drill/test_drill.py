"""A short drill, with real faults, and its arithmetic."""

import json
import re
import subprocess
import sys

import pytest
from oarlock.fleet_ext import lab
from oarlock.fleet_ext.drill import KINDS, Drill, Fault, run, schedule
from oarlock.fleet_ext.drill.crew import trains
from oarlock.fleet_ext.drill.report import Course, Happened, compared


def course(steps, begin=0.0, end=10.0, more=()):
    lines = [{"time": at, "step": step, "loss": loss} for step, (at, loss) in enumerate(steps)]
    return Course({"a": [*lines, *more]}, begin, end)


def recovery(at, epoch, seconds):
    return {
        "time": at,
        "recovery": "gone",
        "step": 3,
        "epoch": epoch,
        "nodes": ["a"],
        "seconds": seconds,
    }


def test_what_a_report_counts():
    undisturbed = course([(float(number), 10.0 - number) for number in range(10)])
    more = (
        {"time": 0.0, "ready": "a.1", "pid": 1},
        recovery(0.0, 1, 3.0),  # the beginning
        recovery(6.0, 2, 0.5),
        recovery(6.5, 4, 30.0),  # it was away in epoch 3
        {"time": 6.6, "ready": "a.2", "pid": 2},
        recovery(6.7, 5, 20.0),  # another process
        {"time": 6.8, "unsaved": 4, "why": "full"},
    )
    steps = [(0.0, 10.0), (1.0, 9.0), (2.0, 8.0), (6.0, 7.0), (7.0, 6.6)]
    happened = [Happened(2.5, 2.5, "kill", "a"), Happened(6.5, 7.0, "disk", "a", True)]
    found = compared(course(steps, more=more), undisturbed, happened)
    assert found.kept == pytest.approx(0.5) and found.recoveries == [0.5]
    kill, disk = found.faults
    assert (kill.gap, kill.recovery, kill.noticed, kill.unsaved) == (4.0, 0.5, 3.5, 0)
    assert (disk.gap, disk.recovery, disk.unsaved, disk.sound) == (3.0, None, 1, True)
    assert found.missing == 0 and found.twice == 0
    assert found.apart == pytest.approx(0.1)
    assert "throughput kept: 50.0 %" in str(found)
    assert "kill: 4.00 s without a step (noticed in 3.50 s, recovered in 500 ms)" in str(found)
    assert "1 checkpoints failed, the one before is good" in str(found)
    plain = json.loads(json.dumps(found.plain()))
    assert plain["kept"] == 0.5 and plain["missing"] == 0 and plain["recoveries"] == [0.5]
    assert [(one["kind"], one["gap"], one["noticed"]) for one in plain["faults"]] == [("kill", 4.0, 3.5), ("disk", 3.0, None)]  # fmt: skip


def test_a_standstill_is_put_down_to_the_fault_before_it():
    one = course([(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (8.0, 1.0)])
    happened = [Happened(0.5, 0.5, "kill", "a"), Happened(2.5, 2.5, "stop", "a")]
    assert [found.gap for found in compared(one, one, happened).faults] == [1.0, 6.0]


def test_a_line_that_is_not_whole_is_left(tmp_path):
    path = tmp_path / "a.log"
    path.write_text('warning\n{"time": 1.0, "step": 0, "loss": 1.0}\n{"time": 2.0, "st')
    assert Course.read({"a": path}, 0.0, 9.0).steps() == {0: 1.0}


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


def test_who_was_killed_just_now_does_not_train():
    steps = [{"time": at, "step": 0, "loss": 1.0} for at in (8.0, 9.0)]
    ready = {"time": 9.6, "ready": "a.2", "pid": 2}
    assert trains(steps, struck=0.0, now=10.0)
    assert not trains([*steps, ready], struck=9.5, now=10.0)  # the next process waits as a spare
    assert trains([*steps, ready, {"time": 9.9, "step": 1, "loss": 1.0}], struck=9.5, now=10.0)
    assert not trains(steps, struck=0.0, now=12.0) and not trains([ready], struck=0.0, now=10.0)


def test_training_goes_on_with_the_same_losses_whatever_happens(tmp_path):
    why = lab.unavailable()
    if why is not None:
        pytest.skip(f"no network namespaces: {why}")
    faults = [
        Fault(0.5, "kill"), Fault(2.5, "stop"), Fault(5.5, "link", 2.5), Fault(8.5, "slow", 1.0),
        Fault(10.0, "disk", 1.0), Fault(11.5, "store"),
    ]  # fmt: skip
    said = []
    found = run(Drill(seconds=13.0, faults=faults, cpus=None), tmp_path / "drill", said.append)
    print(found)  # shown where this fails
    assert [one.kind for one in found.faults] == [one for one in KINDS if one != "power"]
    assert found.missing == 0 and found.twice == 0
    assert found.apart < 1e-3  # 0 where a spare node was always there in time
    disk = found.faults[4]
    assert disk.unsaved > 0 and disk.sound
    assert len(found.recoveries) >= 6 and all(one.gap < 5.0 for one in found.faults)


def test_who_are_all_killed_go_on_from_their_checkpoints_with_the_same_losses(tmp_path):
    faults = [Fault(3.0, "power")]
    wanted = Drill(nodes=2, spares=0, seconds=14.0, faults=faults, cpus=None, loopback=True)
    found = run(wanted, tmp_path / "drill")
    print(found)  # shown where this fails
    assert [one.kind for one in found.faults] == ["power"]
    assert found.missing == 0 and found.twice == 0 and found.apart == 0
    begun = [
        [one["first"] for one in map(json.loads, path.read_text().splitlines()) if "ready" in one]
        for path in sorted((tmp_path / "drill" / "disturbed").glob("*.log"))
        if path.stem.startswith("node")
    ]
    assert [len(one) for one in begun] == [2, 2]  # each process, and the one that came for it
    assert max(one[1] for one in begun) > 0


def test_on_this_machine_nothing_is_limited():
    with pytest.raises(ValueError, match="loopback must"):
        Drill(loopback=True)
    with pytest.raises(ValueError, match="kill, stop, store"):
        Drill(loopback=True, cpus=None, faults=[Fault(1.0, "link")])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--faults", "fire"], "kill, stop, link"),
        (["--report", "/no/such/folder/report.json"], "--report .* folder that exists"),
    ],
)
def test_bad_options_are_told(options, words):
    command = [sys.executable, "-m", "oarlock.fleet_ext.cli.main", "drill", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and re.search(words, done.stderr)
