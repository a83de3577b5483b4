"""Jobs of which no node is left, and which go on from what they saved."""

import json

import numpy as np
import pytest
from oarlock.fleet_ext.checkpoints import CheckpointError, latest
from oarlock.fleet_ext.elastic import SavedTraining, restore
from oarlock.fleet_ext.transport import Mesh, MeshGroup

from elastic_node import Model
from nodes import Nodes
from test_session import undisturbed

STEPS = 24
NODES = ("a", "b", "c")


@pytest.fixture
def job(tmp_path):
    """Runs the nodes of a job to their end; another store each time, unless it is kept."""
    made = []

    def run(shared, die, names=NODES, keep_store=False):
        told = json.dumps({"folder": str(tmp_path), "shared": shared, "die": die})
        nodes = Nodes(3, 3, STEPS, told, script="elastic_saved_node.py")
        made.append(nodes)
        if keep_store:
            nodes.server.close()
            nodes.server = made[-2].server
        nodes.start(*names)
        if die:
            for one in nodes.processes.values():
                assert one.wait(timeout=120) == -9
            return None
        return nodes.ends(*names)

    yield run
    for one in made:
        one.close()


@pytest.mark.parametrize(
    ("die", "next_step"),
    (
        # Of step 11, of which all have the mean, only one has what came of it on its disk.
        ({"a": ["saved", 11], "b": ["before", 11], "c": ["between", 11]}, 12),
        ({"a": ["between", 11], "b": ["between", 11], "c": ["saved", 11]}, 12),
        # One has taken it, and none has saved it.
        ({"a": ["before", 11], "b": ["between", 11], "c": ["before", 11]}, 8),
    ),
)
def test_the_newest_state_on_any_disk_counts(job, die, next_step):
    job(False, die)
    found = job(False, {})
    assert max(one["first"] for one in found.values()) == next_step
    for one in found.values():
        assert one["recoveries"] == [next_step]
        np.testing.assert_array_equal(np.float32(one["weights"]), undisturbed(STEPS, 3))


@pytest.mark.parametrize("where", ("before", "between"))
def test_a_checkpoint_of_which_not_all_have_written_their_part_does_not_count(job, tmp_path, where):
    # Rank 0 saves behind step 11, and the others are dead when it wants them to.
    job(True, {"a": ["saved", 11], "b": [where, 11], "c": ["before", 11]})
    newest = latest(tmp_path / "shared")
    assert newest is not None and newest.step == 8
    for one in job(True, {}).values():
        assert (one["first"], one["recoveries"]) == (8, [8])
        np.testing.assert_array_equal(np.float32(one["weights"]), undisturbed(STEPS, 3))


@pytest.mark.parametrize("names", (NODES, ("d", "e", "f")))
def test_the_store_may_still_have_the_epoch_of_those_who_died(job, names):
    die = {"a": ["saved", 11], "b": ["saved", 11], "c": ["saved", 11]}
    job(True, die)
    for one in job(True, {}, names, keep_store=True).values():
        assert one["recoveries"] == [12]
        np.testing.assert_array_equal(np.float32(one["weights"]), undisturbed(STEPS, 3))


def test_what_is_saved_is_loaded(tmp_path):
    model = Model()
    with Mesh(0, 1) as mesh, MeshGroup(mesh, [0], "alone") as group:
        saved = SavedTraining(model, tmp_path, every=2)
        assert saved.restore() == 0
        for step in range(5):
            saved.compute(step, group)
            saved.apply(step)
            if step == 3:
                weights, speed = model.weights.copy(), model.speed.copy()
        saved.close()
    other = Model()
    assert restore(other, tmp_path) == 4
    np.testing.assert_array_equal(other.weights, weights)
    np.testing.assert_array_equal(other.speed, speed)


def test_where_no_checkpoint_is_good_nothing_begins_anew(tmp_path):
    (tmp_path / "step-000004").mkdir()
    with pytest.raises(CheckpointError, match="no good checkpoint"):
        restore(Model(), tmp_path)
    with pytest.raises(ValueError, match="every"):
        SavedTraining(Model(), tmp_path, every=0)
