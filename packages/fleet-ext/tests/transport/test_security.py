"""Strangers, other jobs and rubbish do no harm."""

import socket
import struct
import subprocess
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oarlock.fleet_ext.transport import Listener, MeshGroup, Refused, Tls, connect, new_token, wire
from oarlock.fleet_ext.transport.link import Connection, Incoming

from ranks import Memory, together, well


@pytest.fixture
def pair():
    """Two connected sockets."""
    ends = socket.socketpair()
    yield ends
    for one in ends:
        one.close()


def shaken(ends, tokens, contexts):
    """What both sides of a handshake say."""
    found = [None, None]

    def run(side, shake):
        try:
            shake(ends[side], tokens[side], contexts[side], None)
            found[side] = "well"
        except Refused as error:
            found[side] = str(error)

    threads = [
        threading.Thread(target=run, args=(side, shake))
        for side, shake in enumerate((wire.greet, wire.welcome))
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return found


def test_who_has_the_token_is_welcome(pair):
    assert shaken(pair, ("a", "a"), ("job", "job")) == ["well", "well"]


@pytest.mark.parametrize(
    ("tokens", "contexts", "words"),
    ((("a", "b"), ("job", "job"), "another token"), (("a", "a"), ("job", "else"), "another job")),
)
def test_others_are_refused_on_both_sides(pair, tokens, contexts, words):
    found = shaken(pair, tokens, contexts)
    assert words in found[1] and found[0] != "well"


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=200))
def test_rubbish_is_refused_at_the_door(said):
    ends = socket.socketpair()
    ends[0].sendall(said)
    ends[0].shutdown(socket.SHUT_WR)
    with pytest.raises(Refused):
        wire.welcome(ends[1], "token", "job", None)
    ends[0].close()


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=wire.HEADER_BYTES, max_size=4 * wire.HEADER_BYTES))
def test_rubbish_in_the_middle_ends_the_connection_and_nothing_else(said):
    ends = socket.socketpair()
    over = threading.Event()
    errors = []
    incoming = Incoming(
        Connection(ends[1]),
        "test",
        lambda header, link: None,
        lambda error: (errors.append(error), over.set()),
    )
    incoming.start()
    ends[0].sendall(said)
    ends[0].close()
    assert over.wait(5.0)
    assert isinstance(errors[0], Refused)
    incoming.close()


@given(
    st.sampled_from((wire.DATA, wire.PING, wire.PONG, wire.ABORT)),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, wire.LARGEST),
    st.integers(0, 8 * wire.HEADER_BYTES - 1),
)
def test_headers_come_back_and_a_flipped_bit_is_seen(kind, group, tag, length, bit):
    header = wire.Header(kind=kind, group=group, tag=tag, length=length)
    packed = bytearray(header.pack())
    assert wire.Header.unpack(packed) == header
    packed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Refused):
        wire.Header.unpack(packed)


def test_a_job_starts_and_runs_among_strangers():
    """Half-open, silent, talking rubbish or a protocol of their own: ranks find each other all the same."""
    store, token, addresses = Memory(), new_token(), []
    stop, done = threading.Event(), []

    def strangers():
        rubbish = [b"", b"GET / HTTP/1.1\r\n\r\n", struct.pack("<I", wire.MAGIC), bytes(64)]
        kept = []
        while not stop.is_set():
            for address in list(addresses):
                try:
                    kept.append(socket.create_connection(address, timeout=1.0))
                    kept[-1].sendall(rubbish[len(kept) % len(rubbish)])
                except OSError:
                    pass
            time.sleep(0.02)
        for one in kept:
            one.close()

    def run(rank):
        listener = Listener(job="test", token=token)
        addresses.append((listener.address.host, listener.address.port))
        time.sleep(0.2)
        with connect(store, listener, rank=rank, size=3, token=token) as mesh:
            with MeshGroup(mesh, range(3), "all") as group:
                for _ in range(20):
                    total = group.all_reduce(np.full(50_000, 1.0)).wait()
                done.append(total[0])
        assert listener.refused > 0
        listener.close()

    stranger = threading.Thread(target=strangers)
    ranks = [threading.Thread(target=run, args=(rank,)) for rank in range(3)]
    for one in (*ranks, stranger):
        one.start()
    for one in ranks:
        one.join(30.0)
    stop.set()
    stranger.join()
    assert done == [3.0] * 3


def test_ranks_of_an_earlier_epoch_are_refused():
    store, token = Memory(), new_token()
    listeners = [Listener(job="test", token=token) for _ in range(2)]
    listeners[0].forget_before(5)
    store.set("mesh/3/0", listeners[0].address.pack())
    with pytest.raises(Exception, match="epoch 3 is over"):
        connect(store, listeners[1], rank=1, size=2, token=token, epoch=3, timeout=1.0)
    for one in listeners:
        one.close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority, and a certificate of its and one of another's."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    for name in ("ours", "theirs"):
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")  # fmt: skip
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=rank",
                "-keyout", f"{name}-rank.key", "-out", f"{name}-rank.csr")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}-rank.csr", "-CA", f"{name}.pem", "-CAkey", f"{name}.key",
                "-CAcreateserial", "-days", "2", "-out", f"{name}-rank.pem")  # fmt: skip
    return {
        name: Tls(certificate=folder / f"{name}-rank.pem", key=folder / f"{name}-rank.key", authority=folder / "ours.pem")
        for name in ("ours", "theirs")
    }  # fmt: skip


def test_encrypted_ranks_do_all_that_plain_ones_do(certificates):
    def run(group):
        array = np.arange(600_000, dtype=np.float32) + group.rank
        group.all_reduce(array).wait()
        return group.all_gather(array[:3].copy()).wait(), array[-1]

    found = well(together(3, run, tls=certificates["ours"]))
    assert found[0][1] == 3 * 599_999 + 3
    np.testing.assert_array_equal(found[2][0], [[3, 6, 9]] * 3)


def test_a_certificate_of_another_authority_is_refused(certificates):
    token = new_token()
    listener = Listener(job="test", token=token, tls=certificates["ours"], shared=False)
    store = Memory()
    store.set("mesh/0/0", listener.address.pack())
    stranger = Listener(job="test", token=token, tls=certificates["theirs"])
    with pytest.raises(Exception, match="could not be connected"):
        connect(
            store, stranger, rank=1, size=2, token=token, tls=certificates["theirs"], timeout=2.0
        )
    assert listener.refused > 0
    for one in (listener, stranger):
        one.close()
