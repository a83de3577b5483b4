"""Which process is ended, and which is not."""

import os

import pytest
from oarlock.fleet_ext.agent.cluster import Cluster
from oarlock.fleet_ext.agent.progress import Phase, Progress, ProgressFile
from oarlock.fleet_ext.agent.supervising import Policy
from oarlock.fleet_ext.agent.watchdog import Watchdog, state_of
from oarlock.fleet_ext.elastic import Epoch


def cluster(nodes="ab", there="abc", lost="", done=False):
    return Cluster(Epoch(3, tuple(nodes)), frozenset(there), frozenset(lost), None, done)


TRAINING, OUTSIDE, WAITING = (Progress(phase, 1, 2, 7) for phase in (Phase.TRAINING, Phase.OUTSIDE, Phase.WAITING))  # fmt: skip


@pytest.mark.parametrize(
    ("states", "progress", "seen", "why"),
    (
        ("S", TRAINING, cluster(), None),
        ("R", TRAINING, cluster("cb"), None),  # it is there, and waits for its turn
        ("S", WAITING, cluster("cb"), None),
        ("S", OUTSIDE, cluster("cb", there="bc"), None),  # it loads
        ("S", WAITING, cluster("ab", there="b"), "does not move"),  # its lease is over
        ("S", TRAINING, cluster("cb", there="bc"), "does not move"),
        ("S", TRAINING, cluster("cb", lost="a"), "does not move"),  # missing in an operation
        ("S", TRAINING, cluster("cb", there="bc", done=True), None),
        ("S", TRAINING, None, None),  # nothing is known of the others
        ("T", OUTSIDE, None, "stopped"),
        ("ST", TRAINING, cluster(), "stopped"),
        ("t", TRAINING, cluster(), None),  # in a debugger
    ),
)
def test_who_is_ended(states, progress, seen, why):
    dog = Watchdog("a", stopped=1.0, hung=3.0)
    assert dog.look(0.0, states, progress, seen) is None
    assert dog.look(0.5, states, progress, seen) is None
    found = dog.look(3.0, states, progress, seen)
    assert found is None if why is None else why in found and "7 steps" in found


def test_what_passes_begins_anew():
    dog = Watchdog("a", stopped=1.0, hung=3.0)
    dog.look(0.0, "T", TRAINING, cluster("cb", there="bc"))
    dog.look(0.9, "S", TRAINING, None)  # the store is away
    assert dog.look(1.5, "T", TRAINING, cluster("cb", there="bc")) is None
    assert dog.look(2.4, "T", TRAINING, cluster("cb", there="bc")) is None
    assert "stopped" in dog.look(2.5, "T", TRAINING, cluster("cb", there="bc"))


def test_progress_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "progress"
    file = ProgressFile(path)
    assert Progress.read(path) == Progress()
    file.write(Phase.TRAINING, 4, 12)
    assert Progress.read(path) == Progress(Phase.TRAINING, os.getpid(), 4, 12)
    file.close()
    ProgressFile(None).write(Phase.TRAINING, 0, 0)


def test_the_state_of_a_process():
    assert state_of(os.getpid()) == "R" and state_of(1 << 22) == ""


def test_a_policy_is_checked():
    with pytest.raises(ValueError, match="deaths"):
        Policy(deaths=0)
    with pytest.raises(ValueError, match="hung"):
        Policy(hung=-1.0)
