"""Nodes that become slow, as processes."""

import json
import socket
import time

import numpy as np
import pytest
from oarlock.fleet_ext.telemetry.events import EVENTS, read_events

from elastic_slow_node import HOLD, PACING, RATE, Wide, gradient
from nodes import Nodes

STEPS = 45
WAIT_S = 120.0


@pytest.fixture
def slow_nodes():
    made = []

    def make(least, most, rest):
        made.append(Nodes(least, most, STEPS, rest, script="elastic_slow_node.py"))
        made[-1].start(*"abcdef"[:most])
        made[-1].until("a", HOLD[0] - 1)
        return made[-1], made[-1].store()

    yield make
    for one in made:
        one.close()


def go(store, step):
    store.set(f"go/{step}", b"")


def until(condition):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def undisturbed(ranks):
    """Bits of the weights of as many ranks that nothing happens to."""
    model = Wide()
    for step in range(STEPS):
        total = gradient(model.weights, 0, step)
        for rank in range(1, ranks):
            total = total + gradient(model.weights, rank, step)
        model.mean = total / np.float32(ranks)
        model.apply(step)
    return model.weights.tobytes().hex()


def same(bits, others):
    return bits == others  # apart from the assertion, which would show a megabyte


@pytest.mark.parametrize("part", ("work", "link"))
def test_a_spare_takes_the_place_of_a_slow_node_and_the_result_is_the_same_bits(slow_nodes, part):
    if part == "link":
        with socket.socket() as one:
            try:
                one.setsockopt(socket.SOL_SOCKET, PACING, RATE)
            except OSError as error:
                pytest.skip(f"sockets cannot be paced here: {error}")
    nodes, store = slow_nodes(2, 3, 3600.0)
    nodes.start("spare")
    nodes.until_there(4)
    store.set("slow", json.dumps(["c", part, 1]).encode())
    go(store, HOLD[0])
    go(store, HOLD[1])
    found = nodes.ends("a", "b", "c", "spare")
    for name in ("a", "b", "spare"):
        assert found[name]["step"] == STEPS and same(found[name]["weights"], undisturbed(3))
    assert found["c"]["step"] < STEPS  # it rested to the end
    whys = [(why, size) for why, _, _, size, _ in found["a"]["recoveries"]]
    words = {"work": "by its own work", "link": "by its link"}[part]
    assert len(whys) == 2 and whys[1][1] == 3
    assert f"node c holds the others up {words}" in whys[1][0]
    said = [one for one in read_events(store.read(EVENTS)[1]) if one.kind == "slow"]
    assert len(said) == 1 and said[0].text == whys[1][0] and said[0].epoch == 1
    store.close()


def test_without_a_spare_the_others_do_without_a_slow_node_until_it_has_rested(slow_nodes):
    nodes, store = slow_nodes(2, 3, 0.5)
    store.set("slow", json.dumps(["b", "work", 1]).encode())
    go(store, HOLD[0])
    until(lambda: store.get("elastic/resting/b") is not None)
    until(lambda: store.get("elastic/resting/b") is None)
    go(store, HOLD[1])
    found = nodes.ends("a", "b", "c")
    assert len({one["weights"] for one in found.values()}) == 1
    assert [size for _, _, _, size, _ in found["a"]["recoveries"]] == [3, 2, 3]
    assert "node b holds the others up" in found["a"]["recoveries"][1][0]


@pytest.mark.parametrize(("least", "who"), ((2, "all"), (3, "c")))
def test_nobody_is_put_out_where_all_are_slow_or_too_few_would_be_left(slow_nodes, least, who):
    nodes, store = slow_nodes(least, 3, 3600.0)
    store.set("slow", json.dumps([who, "work", 1]).encode())
    go(store, HOLD[0])
    nodes.until("a", HOLD[1] - 15)
    store.delete("slow")
    go(store, HOLD[1])
    found = nodes.ends("a", "b", "c")
    assert all(same(one["weights"], undisturbed(3)) for one in found.values())
    assert [size for _, _, _, size, _ in found["a"]["recoveries"]] == [3]
