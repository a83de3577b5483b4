"""The file that gives a restarted server its keys again."""

import errno
import os

import pytest

from oarlock.fleet_ext.rendezvous import JournalError, StoreError, StoreServer, TcpStore, journal
from oarlock.fleet_ext.rendezvous.journal import Journal
from oarlock.fleet_ext.rendezvous.state import State

TOKEN = "correct horse battery staple"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal"


def serve(path, **options):
    return StoreServer(job="test", token=TOKEN, journal=path, **options)


def client(server):
    return TcpStore(*server.address, job="test", token=TOKEN, timeout=2.0)


def write(path, count=5):
    with serve(path) as server, client(server) as store:
        for number in range(count):
            store.set(f"k/{number}", str(number).encode())


def read(path):
    with serve(path) as server, client(server) as store:
        return store.read("")[1]


FIVE = {f"k/{number}": str(number).encode() for number in range(5)}


@pytest.mark.parametrize("durable", [False, True])
def test_keys_come_back(path, durable):
    with serve(path, durable=durable) as server, client(server) as store:
        store.set("a", b"1")
        store.set("b", bytes(range(256)), lease=store.lease(60.0))
        store.delete("a")
        store.add("n", 7)
        revision, values = store.read("")
        port = server.address[1]
    with serve(path, durable=durable, port=port) as server, client(server) as store:
        assert store.read("") == (revision, values)
        assert store.add("n", 1) == 8
        assert store.read("")[0] == revision + 1


def test_a_torn_last_record_is_cut_off(path, caplog):
    write(path)
    whole = path.read_bytes()
    write(path, 6)  # the last record of which is torn at every byte
    last = path.stat().st_size
    lengths = sorted({len(whole) + 1, len(whole) + 11, len(whole) + 12, last - 1})
    longer = path.read_bytes()
    for length in lengths:
        path.write_bytes(longer[:length])
        found = read(path)
        assert found.items() >= FIVE.items()
        assert "was not written to its end" in caplog.text
        caplog.clear()
        read(path)
        assert not caplog.text  # it was cut off


@pytest.mark.parametrize("length", range(0, 24, 5))
def test_a_server_killed_at_its_very_beginning(path, length):
    write(path, 0)
    path.write_bytes(path.read_bytes()[:length])
    assert read(path) == {}


def test_room_that_was_never_written_is_cut_off(path):
    write(path)
    path.write_bytes(path.read_bytes() + bytes(100))
    assert read(path) == FIVE


@pytest.mark.parametrize("place", [0.3, 0.6, 0.95])
def test_a_damaged_record_is_refused(path, place):
    write(path)
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(JournalError, match=r"damaged at byte \d+ of \d+: .*truncate -s \d+"):
        serve(path)
    assert path.read_bytes() == data  # as it was


def test_a_damaged_length_is_not_taken_for_a_torn_record(path):
    write(path)
    data = bytearray(path.read_bytes())
    data[len(journal._MAGIC) + 3] ^= 0x40  # so the first record would reach beyond the end
    path.write_bytes(data)
    with pytest.raises(JournalError, match="damaged at byte 24"):
        serve(path)


def test_another_file_is_refused(path):
    path.write_text("my thesis, the only copy\n" * 10)
    before = path.read_bytes()
    with pytest.raises(JournalError, match="is not a journal"):
        serve(path)
    assert path.read_bytes() == before


def test_two_servers_cannot_use_it(path):
    with serve(path):
        with pytest.raises(JournalError, match="used by another server"):
            serve(path)
    serve(path).close()


def test_it_is_written_anew_when_it_has_grown(path, monkeypatch):
    monkeypatch.setattr(journal, "REWRITE_BYTES", 20_000)
    monkeypatch.setattr("oarlock.fleet_ext.rendezvous.state.HISTORY", 10)
    with serve(path) as server, client(server) as store:
        lease = store.lease(60.0)
        store.set("node", b"here", lease=lease)
        for number in range(300):
            store.set("k", bytes(100) + str(number).encode())
        assert path.stat().st_size < 40_000
        before, (revision, _) = store.read(""), store.read("")
        changes = store.watch("", revision - 5, 0.0)
        port = server.address[1]
        server.close()
        with serve(path, port=port):
            assert store.read("") == before
            assert store.watch("", revision - 5, 0.0) == changes and len(changes[1]) == 5
            assert store.add("n", 1) == 1
            store.release(lease.id)
            assert store.keys("") == ["k", "n"]


def test_the_same_state_comes_of_its_records():
    state = State()
    for record in [
        state.to_change([("a", b"1"), ("b", b"2")]),
    ]:
        state.apply(record)
    state.apply(state.to_grant(5.0))
    lease = next(iter(state.leases))
    state.apply({**state.to_change([("c", b"3")], lease), "slot": "s", "number": 4, "answer": True})
    state.apply(state.to_change([("a", None)]))
    again = State()
    for record in state.records():
        again.apply(record)
    for name in ("revision", "forgotten", "entries", "history", "bytes"):
        assert getattr(again, name) == getattr(state, name), name
    assert again.leases[lease].keys == {"c"} and again.answers["s"].value is True
    again.apply(again.to_revoke(lease))
    assert again.under("") == ["b"] and again.bytes == 2


class _Full:
    """A disk that is full."""

    def __init__(self, file):
        self.file, self.full = file, False

    def write(self, data):
        if self.full:
            self.file.write(data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_a_full_disk_refuses_changes_and_serves_the_rest(path):
    with serve(path) as server, client(server) as store:
        store.set("a", b"1")
        store.set("node", b"", lease=store.lease(0.3))
        revision, _ = store.read("")
        held = server._service._journal
        held._file = _Full(held._file)
        held._file.full = True
        with pytest.raises(StoreError, match="journal .* cannot be written: .*No space left"):
            store.set("a", b"2")
        assert store.get("a") == b"1"
        assert store.watch("node", revision, 0.6)[1] == []  # what cannot be written does not happen
        held._file.full = False
        assert [one.value for one in store.watch("node", revision, 2.0)[1]] == [None]
        store.set("a", b"3")
    assert read(path) == {"a": b"3"}


def test_records_are_on_the_disk_before_the_answer(path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (synced.append(number), fsync(number)))
    kept = Journal(path, durable=True)
    count = len(synced)
    kept.append({"grant": [1, 5.0]})
    assert len(synced) == count + 1
    kept.close()
    kept = Journal(path)
    kept.append({"grant": [2, 5.0]})
    assert len(synced) == count + 1 and kept.found == [{"grant": [1, 5.0]}]
    kept.close()
