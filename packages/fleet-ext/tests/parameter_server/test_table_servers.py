"""Servers in one process: what clients get, servers that come and go, hang, and are fenced; and rubbish."""

import json
import shutil
import socket
import subprocess
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oarlock.fleet_ext.checkpoints.agreement import CheckpointError
from oarlock.fleet_ext.parameter_server import (
    AdaGrad,
    Adam,
    Client,
    Layout,
    Sparse,
    TableServer,
    Unavailable,
    clear,
    messages,
)
from oarlock.fleet_ext.parameter_server.membership import SERVERS, View
from oarlock.fleet_ext.parameter_server.messages import Message
from oarlock.fleet_ext.parameter_server.part import Part
from oarlock.fleet_ext.parameter_server.snapshots import restore, save
from oarlock.fleet_ext.rendezvous import StoreServer
from oarlock.fleet_ext.transport import Refused, Tls, wire

from table_servers import LEASE_S, TOKEN, counting, with_each_store

KEYS = np.arange(40)
ONES = np.ones((40, 2), np.float32)


def rows_of(client, keys=KEYS):
    """How often each key was pushed."""
    beginnings = client.layout.table("rows").initial.rows(np.asarray(keys), 2)
    return np.round((beginnings - client.pull("rows", keys).wait())[:, 0]).astype(int)


def test_rows_and_arrays_are_pushed_and_pulled(servers):
    one = servers(counting())
    one.start("a", "b")
    client = one.client()
    client.push("rows", [3, 5, 3, -7], np.ones((4, 2)))
    assert rows_of(client, [3, 5, -7, 9, 3]).tolist() == [2, 1, 1, 0, 2]
    start = np.arange(15.0).reshape(3, 5)
    client.assign_dense("array", start)
    client.push_dense("array", np.ones((3, 5)))
    np.testing.assert_array_equal(client.pull_dense("array").wait(), start - 1)
    client.assign("rows", [3], [[7.0, 8.0]])
    assert client.pull("rows", [3]).wait().tolist() == [[7, 8]]
    reader = one.reader()
    np.testing.assert_array_equal(reader.read("rows", KEYS).rows, client.pull("rows", KEYS).wait())
    np.testing.assert_array_equal(reader.read_dense("array").rows, start - 1)


@pytest.mark.parametrize(
    ("ask", "words"),
    (
        (lambda client: client.pull("other", [1]), "there is no table 'other'"),
        (lambda client: client.pull_dense("rows"), "is sparse: use pull"),
        (lambda client: client.push("array", [1], [[1.0]]), "is dense: use"),
        (lambda client: client.push("rows", [1, 2], [[1.0, 2.0]]), r"must be \[2, 2\]"),
        (lambda client: client.push("rows", [1], [[np.nan, 1.0]]), "must be finite"),
        (lambda client: client.push("rows", [0.5], [[1.0, 1.0]]), "must be integers"),
        (lambda client: client.push_dense("array", np.ones(3)), r"must have shape \(3, 5\)"),
    ),
)
def test_what_cannot_be_asked_is_refused_before_it_is_sent(servers, ask, words):
    one = servers(counting(shards=1))
    one.start("a")
    with pytest.raises(ValueError, match=words):
        ask(one.client())


@pytest.mark.parametrize("hot_rows", (None, 16))
def test_results_are_the_same_bits_for_any_number_of_servers_and_shards_and_any_tier(servers, tmp_path, hot_rows):  # fmt: skip
    found = []
    for number, (shards, names) in enumerate(((1, "a"), (8, "abc"))):
        tables = {"rows": Sparse(width=2, optimizer=Adam(), hot_rows=hot_rows if number else None)}
        one = servers(Layout(shards=shards, tables=tables), folder=tmp_path / str(number))
        one.start(*names)
        client, rng = one.client(), np.random.default_rng(0)
        for _ in range(20):
            keys = rng.integers(0, 60, 30)
            client.push("rows", keys, rng.standard_normal((30, 2)))
        found.append(client.pull("rows", np.arange(80)).wait())
    np.testing.assert_array_equal(*found)


@with_each_store
def test_servers_come_and_go_while_rows_are_pushed(servers):
    one = servers(counting())
    one.start("a", "b")
    client, over, counts = one.client(), threading.Event(), [0]

    def push_all():
        while not over.is_set():
            client.push("rows", KEYS, ONES).wait()
            counts[0] += 1

    pushing = threading.Thread(target=push_all)
    pushing.start()
    try:
        one.until_copied("a", "b")
        one.start("c", "d")
        one.until_copied("a", "b", "c", "d")
        one.threads["a"].drain(30.0)
        one.threads["a"].close()
        one.until_copied("b", "c", "d")
        one.threads["b"].close()  # without a word before: the backups take over
        one.until_copied("c", "d")
    finally:
        over.set()
        pushing.join()
    assert counts[0] > 0 and rows_of(client).tolist() == [counts[0]] * len(KEYS)


def test_one_copy_only_moves_too_and_is_missed_when_its_server_is_gone(servers):
    one = servers(counting(replicas=1))
    first = one.start("a", "b")
    client = one.client(timeout=3.0)
    client.push("rows", KEYS, ONES).wait()
    first.drain(30.0)
    first.close()
    assert rows_of(client).tolist() == [1] * len(KEYS)
    one.threads["b"].close()
    with pytest.raises(Unavailable, match=r"shard \d, on server b\..*gone with its only copy"):
        client.pull("rows", KEYS).wait()


def test_a_server_that_is_gone_between_question_and_answer_is_told_as_one_that_failed(servers):
    one = servers(counting(shards=2))
    name, routes = one.start("a").name, one.client().routes
    routes.send(name, Message({"op": "status"}))
    routes.take(View(routes.view.map, {}, {}))  # as a look at the map while others are waited for
    with pytest.raises(ConnectionError, match=f"{name} is not there any more"):
        routes.receive(name, 5.0, lambda: True)


def test_the_last_server_cannot_be_emptied(servers):
    one = servers(counting(shards=2))
    with pytest.raises(TimeoutError, match="still has 2 shards"):
        one.start("a").drain(0.5)


def test_a_server_that_hangs_in_its_work_is_replaced_and_fenced(servers, monkeypatch):
    """Its process lives, its lease could be renewed: only its work stands still."""
    one = servers(counting())
    one.start("a", "b", hang=0.5)
    one.until_copied("a", "b")
    client, wakes, stuck = one.client(), threading.Event(), threading.Event()
    client.push("rows", KEYS, ONES).wait()
    hung, inner = one.threads["a"], Part.push
    mine = {id(slot.shard.parts["rows"]) for slot in hung._slots if slot.leads}

    def push(part, keys, gradients):
        if id(part) in mine and not wakes.is_set():
            stuck.set()
            wakes.wait(60.0)
        inner(part, keys, gradients)

    monkeypatch.setattr(Part, "push", push)
    try:
        work = client.push("rows", KEYS, ONES)
        assert stuck.wait(30.0)
        work.wait()  # by the other, which was the backup
        assert not one.led_by("a")
        assert rows_of(client).tolist() == [2] * len(KEYS)
    finally:
        wakes.set()
    one.until_copied("a", "b")  # it comes again, and is given new copies
    client.push("rows", KEYS, ONES).wait()
    assert rows_of(client).tolist() == [3] * len(KEYS)
    reader = one.reader()
    for _ in range(4):  # copies take turns
        np.testing.assert_array_equal(
            reader.read("rows", KEYS).rows, client.pull("rows", KEYS).wait()
        )


def test_a_primary_of_an_earlier_epoch_is_refused_by_its_backup(servers):
    one = servers(counting(shards=1))
    one.start("a", "b")
    one.until_copied("a", "b")
    old = one.threads["a"] if one.led_by("a") else one.threads["b"]
    new = one.threads["b" if old is one.threads["a"] else "a"]
    place = one.view().map.places[0]
    part = [0, place.epoch - 1, 1, "push", "c", 1, {"table": "rows"}, 2]
    arrays = [np.array([1]), np.ones((1, 2), np.float32)]
    for server in (old, new):
        with messages.greeted(server.address, "job", TOKEN, None, 5.0) as connection:
            names = {"op": "replicate", "from": old.name, "parts": [part]}
            answer = messages.ask(connection, Message(names, arrays), 5.0)
        assert "is over" in answer.names["results"][0]
    assert rows_of(one.client(), [1]).tolist() == [0]


def test_a_server_that_fails_in_its_work_ends_itself_and_nothing_is_lost(servers, monkeypatch):
    one = servers(counting())
    one.start("a", "b")
    one.until_copied("a", "b")
    client, victim, inner = one.client(), one.threads["a"], Part.push
    client.push("rows", KEYS, ONES).wait()
    mine = {id(slot.shard.parts["rows"]) for slot in victim._slots if slot.leads}

    def push(part, keys, gradients):
        if id(part) in mine:
            raise OSError("no space left on device")
        inner(part, keys, gradients)

    monkeypatch.setattr(Part, "push", push)
    client.push("rows", KEYS, ONES).wait()
    assert victim.wait(30.0) and "no space" in str(victim.error)
    assert rows_of(client).tolist() == [2] * len(KEYS)


def test_servers_must_have_the_same_tables_until_they_are_forgotten(servers):
    one = servers(counting())
    one.start("a")
    with pytest.raises(ValueError, match="layout must be that of the servers"):
        TableServer(one.store(), layout=counting(shards=9), token=TOKEN)
    with pytest.raises(ValueError, match="end a"):
        clear(one.watched)
    one.threads["a"].close()
    clear(one.watched)
    TableServer(one.store(), layout=counting(shards=9), token=TOKEN).close()


def test_strangers_are_refused(servers):
    one = servers(counting(shards=1))
    server = one.start("a")
    with pytest.raises(Refused):
        messages.greeted(server.address, "job", "another token", None, 5.0)
    with pytest.raises(Refused):
        messages.greeted(server.address, "another job", TOKEN, None, 5.0)
    with pytest.raises(TimeoutError):
        Client(one.store(), token="another token", timeout=1.0).pull("rows", [1]).wait(0.5)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A certificate, signed by an authority."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-days", "2", "-subj", "/CN=ours", "-keyout", "ours.key", "-out", "ours.pem")  # fmt: skip
    openssl("req", *key, "-subj", "/CN=rank", "-keyout", "rank.key", "-out", "rank.csr")
    openssl("x509", "-req", "-in", "rank.csr", "-CA", "ours.pem", "-CAkey", "ours.key", "-CAcreateserial",
            "-days", "2", "-out", "rank.pem")  # fmt: skip
    return Tls(
        certificate=folder / "rank.pem", key=folder / "rank.key", authority=folder / "ours.pem"
    )


def test_encrypted_servers_do_all_that_plain_ones_do(servers, certificates):
    one = servers(counting())
    one.start("a", "b", tls=certificates)
    one.until_copied("a", "b")
    client, reader = one.client(tls=certificates), one.reader(tls=certificates)
    keys = np.arange(30_000)
    for _ in range(2):
        client.push("rows", keys, np.ones((len(keys), 2)))
    assert set(rows_of(client, keys).tolist()) == {2}
    one.threads["a"].close()
    assert set(rows_of(client, keys).tolist()) == {2}
    np.testing.assert_array_equal(reader.read("rows", keys).rows, client.pull("rows", keys).wait())
    with pytest.raises(Refused):
        messages.greeted(one.threads["b"].address, "job", TOKEN, None, 10.0)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.sampled_from(("rows", "push", "begin", "c")),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.sampled_from(("rank", "step", "table", "x")), inner),
    max_leaves=12,
)  # fmt: skip
PARTS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 3), st.integers(0, 2)).map(list)
    | PLAIN,
    max_size=3,
)
NAMES = st.fixed_dictionaries(
    {"op": st.sampled_from(("change", "pull", "read", "image", "replicate", "install", "status", "x"))},
    optional={
        "kind": st.sampled_from(("push", "assign", "load", "tick", "join", "leave", "drop")),
        "client": st.just("c") | PLAIN, "table": st.sampled_from(("rows", "array")) | PLAIN, "parts": PARTS | PLAIN,
        "rank": st.integers(0, 2) | PLAIN, "step": st.integers(0, 2) | st.sampled_from(("begin", "rows", "end")) | PLAIN,
        "workers": st.just(2) | PLAIN, "averaged": st.booleans() | PLAIN, "shard": st.integers(0, 3) | PLAIN,
        "wait": st.just([0, 0]) | PLAIN, "stalest": st.just(9.0) | PLAIN, "from": st.just("b") | PLAIN,
        "place": st.just([9, 9, "b", None, "a"]) | PLAIN, "plain": PLAIN,
    },
)  # fmt: skip
ARRAYS = st.lists(
    st.tuples(st.sampled_from((np.int64, np.float32)), st.lists(st.integers(0, 3), max_size=3))
    .map(lambda one: np.ones(one[1], one[0])),
    max_size=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def fuzzed():
    from table_servers import Servers

    made = Servers(counting(shards=2))
    made.start("a")
    yield made
    made.close()


@settings(max_examples=250, deadline=None)
@given(NAMES, ARRAYS)
def test_requests_that_make_no_sense_do_no_harm(fuzzed, names, arrays):
    server = fuzzed.threads["a"]
    try:
        with messages.greeted(server.address, "job", TOKEN, None, 5.0) as connection:
            messages.ask(connection, Message(names, arrays), 10.0)
    except (EOFError, ConnectionError, Refused):
        pass  # it hung up
    assert server.error is None


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_bytes_that_make_no_sense_do_no_harm(fuzzed, said, framed):
    server = fuzzed.threads["a"]
    with messages.greeted(server.address, "job", TOKEN, None, 5.0) as connection:
        if framed:
            header = wire.Header(kind=wire.DATA, group=0, tag=min(len(said), 96), length=len(said))
            said = header.pack() + said
        connection.settimeout(10.0)
        with suppress(ConnectionError):  # it hung up before it had read all
            connection.sendall(said)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass
    assert server.error is None


def test_behind_all_that_the_server_serves(fuzzed):
    client = fuzzed.client()
    before = client.pull("rows", [11]).wait()
    client.push("rows", [11], [[1.0, 1.0]]).wait()
    np.testing.assert_allclose(client.pull("rows", [11]).wait(), before - 1, rtol=1e-6)


def test_tables_come_back_from_a_snapshot_on_other_servers_and_shards(servers, tmp_path):
    tables = {"rows": Sparse(width=2, optimizer=AdaGrad(), hot_rows=16)}
    one = servers(Layout(shards=8, tables=tables), folder=tmp_path / "one")
    one.start("a", "b", "c")
    client, rng = one.client(), np.random.default_rng(0)
    for _ in range(10):
        client.push("rows", rng.integers(0, 100, 30), rng.standard_normal((30, 2)))
    save(client, tmp_path / "snapshot")
    with pytest.raises(FileExistsError):
        save(client, tmp_path / "snapshot")
    two = servers(Layout(shards=3, tables=tables), folder=tmp_path / "two")
    two.start("d", "e")
    other = two.client()
    restore(other, tmp_path / "snapshot")
    for _ in range(3):  # with what the optimiser remembers
        np.testing.assert_array_equal(*(one.pull("rows", KEYS).wait() for one in (client, other)))
        for one in (client, other):
            one.push("rows", KEYS, ONES)


def test_damaged_snapshots_and_other_tables_are_refused(servers, tmp_path):
    one = servers(counting(shards=2))
    one.start("a")
    client, folder = one.client(), tmp_path / "snapshot"
    client.push("rows", KEYS, ONES)
    save(client, folder)
    other = servers(Layout(tables={"rows": Sparse(width=3)}))
    other.start("b")
    with pytest.raises(ValueError, match="must have table 'array'|must have table 'rows'"):
        restore(other.client(), folder)
    path = folder / "shard-00001.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        restore(client, folder)
    listed = json.loads((folder / "tables.json").read_text())
    listed["snapshot"] = (
        listed["snapshot"].replace("bytes", "byte5").replace('"width": 2', '"width": 9')
    )
    (folder / "tables.json").write_text(json.dumps(listed))
    with pytest.raises(CheckpointError, match="damaged"):
        restore(client, folder)


def test_readers_say_how_old_what_they_read_may_be_and_keep_to_a_limit(servers):
    one = servers(counting(shards=2))
    one.start("a")
    strict, patient = one.reader(stalest=LEASE_S, timeout=6.0), one.reader(stalest=600.0)
    assert 0 <= strict.read("rows", KEYS).age <= LEASE_S + 1.0
    port = one.store_server.address[1]
    one.store_server.close()
    try:
        begin = time.monotonic()
        while (age := patient.read("rows", KEYS).age) <= LEASE_S:  # without a store
            assert time.monotonic() < begin + 60.0
        assert age > LEASE_S
        with pytest.raises(Unavailable, match="last look at the map"):
            strict.read("rows", KEYS)
    finally:
        one.store_server = StoreServer(job="job", token=TOKEN, port=port)


@with_each_store
def test_a_lost_registration_is_made_again(servers):
    one = servers(counting(shards=2))
    server = one.start("a")
    one.watched.delete(SERVERS + server.name)
    one.until(lambda view: server.name in view.servers, "the server comes again")
