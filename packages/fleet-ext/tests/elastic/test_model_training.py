"""A Paddle model on nodes of which one is killed."""

import numpy as np
import pytest
from oarlock.fleet_ext.transport import Mesh, MeshGroup

from elastic_model import training_of, weights_of
from nodes import Nodes

STEPS = 80


def undisturbed(ranks):
    """What as many ranks have that nothing happens to, computed by this process, one rank after the other."""
    training, net = training_of("float32")
    optimizer, loss = training._optimizer, training._loss
    for step in range(STEPS):
        gradients = []
        for rank in range(ranks):
            optimizer.clear_grad()
            loss(step, rank, ranks).backward()
            gradients.append([one.grad.numpy() for one in net.parameters()])
        for one, *parts in zip(net.parameters(), *gradients):
            total = parts[0]
            for part in parts[1:]:
                total = total + part
            one.grad.set_value(total / np.float32(ranks))
        training.apply(step)
    return weights_of(net)


@pytest.mark.parametrize("way", ("float32", "int4", "hosts-top-10%"))
def test_a_spare_node_goes_on_where_the_killed_one_was(way):
    nodes = Nodes(2, 2, STEPS, way, script="elastic_model.py")
    try:
        nodes.start("a", "b", "spare")
        store = nodes.store()
        store.wait(["ready/a", "ready/b", "ready/spare"], 120.0)
        for name in ("a", "b"):
            store.set(f"go/{name}", b"")
        nodes.until_there(2)
        store.set("go/spare", b"")
        nodes.until_there(3)
        nodes.until("a", 3)
        nodes.processes["b"].kill()
        found = nodes.ends("a", "spare")
    finally:
        nodes.close()
    np.testing.assert_array_equal(found["a"]["weights"], found["spare"]["weights"])
    assert found["a"]["step"] == STEPS and len(found["a"]["recoveries"]) == 2
    if way == "float32":
        np.testing.assert_array_equal(np.float32(found["a"]["weights"]), undisturbed(2))
    else:  # what the lost node's codes had left out is gone with it
        losses = found["a"]["losses"]
        assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])


def test_a_state_goes_to_a_node_that_has_taken_no_step():
    (one, net), (other, copy) = training_of("float32"), training_of("float32")
    with Mesh(0, 1) as mesh, MeshGroup(mesh, [0], "alone") as group:
        for step in range(3):
            one.compute(step, group)
            one.apply(step)
        other.load({name: array.copy() for name, array in one.state().items()})
        for training in (one, other):
            training.compute(3, group)
            training.apply(3)
            training.close()
    np.testing.assert_array_equal(weights_of(net), weights_of(copy))
