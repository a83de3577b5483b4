"""Under constant load nothing that happens to replicas, nodes or the store is seen by clients."""

import time

import httpx
import pytest
from fleets import KILL, STOP, Clients, Place, command, until, with_each_store
from oarlock.fleet_ext.serving import mirror
from oarlock.fleet_ext.telemetry import read_events


@pytest.fixture
def place(request):
    kind = getattr(request, "param", "built-in")
    made = Place(request.getfixturevalue("etcd") if kind == "etcd" else None)
    yield made
    made.close()


@with_each_store
def test_no_request_fails_when_replicas_are_killed_stopped_wedged_drained_and_rescaled(place):
    place.agent("node", 2, command(silent=1.0), spares=1, capacity=4)
    server = place.router()
    place.until_ready(2)
    place.until_routed(server, 2)
    clients = Clients(server.url)
    try:
        clients.until_asked(8)
        for number in (KILL, STOP):
            victim = place.ready()[0]
            place.signal(victim.id, number)
            until(lambda: victim.id not in place.fleet.view().replicas, "the loss")
            place.until_ready(2)
            clients.until_asked(8)
        victim = place.ready()[0]
        place.fleet.drain(victim.id)
        until(lambda: victim.id not in place.fleet.view().replicas, "the end of a drained replica")
        for count in (4, 1, 2):
            place.fleet.rescale(count)
            place.until_ready(count)
            clients.until_asked(8)
        victim = place.ready()[0]
        with pytest.raises(httpx.TimeoutException):  # from now on it answers nothing
            httpx.post(f"http://127.0.0.1:{victim.port}/wedge", timeout=0.5)
        until(lambda: victim.id not in place.fleet.view().replicas, "the loss of a wedged replica")
        clients.until_asked(8)
    finally:
        clients.close()
    assert clients.wrong == [] and clients.asked > 48
    assert place.metric(server, "oarlock_router_lost_attempts_total") > 0  # something did happen
    until(lambda: not place.fleet.view().drains, "the end of what was asked for")
    said = [event.text for event in read_events(place.store.read("telemetry/")[1])]
    for words in ("was ended by SIGKILL", "was stopped", "answered no health request", "gets no more"):  # fmt: skip
        assert any(words in one for one in said), (words, said)


@with_each_store
def test_a_node_that_is_gone_leaves_its_slots_to_another(place):
    place.agent("a", 2, lease=1.0)
    place.until_ready(2)
    place.agent("b", 2, spares=1, lease=1.0)
    until(lambda: any(one.state == "spare" for one in place.fleet.view().replicas.values()), "a spare one")  # fmt: skip
    assert {one.node for one in place.ready()} == {"a"}
    server = place.router()
    place.until_routed(server, 2)
    clients = Clients(server.url, count=3)
    try:
        clients.until_asked(6)
        place.agents.pop("a").close(drain=False)
        until(lambda: [one.node for one in place.ready()] == ["b", "b"], "another node's turn")
        clients.until_asked(6)
        place.agent("c", 2)
        until(lambda: "c" in place.fleet.view().nodes, "the third node")
        place.agents.pop("b").close()  # drains
        until(lambda: [one.node for one in place.ready()] == ["c", "c"], "the third node's turn")
        clients.until_asked(6)
    finally:
        clients.close()
    assert clients.wrong == []


def test_a_store_that_loses_its_keys_is_not_noticed(place, monkeypatch):
    monkeypatch.setattr(mirror, "GRACE_S", 3.0)
    place.agent("node", 2, lease=1.0)
    server = place.router()
    place.until_ready(2)
    place.until_routed(server, 2)
    before = {one.id for one in place.ready()}
    clients = Clients(server.url, count=3)
    try:
        clients.until_asked(6)
        place.restart_store()
        until(lambda: {one.id for one in place.ready()} == before, "the same replicas")
        until(lambda: place.fleet.view().wanted == 2, "the wanted number")
        until(lambda: place.fleet.view().routers, "the router")
        clients.until_asked(6)
        begin = time.monotonic()
        while time.monotonic() < begin + 4.0:  # longer than lost keys are kept
            assert {one.id for one in place.ready()} == before
            time.sleep(0.2)
    finally:
        clients.close()
    assert clients.wrong == []
    assert place.metric(server, "oarlock_router_lost_attempts_total") == 0
