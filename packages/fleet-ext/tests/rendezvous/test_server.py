"""The built-in server among strangers, broken clients and limits; and as a process."""

import signal
import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from oarlock.fleet_ext.rendezvous import (
    Limits,
    Outdated,
    StoreError,
    StoreServer,
    TcpStore,
    Unreachable,
    client as clients,
    entrance,
    frames,
    server as serving,
)
from oarlock.fleet_ext.rendezvous.__main__ import app
from oarlock.fleet_ext.transport import wire

TOKEN = "correct horse battery staple"


@pytest.fixture
def server():
    with StoreServer(job="test", token=TOKEN) as made:
        yield made


@pytest.fixture
def store(server):
    with client(server) as made:
        made.set("k", b"v")
        yield made


def client(server, *, job="test", token=TOKEN, **options):
    return TcpStore(*server.address, job=job, token=token, **options)


def dial(server):
    """A connection that has not proved anything."""
    return socket.create_connection(server.address, timeout=5.0)


def admitted(server):
    return wire.greet(dial(server), TOKEN, frames.handshake_context("test"), None)


def closed(connection, seconds=5.0):
    """Whether the other side ends the connection."""
    connection.settimeout(seconds)
    try:
        while connection.recv(4096):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def refused(server, count, seconds=5.0):
    until = time.monotonic() + seconds
    while server.refused < count and time.monotonic() < until:
        time.sleep(0.01)
    return server.refused == count


class TestStrangers:
    @pytest.mark.parametrize("wrong", [{"token": "guess"}, {"job": "another"}])
    def test_wrong_token_or_job(self, server, store, wrong, monkeypatch):
        monkeypatch.setattr(clients, "REFUSED_S", 0.5)
        with client(server, **wrong) as stranger:
            begun = time.monotonic()
            with pytest.raises(Unreachable, match="refused 'get'.*same token, job and TLS"):
                stranger.get("k")
            assert time.monotonic() - begun < 2.5  # long before its deadline
        assert store.get("k") == b"v"

    def test_a_server_with_another_token_is_not_believed(self, server):
        with client(server, token="other", timeout=0.5) as store:
            with pytest.raises(Unreachable):
                store.set("password", b"secret")

    @pytest.mark.parametrize("said", [b"\x00" * 4096, b"GET / HTTP/1.1\r\n\r\n" * 10, b"\xff" * 60])
    def test_garbage_instead_of_a_handshake(self, server, store, said):
        with dial(server) as stranger:
            stranger.sendall(said)
            assert closed(stranger)
        assert refused(server, 1) and store.get("k") == b"v"

    def test_who_says_nothing_is_given_up(self, server, store, monkeypatch):
        monkeypatch.setattr(wire, "HANDSHAKE_S", 0.3)
        with dial(server) as silent, dial(server) as half:
            half.sendall(b"OARF")
            assert closed(silent) and closed(half)
        assert refused(server, 2) and store.get("k") == b"v"

    def test_many_silent_connections_keep_nobody_out(self, server, store):
        crowd = [dial(server) for _ in range(entrance.SHAKING + 20)]
        with ThreadPoolExecutor(1) as pool:
            begun = time.monotonic()
            with client(server) as other:
                assert pool.submit(other.get, "k").result(5.0) == b"v"
            assert time.monotonic() - begun < 3.0
        assert closed(crowd[0], 1.0) and not closed(crowd[-1], 0.1)
        for one in crowd:
            one.close()

    def test_tls(self, certificates):
        def tls(name):
            return wire.Tls(certificate=certificates / f"{name}.pem", key=certificates / f"{name}.key",
                            authority=certificates / f"{name}-authority.pem")  # fmt: skip

        with StoreServer(job="test", token=TOKEN, tls=tls("ours")) as server:
            with client(server, tls=tls("ours")) as store:
                assert store.add("n", 1) == 1
                assert store.wait(["n"], 1.0) == {"n": b"1"}
                for wrong in ({"tls": tls("theirs")}, {"tls": None}, {"tls": tls("ours"), "token": "x"}):  # fmt: skip
                    with client(server, timeout=0.5, **wrong) as stranger:
                        with pytest.raises(Unreachable):
                            stranger.get("n")
                assert store.get("n") == b"1"


#: What frames can hold.
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


class TestBrokenClients:
    @pytest.mark.parametrize("request_", [
        5, [], {}, {"op": "rm"}, {"op": []}, {"op": "get"}, {"op": "set", "key": "k", "value": b""},
        {"op": "set", "slot": 5, "number": 1}, {"op": "delete", "slot": "s", "number": "1", "key": "k"},
        {"op": "delete", "slot": "s" * 100, "number": 1, "key": "k"}, {"op": "keep", "lease": []},
        {"op": "wait", "keys": 5, "seconds": 1}, {"op": "watch", "prefix": "", "since": 5},
    ])  # fmt: skip
    def test_what_is_no_request(self, server, store, request_):
        with admitted(server) as broken:
            broken.sendall(frames.pack(request_))
            assert closed(broken)
        assert refused(server, 1) and store.get("k") == b"v"

    @pytest.mark.parametrize("request_", [
        {"op": "get", "key": 5}, {"op": "get", "key": ""}, {"op": "watch", "prefix": "", "since": "x", "seconds": 1},
        {"op": "set", "key": "k", "value": "text", "lease": None, "slot": "s", "number": 1},
        {"op": "set", "key": "k", "value": bytes(600_000), "lease": None, "slot": "s", "number": 1},
        {"op": "add", "key": "k", "amount": 1.5, "slot": "s", "number": 1},
        {"op": "grant", "seconds": float("nan"), "slot": "s", "number": 1},
        {"op": "grant", "seconds": "long", "slot": "s", "number": 1},
        {"op": "wait", "keys": ["x"], "seconds": "long"},
    ])  # fmt: skip
    def test_bad_arguments_are_answered(self, server, store, request_):
        with admitted(server) as careless:
            for _ in range(2):
                careless.sendall(frames.pack(request_))
                answer = frames.receive(careless, 1 << 16, time.monotonic() + 5.0)
                assert answer["error"] == "value"
        assert store.read("")[1] == {"k": b"v"}

    @pytest.mark.parametrize("said", [
        b"\xff\xff\xff\xff", (frames.REQUEST_BYTES + 1).to_bytes(4, "little"),
        b"\x05\x00\x00\x00{{{{{", b"\x00\x00\x00\x00", (200_000).to_bytes(4, "little") + b"[" * 200_000,
    ])  # fmt: skip
    def test_bad_frames(self, server, store, said):
        with admitted(server) as broken:
            broken.sendall(said)
            assert closed(broken)
        assert refused(server, 1) and store.get("k") == b"v"

    @pytest.mark.parametrize("dtype", ["(1,,2)f4", "O", "finfo", 5, "S99999999999999999999"])
    def test_arrays_that_are_none(self, server, store, dtype):
        said = (
            b'{"__oarlock__":"array","dtype":%s,"shape":[1],"data":"AAAA"}'
            % (str(dtype) if isinstance(dtype, int) else f'"{dtype}"').encode()
        )
        with admitted(server) as broken:
            broken.sendall(len(said).to_bytes(4, "little") + said)
            assert closed(broken)
        assert refused(server, 1) and store.get("k") == b"v"

    def test_a_frame_that_does_not_end(self, server, store, monkeypatch):
        monkeypatch.setattr(frames, "FRAME_S", 0.3)
        with admitted(server) as slow:
            slow.sendall(b"\x10\x00\x00\x00{")
            assert store.get("k") == b"v"
            assert closed(slow)

    def test_who_does_not_take_answers(self, server, store, monkeypatch):
        monkeypatch.setattr(serving, "SEND_S", 0.3)
        store.set("large", bytes(500_000))
        with admitted(server) as deaf:
            asked = frames.pack({"op": "get", "key": "large"})
            deaf.sendall(asked * 100)
            begun = time.monotonic()
            assert store.get("k") == b"v" and time.monotonic() - begun < 1.0
            time.sleep(0.6)
            assert closed(deaf)

    def test_who_leaves_in_the_midst(self, server, store):
        for said in (b"", b"\x10", frames.pack({"op": "get", "key": "k"}),
                     frames.pack({"op": "wait", "keys": ["x"], "seconds": 0.2})):  # fmt: skip
            with admitted(server) as gone:
                gone.sendall(said)
        assert store.get("k") == b"v"

    def test_who_says_nothing_any_more(self, server, store):
        with admitted(server) as silent:
            silent.sendall(frames.pack({"op": "get", "key": "k"}))
            frames.receive(silent, 1 << 16, time.monotonic() + 5.0)
            callers = server._entrance._callers
            near = next(one for one in callers if one.getpeername() == silent.getsockname())
            # So a machine that is gone is noticed by the operating system, within 40 s.
            assert near.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 20
            assert store.get("k") == b"v" and not closed(silent, 0.1)

    def test_an_older_request_that_comes_late_is_not_made(self, server, store):
        with admitted(server) as late:
            request = {"op": "set", "key": "k", "lease": None, "slot": "s"}
            for number, value in ((2, b"2"), (1, b"1"), (2, b"3")):
                late.sendall(frames.pack({**request, "number": number, "value": value}))
                frames.receive(late, 1 << 16, time.monotonic() + 5.0)
        assert store.get("k") == b"2"

    @settings(max_examples=60, deadline=None,
              suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
    @given(said=st.binary(min_size=1, max_size=200), as_frame=st.booleans(), known=st.booleans())
    def test_any_bytes(self, server, store, said, as_frame, known):
        with admitted(server) if known else dial(server) as broken:
            broken.sendall(len(said).to_bytes(4, "little") + said if as_frame else said)
            frames.end(broken)
            assert closed(broken)
        assert store.get("k") == b"v"

    @settings(max_examples=60, deadline=None,
              suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
    @given(
        op=st.sampled_from(["get", "set", "add", "compare_set", "delete", "keys", "read", "wait",
                            "watch", "grant", "keep", "release"]),
        values=st.fixed_dictionaries({}, optional={
            name: PLAIN for name in ("key", "keys", "prefix", "value", "expected", "lease", "amount",
                                      "since", "slot", "number")}),
    )  # fmt: skip
    def test_any_values(self, server, store, op, values):
        asked = {"key": "f", "keys": ["k"], "prefix": "", "value": b"", "expected": None, "lease": None,
                 "amount": 1, "since": 1, "slot": "s", "number": 1, "seconds": 0.1}  # fmt: skip
        with admitted(server) as broken:
            broken.sendall(frames.pack({"op": op, **asked, **values}))
            try:
                answer = frames.receive(broken, 1 << 20, time.monotonic() + 5.0)
                assert "answer" in answer or answer["error"] in frames.ERRORS
            except (EOFError, ConnectionError):
                pass
        store.set("k", b"v")
        assert store.get("k") == b"v"


class TestLimits:
    def test_connections(self):
        with StoreServer(job="test", token=TOKEN, limits=Limits(connections=2)) as server:
            with client(server) as store, admitted(server) as other:
                store.set("k", b"v")
                with client(server, timeout=0.5) as third:
                    with pytest.raises(Unreachable):
                        third.get("k")
                assert store.get("k") == b"v"
                other.close()
                with client(server) as third:
                    assert third.get("k") == b"v"

    def test_bytes(self):
        with StoreServer(job="test", token=TOKEN, limits=Limits(bytes=1000)) as server:
            with client(server) as store:
                store.set("a", bytes(900))
                with pytest.raises(StoreError, match="'set' of 'b'.*full"):
                    store.set("b", bytes(200))
                store.delete("a")
                store.set("b", bytes(200))

    def test_leases(self):
        with StoreServer(job="test", token=TOKEN, limits=Limits(leases=2)) as server:
            with client(server) as store:
                first = store.lease(5.0)
                store.lease(5.0)
                with pytest.raises(StoreError, match="2 leases"):
                    store.lease(5.0)
                first.release()
                store.lease(5.0)

    @pytest.mark.parametrize("wrong", [{"connections": 0}, {"bytes": 1 << 40}, {"leases": -1}])
    def test_bad_limits(self, wrong):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            Limits(**wrong)

    def test_bad_arguments(self):
        with pytest.raises(ValueError, match="token must not be empty"):
            StoreServer(job="test", token="")
        with pytest.raises(ValueError, match="durable needs a journal"):
            StoreServer(job="test", token=TOKEN, durable=True)
        with pytest.raises(ValueError, match="timeout must be"):
            TcpStore("127.0.0.1", 1, job="test", token=TOKEN, timeout=0.0)

    def test_watchers_of_what_is_forgotten_are_told(self, store, monkeypatch):
        monkeypatch.setattr("oarlock.fleet_ext.rendezvous.state.HISTORY", 5)
        since, _ = store.read("")
        for number in range(5):
            store.set("k", str(number).encode())
        assert len(store.watch("", since, 0.0)[1]) == 5
        store.set("k", b"5")
        with pytest.raises(Outdated, match="changes are known since"):
            store.watch("", since, 0.0)
        revision, _ = store.read("")
        assert store.watch("", revision, 0.0) == (revision, [])

    def test_watchers_of_what_stays_the_same_keep_up(self, store, monkeypatch):
        monkeypatch.setattr("oarlock.fleet_ext.rendezvous.state.HISTORY", 5)
        store.set("quiet", b"")
        since, _ = store.read("quiet")
        for number in range(20):
            store.set("k", str(number).encode())
            since, changes = store.watch("quiet", since, 0.0)
            assert changes == []

    def test_lost_keys_are_noticed_by_watchers(self, server, store):
        since, _ = store.read("")
        server.close()
        with StoreServer(job="test", token=TOKEN, port=server.address[1]):
            store.set("k", b"again")
            with pytest.raises(Outdated):
                store.watch("", since, 0.0)


class TestProcess:
    def test_a_killed_server_comes_back_with_its_keys(self, start_process, tmp_path):
        journal = str(tmp_path / "journal")
        server = start_process("--journal", journal)
        with TcpStore("127.0.0.1", server.port, job="test", token=TOKEN, timeout=20.0) as store:
            for _ in range(100):
                store.add("n", 1)
            server.kill()
            with ThreadPoolExecutor(1) as pool:
                added = pool.submit(store.add, "n", 1)
                again = start_process("--journal", journal, "--port", str(server.port))
                assert added.result() == 101
            assert again.kill(signal.SIGTERM) == 0

    def test_a_stopped_server_does_not_lose_leases(self, start_process):
        server = start_process()
        with TcpStore("127.0.0.1", server.port, job="test", token=TOKEN) as store:
            lease = store.lease(0.6).renew()
            store.set("node", b"", lease=lease)
            server.process.send_signal(signal.SIGSTOP)
            begun = time.monotonic()
            with TcpStore("127.0.0.1", server.port, job="test", token=TOKEN, timeout=0.5) as other:
                with pytest.raises(Unreachable, match="does not answer"):
                    other.get("node")
            assert time.monotonic() - begun < 1.0  # it accepts connections, and says nothing
            time.sleep(0.8)
            server.process.send_signal(signal.SIGCONT)
            time.sleep(0.7)
            assert store.get("node") == b"" and lease.left > 0
            lease.release()

    @pytest.mark.parametrize("arguments, why", [
        (["--port", "-5"], "--port"), (["--durable"], "durable needs a journal"),
        (["--key", "k.pem"], "go together"), (["--token-file", "/none"], "/none"),
    ])  # fmt: skip
    def test_refusals(self, arguments, why, monkeypatch):
        monkeypatch.setenv("OARLOCK_STORE_TOKEN", TOKEN)
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code in (1, 2) and why in done.output

    def test_no_token(self, monkeypatch):
        monkeypatch.delenv("OARLOCK_STORE_TOKEN", raising=False)
        done = CliRunner().invoke(app, [])
        assert done.exit_code == 1 and "no token" in done.output

    def test_its_token_comes_from_a_file_and_it_answers_soon(self, start_process, tmp_path):
        path = tmp_path / "token"
        path.write_text(TOKEN + "\n")
        server = start_process("--token-file", str(path), token="")
        with TcpStore("127.0.0.1", server.port, job="test", token=TOKEN) as store:
            took = []
            for number in range(500):
                begun = time.perf_counter()
                store.set("k", b"x" * 100)
                store.get("k")
                took.append((time.perf_counter() - begun) / 2)
        # 0.05 ms where it was written; other work may be going on
        assert statistics.median(took) < 2e-3
