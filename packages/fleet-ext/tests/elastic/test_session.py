"""Nodes that are killed, stopped, added and taken away, as processes."""

import signal
import time

import numpy as np
import pytest
from oarlock.fleet_ext.elastic import Size
from oarlock.fleet_ext.elastic.membership import Membership

from elastic_node import Model, gradient
from nodes import Nodes


@pytest.fixture
def nodes():
    made = []

    def make(*arguments, **options):
        made.append(Nodes(*arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def undisturbed(steps, ranks):
    """Weights of as many ranks that nothing happens to."""
    model = Model()
    for step in range(steps):
        total = gradient(model.weights, 0, step)
        for rank in range(1, ranks):
            total = total + gradient(model.weights, rank, step)
        model.mean = total / ranks
        model.apply(step)
    return model.weights


def test_undisturbed_nodes_are_as_one_process(nodes):
    one = nodes(3, 3, 20)
    one.start("a", "b", "c")
    for found in one.ends("a", "b", "c").values():
        np.testing.assert_array_equal(np.float32(found["weights"]), undisturbed(20, 3))


@pytest.mark.parametrize("victim", ("a", "c"))
def test_a_killed_node_is_replaced_and_the_result_is_the_same_bits(nodes, victim):
    one = nodes(2, 3, 200)
    one.start("a", "b", "c")
    one.until("b", 5)
    one.start("spare")
    one.until_there(4)
    one.processes[victim].kill()
    rest = sorted({"a", "b", "c", "spare"} - {victim})
    for name, found in one.ends(*rest).items():
        np.testing.assert_array_equal(np.float32(found["weights"]), undisturbed(200, 3))
        assert found["step"] == 200
        if name != "spare":
            why, _, _, size, seconds = found["recoveries"][1]
            assert "lost" in why or "gone" in why
            assert size == 3 and seconds < 10.0


def test_without_a_spare_the_others_go_on_and_take_who_comes_later(nodes):
    one = nodes(2, 3, 120)
    one.start("a", "b", "c")
    one.until("a", 10)
    one.processes["c"].kill()
    one.until("a", 25)
    one.start("d")
    found = one.ends("a", "b", "d")
    np.testing.assert_array_equal(found["a"]["weights"], found["b"]["weights"])
    np.testing.assert_array_equal(found["a"]["weights"], found["d"]["weights"])
    assert [size for _, _, _, size, _ in found["a"]["recoveries"]] == [3, 2, 3]


def test_a_stopped_node_is_noticed_and_done_without_and_comes_back_when_it_moves(nodes):
    one = nodes(2, 3, 200)
    one.start("a", "b", "c")
    one.until("a", 10)
    one.processes["c"].send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    one.until("a", 14)
    noticed = time.monotonic() - begin
    one.processes["c"].send_signal(signal.SIGCONT)
    found = one.ends("a", "b", "c")
    assert noticed < 15.0  # the lease is 3 s, an operation's time 20
    np.testing.assert_array_equal(found["a"]["weights"], found["c"]["weights"])
    assert [size for _, _, _, size, _ in found["a"]["recoveries"]] == [3, 2, 3]


def test_the_number_of_nodes_is_changed_while_they_run(nodes):
    one = nodes(1, 2, 150)
    one.start("a", "b", "c")
    one.until_there(3)
    store = one.store()
    member = Membership(store, "observer", Size(least=1, most=2), gone=lambda node: None)
    member.close()
    member.resize(Size(least=1, most=3))
    found = one.ends("a", "b", "c")
    sizes = {tuple(size for _, _, _, size, _ in one["recoveries"]) for one in found.values()}
    assert any(3 in one for one in sizes)
    for other in ("b", "c"):
        np.testing.assert_array_equal(found["a"]["weights"], found[other]["weights"])
    store.close()
