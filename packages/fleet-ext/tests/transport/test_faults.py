"""Ranks that are killed or stopped, as processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from oarlock.fleet_ext.transport import Aborted, Mesh, MeshGroup, PeerLost, wire
from oarlock.fleet_ext.transport.link import Connection

SCRIPT = Path(__file__).with_name("process_rank.py")


@pytest.fixture
def three(tmp_path, request):
    """Three ranks that run, with so many seconds for each operation."""
    ranks = [
        subprocess.Popen([sys.executable, str(SCRIPT), str(rank), "3", str(tmp_path), str(request.param)],
                         stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        for rank in range(3)
    ]  # fmt: skip
    for one in ranks:
        assert one.stdout.readline() == "running\n"
    yield ranks
    for one in ranks:
        one.kill()
        one.wait()


def said(rank):
    """When a rank failed, the kind of its error, and its words."""
    at, kind, words = rank.communicate(timeout=20)[0].split(" ", 2)
    return float(at), kind, words


@pytest.mark.parametrize("three", [30.0], indirect=True)
def test_a_killed_rank_is_known_at_once(three):
    begin = time.time()
    three[1].kill()
    for one in (three[0], three[2]):
        at, kind, words = said(one)
        assert kind in ("PeerLost", "Aborted") and "rank 1 is lost" in words
        assert at - begin < 10.0  # long before an operation's time is over


@pytest.fixture
def torn():
    """A mesh that is in the middle of a message of another rank: it, the work of who waits, and the other end."""
    ends = [socket.socketpair() for _ in range(2)]
    with Mesh(0, 2) as mesh:
        mesh.attach({1: [Connection(ends[0][0])]}, {1: [Connection(ends[1][0])]}, "torn")
        mesh.join(7, [0, 1])
        work = mesh.receive(memoryview(bytearray(1000)), 1, 7, 5)
        ends[1][1].sendall(
            wire.Header(kind=wire.DATA, group=7, tag=5, length=1000).pack() + bytes(500)
        )
        until = time.monotonic() + 10.0
        while mesh.traffic()[1] < wire.HEADER_BYTES + 500 and time.monotonic() < until:
            time.sleep(0.01)
        yield mesh, work, ends[1][1]
    for one in (*ends[0], *ends[1]):
        one.close()


def test_a_rank_that_is_lost_in_the_middle_of_a_message_is_told(torn):
    mesh, work, other = torn
    assert not work.done()
    other.close()
    with pytest.raises(PeerLost, match="rank 1 is lost"):
        work.wait(10.0)
    assert isinstance(mesh.error(7), PeerLost)


@pytest.mark.parametrize("closed", (False, True))
def test_a_message_that_is_torn_behind_another_error_is_told_too(torn, closed):
    mesh, work, other = torn
    mesh.break_group(7, Aborted("enough"), tell=False)
    if closed:
        mesh.close(farewell=False)
    else:
        other.close()
    with pytest.raises(Aborted, match="enough"):
        work.wait(10.0)


@pytest.mark.parametrize("aborted", (False, True))
@pytest.mark.parametrize("what", ("send", "all_reduce"))
def test_who_sends_to_a_lost_rank_is_told_so_not_of_sockets(torn, what, aborted):
    """And of an abort, where that was before."""
    mesh, _, _ = torn
    with MeshGroup(mesh, [0, 1], "sends") as group:
        for one in mesh._outgoing[1]:
            one._connection.socket.shutdown(socket.SHUT_WR)
        if aborted:
            mesh.break_group(group.number, Aborted("enough"), tell=False)
        array = np.zeros(100_000, np.float32)
        work = group.send(array, 1, 0) if what == "send" else group.all_reduce(array)
        with pytest.raises(Aborted if aborted else PeerLost, match="enough" if aborted else "lost"):
            work.wait(10.0)


@pytest.mark.parametrize("three", [3.0], indirect=True)
def test_a_stopped_rank_is_named_after_the_timeout(three):
    begin = time.time()
    three[1].send_signal(signal.SIGSTOP)
    found = [said(one) for one in (three[0], three[2])]
    assert all("1" in words and "not answering" in words for _, _, words in found)
    assert any(kind == "TimedOut" for _, kind, _ in found)
    assert all(at - begin < 15.0 for at, _, _ in found)
