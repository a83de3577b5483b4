"""Nodes that are killed, stopped, added and taken away, as processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from oarlock.fleet_ext.elastic import Size
from oarlock.fleet_ext.elastic.membership import Membership
from oarlock.fleet_ext.rendezvous import StoreServer, TcpStore

SCRIPT = Path(__file__).with_name("elastic_node.py")
sys.path.insert(0, str(SCRIPT.parent))
from elastic_node import Model, gradient  # noqa: E402


class Nodes:
    """A store, and nodes that share it."""

    def __init__(self, least, most, steps, seconds=0.02):
        self.server = StoreServer(job="test", token="token")
        self.options = [str(one) for one in (least, most, steps, seconds)]
        self.processes = {}

    def start(self, *names):
        for name in names:
            self.processes[name] = subprocess.Popen(
                [sys.executable, str(SCRIPT), str(self.server.address[1]), name, *self.options],
                stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def until(self, name, step):
        for line in self.processes[name].stdout:
            if line == f"step {step}\n":
                return
        raise AssertionError(f"{name} ended before step {step}")

    def store(self):
        return TcpStore("127.0.0.1", self.server.address[1], job="test", token="token")

    def until_there(self, count):
        """So many nodes train or are ready."""
        store, until = self.store(), time.monotonic() + 30.0
        while len(store.keys("elastic/nodes/")) < count:
            assert time.monotonic() < until
            time.sleep(0.02)
        store.close()

    def ends(self, *names):
        """What they say at the end."""
        found = {}
        for name in names:
            out, _ = self.processes[name].communicate(timeout=60)
            found[name] = json.loads(out.splitlines()[-1])
        print({name: one["recoveries"] for name, one in found.items()})  # shown where a test fails
        return found

    def close(self):
        for one in self.processes.values():
            one.kill()
            one.wait()
            one.stdout.close()
        self.server.close()


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
            assert size == 3 and seconds < 5.0


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
    assert noticed < 6.0
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
