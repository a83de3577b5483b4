"""A node: what it starts, what it ends, and when it gives up."""

import os
import sys

import pytest
from fleets import KILL, Place, command, until
from oarlock.fleet_ext.serving import crew
from oarlock.fleet_ext.serving import Command, NeverAnswered, Patience
from oarlock.fleet_ext.serving.claims import better_elsewhere, claimable
from oarlock.fleet_ext.serving.records import Node, Report, Use, View


@pytest.fixture
def place():
    made = Place()
    yield made
    made.close()


def test_free_slots_go_to_who_is_warm_then_to_who_has_the_fewest():
    nodes = {"a": Node(capacity=3, warm=0), "b": Node(capacity=3, warm=1), "c": Node(capacity=1, warm=0)}  # fmt: skip
    assert [claimable(4, {}, nodes, name) for name in "abc"] == [[1, 3], [0], [2]]
    assert claimable(4, {0: "b", 1: "gone", 2: "a"}, nodes, "b") == [3]
    assert claimable(9, {}, nodes, "c") == [2]  # no more than it can
    assert claimable(2, {0: "a", 1: "a"}, nodes, "b") == []
    assert better_elsewhere({0: "a"}, nodes, "a") and not better_elsewhere({0: "b"}, nodes, "b")


def test_a_replica_is_left_when_all_routers_say_so():
    def view(**uses):
        routers = {id: Report(address="", uses={"r": use} if use else {}) for id, use in uses.items()}  # fmt: skip
        return View(wanted=1, slots={}, nodes={}, replicas={}, routers=routers, drains=frozenset())

    over, runs = Use(state="draining", running=0), Use(state="draining", running=1, quiet=7.0)
    assert view().left("r") and view(a=over).left("r")
    assert not view(a=over, b=runs).left("r")
    assert not view(a=over, b=Use(state="ready", running=0)).left("r")  # it has not heard
    assert not view(a=over, b=None).left("r")
    assert view(a=over, b=runs).quiet("r") == 7.0


def test_what_is_malformed_in_the_store_is_left_out():
    values = {"serving/wanted": b"many", "serving/slots/0": b"a", "serving/slots/x": b"a",
              "serving/replicas/r": b'{"id": "r"}', "serving/nodes/a": b"[]", "serving/routers/q": b"{",
              "serving/replicas/s": b'{"id":"s","node":"a","host":"h","port":0,"state":"ready","slot":null}'}  # fmt: skip
    view = View.of(values)
    assert view.wanted is None and view.slots == {0: "a"}
    assert not view.replicas and not view.nodes and not view.routers


def test_bad_arguments_are_told(place):
    with pytest.raises(ValueError, match="{port}"):
        Command(argv=("server", "--port", "8000"))
    with pytest.raises(ValueError, match="health"):
        Command(argv=("{port}",), health="health")
    with pytest.raises(ValueError, match="drain"):
        Patience(drain=0.0)
    with pytest.raises(ValueError, match="spares"):
        place.agent("node", 1, spares=-1)
    with pytest.raises(ValueError, match="replicas"):
        place.fleet.rescale(-1)
    with pytest.raises(ValueError, match="none-such"):
        place.fleet.drain("none-such")


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(crew, "_BACKOFF_S", (0.02, 0.1))


def test_a_command_that_never_answers_is_given_up_with_its_words(place, impatient):
    argv = (sys.executable, "-c", "raise SystemExit('there is no model at all')", "{port}")
    agent = place.agent("node", 1, Command(argv=argv))
    until(lambda: agent.failure, "giving up")
    assert isinstance(agent.failure, NeverAnswered)
    assert "no model at all" in str(agent.failure) and "ended with 1" in str(agent.failure)


def test_a_program_that_is_not_there_is_told(place):
    agent = place.agent("node", 1, Command(argv=("/no/such/program", "{port}")))
    assert "/no/such/program" in str(until(lambda: agent.failure, "giving up"))


def test_a_replica_that_never_answers_is_ended_in_time(place, impatient):
    argv = (sys.executable, "-c", "import time; time.sleep(1e6)", "{port}")
    agent = place.agent("node", 1, Command(argv=argv), patience=Patience(start=0.3))
    until(lambda: agent.failure, "giving up")
    assert "did not answer within 0.3 s" in str(agent.failure)


def test_a_spare_takes_over_and_another_becomes_spare(place):
    agent = place.agent("node", 1, spares=1)
    place.until_ready(1)
    until(lambda: len(place.fleet.view().replicas) == 2 and len(agent.pids) == 2, "a spare one")
    spare = until(lambda: [one.id for one in place.fleet.view().replicas.values() if one.state == "spare"], "a warm one")  # fmt: skip
    place.signal(place.ready()[0].id, KILL)
    until(lambda: [one.id for one in place.ready()] == spare, "the spare one's turn")
    until(lambda: [one.state for one in place.fleet.view().replicas.values()].count("spare") == 1, "the next spare one")  # fmt: skip
    assert place.ready()[0].slot == 0


def test_nothing_stays_behind(place):
    agent = place.agent("node", 2, command(), spares=1)
    place.until_ready(2)
    pids = list(agent.pids.values())
    agent.close()
    assert place.store.keys("serving/") == ["serving/wanted"]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
