"""The router, in front of replicas that are registered by hand."""

import hashlib
import json
import os
import socket
import threading

import httpx
import pytest
from fleets import KILL, LONG_S, STOP, Place, ask, events_of, until
from small_replica import words_of


@pytest.fixture
def place():
    made = Place()
    yield made
    made.close()


@pytest.fixture
def client():
    with httpx.Client(timeout=LONG_S) as made:
        yield made


def in_thread(work):
    """Its result, to be called for."""
    found = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()

    def result():
        thread.join(LONG_S)
        return found[0]

    return result


def running(place, id):
    return sum(report.uses[id].running for report in place.fleet.view().routers.values() if id in report.uses)  # fmt: skip


def test_requests_and_answers_pass_unchanged_but_for_what_is_of_one_connection(place, client):
    process = place.replica("r")
    server = place.router()
    place.until_routed(server, 1)
    sent = {"x-mine": "1", "connection": "keep-alive, x-near", "x-near": "2", "x-forwarded-for": "9.9.9.9"}  # fmt: skip
    answer = client.get(server.url + "/some/path%20here?a=1&b=%C3%A4", headers=sent)
    assert answer.status_code == 200 and answer.headers["x-oarlock-replica"] == "r"
    assert "x-private" not in answer.headers
    said = answer.json()
    got = {key.lower(): value for key, value in said["headers"].items()}
    assert said["path"] == "/some/path%20here?a=1&b=%C3%A4"
    assert got["x-mine"] == "1" and "x-near" not in got
    assert got["x-forwarded-for"] == "9.9.9.9, 127.0.0.1"
    assert got["host"] == server.url.removeprefix("http://")
    assert client.head(server.url + "/x").status_code == 501  # the replica's own word
    assert client.get(f"http://127.0.0.1:{process.port}/").status_code == 200


def test_bodies_that_are_too_large_to_keep_pass_once(place, client):
    place.replica("r")
    server = place.router(kept_bytes=1000)
    place.until_routed(server, 1)
    body = os.urandom(3_000_000)
    for given in (body, iter([body[:500], body[500:2_000_000], body[2_000_000:]]), b"", body[:1000]):  # fmt: skip
        whole = given if isinstance(given, bytes) else body
        said = client.post(server.url + "/count", content=given).json()
        assert said == {"bytes": len(whole), "hash": hashlib.sha256(whole).hexdigest()}


@pytest.mark.parametrize("kept_bytes", [0, 1000])
def test_a_length_beside_chunks_does_not_count(place, kept_bytes):
    place.replica("r")
    server = place.router(kept_bytes=kept_bytes)
    place.until_routed(server, 1)
    with socket.create_connection(server.address) as connection:
        connection.sendall(
            b"POST /count HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n"
            b"connection: close\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"
        )
        said = b"".join(iter(lambda: connection.recv(1000), b""))
    assert said.startswith(b"HTTP/1.1 400") or b'"bytes": 5' in said


def test_a_stopped_replica_is_not_waited_for_longer_than_the_hedge(place, client):
    slow, other = place.replica("slow"), place.replica("other")
    server = place.router(hedge_s=0.3)
    place.until_routed(server, 2)
    os.kill(slow.pid, STOP)

    def asked_and_hedged():  # of two that have nothing to do, chance takes one
        assert ask(client, server.url, "seed") is None
        return place.metric(server, "oarlock_router_hedged_requests_total")

    until(asked_and_hedged, "a request at the stopped one")
    assert other.code is None
    answer = client.get(server.url + "/router/health")
    assert answer.json() == {"status": "ready", "replicas": 2}


def test_a_dead_replica_is_passed_over_and_requests_without_another_wait_for_one(place, client):
    first = place.replica("first")
    server = place.router()
    place.until_routed(server, 1)
    os.kill(first.pid, KILL)
    until(lambda: first.code is not None, "its end")
    result = in_thread(lambda: ask(client, server.url, "seed"))
    second = place.replica("second")
    assert result() is None and second.code is None


def test_a_stream_goes_on_from_another_replica_with_the_same_name(place, client):
    processes = {name: place.replica(name) for name in ("a", "b")}
    server = place.router()
    place.until_routed(server, 2)
    for path in ("/stream", "/bytes"):
        given = {"seed": path, "words": 30, "pause": 0.05}
        with client.stream("POST", server.url + path, json=given) as answer:
            victim = answer.headers["x-oarlock-replica"]
            parts = answer.iter_raw()
            text = next(parts) + next(parts)
            os.kill(processes[victim].pid, KILL)
            text += b"".join(parts)
        if path == "/bytes":
            assert text == "".join(words_of(path, 30)).encode() + b"."
        else:
            events = [json.loads(one.removeprefix("data: ")) for one in text.decode().split("\n\n")[:-2]]  # fmt: skip
            assert [one["word"] for one in events] == words_of(path, 30)
            assert len({(one["id"], one["created"] if one["number"] == 0 else 0) for one in events}) == 2  # fmt: skip
            assert len({one["id"] for one in events}) == 1
            assert text.endswith(b"data: [DONE]\n\n")
        place.store.delete(f"serving/replicas/{victim}")
        processes[f"{victim} again"] = place.replica(f"{victim} again")
        place.until_routed(server, 2)
    assert place.metric(server, "oarlock_router_resumed_answers_total") == 2


@pytest.mark.parametrize("why", ["drawn", "unanswered"])
def test_a_stream_that_cannot_go_on_ends_with_an_error_and_no_end(place, client, why):
    processes = {name: place.replica(name) for name in ("a", "b")}
    server = place.router()
    place.until_routed(server, 2)
    headers = {"x-oarlock-replay": "unanswered"} if why == "unanswered" else {}
    path = "/draw" if why == "drawn" else "/stream"
    given = {"seed": 1, "words": 200, "pause": 0.05}
    text = b""
    with pytest.raises(httpx.RemoteProtocolError):  # nobody takes it for whole
        with client.stream("POST", server.url + path, json=given, headers=headers) as answer:
            for part in answer.iter_raw():
                if not text:
                    os.kill(processes[answer.headers["x-oarlock-replica"]].pid, KILL)
                text += part
    last = json.loads(text.decode().strip().split("\n\n")[-1].removeprefix("data: "))
    assert last["error"]["code"] == "replica_lost" and b"[DONE]" not in text
    assert place.metric(server, "oarlock_router_broken_answers_total") == 1


def test_a_request_that_kills_replicas_does_not_kill_all(place, client):
    processes = [place.replica(f"r{number}") for number in range(4)]
    server = place.router()
    place.until_routed(server, 4)
    answer = client.post(server.url + "/die", json={})
    assert answer.status_code == 502 and "may be the reason" in answer.json()["error"]["message"]
    until(lambda: sum(one.code is None for one in processes) == 1, "the end of three")
    assert ask(client, server.url, "seed") is None


def test_what_may_not_be_sent_again_is_not(place, client):
    place.replica("a"), place.replica("b")
    server = place.router(replay="never")
    place.until_routed(server, 2)
    answer = client.post(server.url + "/die", json={})
    assert answer.status_code == 502 and answer.json()["error"]["code"] == "replica_lost"
    until(
        lambda: [one.code is None for one in place.processes.values()].count(True) == 1, "one end"
    )
    assert ask(client, server.url, "seed") is None  # who is dead cannot have had it
    answer = client.post(server.url + "/answer", json={}, headers={"x-oarlock-replay": "perhaps"})
    assert answer.status_code == 400 and "never, unanswered, always" in answer.text


def test_replicas_without_room_are_passed_over(place, client):
    place.replica("a"), place.replica("b")
    server = place.router()
    place.until_routed(server, 2)
    assert client.post(server.url + "/busy", json={"seed": 1}).status_code == 503
    until(lambda: running(place, "a") == running(place, "b") == 0, "the end of both attempts")


def test_more_requests_than_may_wait_are_refused(place, client):
    place.replica("r")
    server = place.router(most=1, queue=1)
    place.until_routed(server, 1)
    long = {"seed": 1, "words": 1, "pause": 1.5}
    results = []
    for place_taken in ("at the replica", "in the queue"):
        results.append(in_thread(lambda: httpx.post(server.url + "/answer", json=long, timeout=LONG_S)))  # fmt: skip
        name = "oarlock_router_running" if place_taken == "at the replica" else "oarlock_router_waiting"  # fmt: skip
        until(lambda: place.metric(server, name) == 1, f"a request {place_taken}")
    answer = client.post(server.url + "/answer", json=long)
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
    assert [result().status_code for result in results] == [200, 200]


def test_without_replicas_requests_wait_for_a_while(place, client):
    server = place.router(wait_s=0.2)
    answer = client.post(server.url + "/answer", json={"seed": 1})
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "no_replica"
    assert client.get(server.url + "/router/health").status_code == 503


def test_a_draining_replica_ends_what_it_has_and_gets_nothing_new(place, client):
    first = place.replica("first")
    server = place.router()
    place.until_routed(server, 1)
    events = events_of(client, server.url, {"seed": 1, "words": 10, "pause": 0.1})
    got = [next(events)]
    place.register("first", first.port, "draining")
    place.replica("second")
    until(lambda: place.fleet.view().left("second") is False and running(place, "first") == 1, "it")
    with httpx.Client(timeout=LONG_S) as other:
        for _ in range(3):
            answer = other.post(server.url + "/answer", json={"seed": 1})
            assert answer.headers["x-oarlock-replica"] == "second"
    got += list(events)
    assert [one["word"] for one in got[:-1]] == words_of(1, 10) and got[-1] == "[DONE]"
    until(lambda: place.fleet.view().left("first"), "what the agent waits for")


def test_a_client_that_goes_away_frees_its_replica(place):
    place.replica("r")
    server = place.router()
    place.until_routed(server, 1)
    host, port = server.address
    body = json.dumps({"seed": 1, "words": 10_000, "pause": 0.05}).encode()
    with socket.create_connection((host, port)) as connection:
        head = f"POST /stream HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        until(lambda: running(place, "r") == 1, "a request")
    until(lambda: running(place, "r") == 0, "the end of a request without a client")
    until(lambda: place.metric(server, "oarlock_router_cancelled_requests_total") == 1, "its count")


def test_who_has_no_token_may_not_drain_or_rescale(place, client):
    open_to_none, server = place.router(), place.router(admin_token="a long secret")
    place.replica("r")
    place.until_routed(server, 1)
    url = server.url + "/router/replicas"
    assert client.put(open_to_none.url + "/router/replicas", json={"wanted": 3}).status_code == 404
    assert client.put(url, json={"wanted": 3}).status_code == 401
    client.headers["authorization"] = "Bearer a long secret"
    assert client.put(url, json={"wanted": 3}).status_code == 200
    assert place.fleet.view().wanted == 3
    assert client.put(url, json={"wanted": "3"}).status_code == 400
    assert client.put(url, content=b"{").status_code == 400
    assert client.post(url + "/nobody/drain").status_code == 400
    assert client.post(url + "/r/drain").status_code == 200
    assert place.fleet.view().drains == {"r"}
    assert client.get(url).json()["replicas"] == {"r": {"state": "ready", "running": 0}}
    assert client.get(server.url + "/router/other").status_code == 404
