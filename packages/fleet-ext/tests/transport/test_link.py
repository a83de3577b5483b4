"""The two ends of a connection, without a mesh around them."""

import queue
import resource
import socket
import time
from contextlib import closing

import pytest
from oarlock.fleet_ext.transport import wire
from oarlock.fleet_ext.transport.link import Connection, Incoming, Outgoing
from oarlock.fleet_ext.transport.work import Work

HEADER = wire.Header(kind=wire.FAREWELL, group=0, tag=0, length=0)
MORE_THAN_A_SOCKET_HOLDS = memoryview(bytes(64 << 20))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("raises", (False, True), ids=("told", "telling-fails"))
def test_who_waits_for_a_send_is_told_that_the_connection_broke(raises):
    told = []

    def lost(error):
        told.append(error)
        if raises:
            raise RuntimeError("not the connection's fault")

    ours, theirs = socket.socketpair()
    outgoing = Outgoing(Connection(ours), "sends", lost)
    under_way, queued = Work[None](), Work[None]()
    outgoing.send(HEADER, MORE_THAN_A_SOCKET_HOLDS, under_way)
    outgoing.send(HEADER, None, queued)
    assert not under_way.done()

    theirs.close()
    for work in (under_way, queued):
        with pytest.raises(ConnectionError):
            work.wait(timeout=3)
    assert len(told) == 1
    behind = Work[None]()
    outgoing.send(HEADER, None, behind)
    with pytest.raises(ConnectionError):
        behind.wait(timeout=3)
    outgoing.close(farewell=False)


class Reader:
    """An `Incoming` behind a TCP connection of this machine, and what it was told."""

    def __init__(self):
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            self.sender = socket.create_connection(listener.getsockname())
            receiver, _ = listener.accept()
        self.sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.came, self.over = queue.Queue(), queue.Queue()
        self.incoming = Incoming(Connection(receiver), "reads", self._arrived, self.over.put)
        self.incoming.start()

    def _arrived(self, header, incoming):
        payload = bytearray(header.length)
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        incoming.read(memoryview(payload))
        self.came.put(
            (bytes(payload), resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before)
        )

    def send(self, payload, packet):
        """In packets with a pause behind each; nothing follows the last."""
        header = wire.Header(kind=wire.DATA, group=1, tag=0, length=len(payload))
        self.sender.sendall(header.pack())
        for begin in range(0, len(payload), packet):
            self.sender.sendall(payload[begin : begin + packet])
            time.sleep(1e-4)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.incoming.close()
        self.sender.close()


@pytest.mark.parametrize("packet", (1448, 50_000))
def test_messages_come_whole_however_they_are_cut(packet):
    with Reader() as reader:
        for size in (1, 4096, 4097, 100_000, (1 << 17) - 1, 1 << 17, (1 << 17) + 1, 300_001):
            payload = bytes(number % 251 for number in range(size))
            reader.send(payload, packet)
            assert reader.came.get(timeout=10)[0] == payload


def test_a_reader_is_not_woken_for_each_packet():
    with Reader() as reader:
        reader.send(bytes(700 * 1448), 1448)
        _, woken = reader.came.get(timeout=10)
    assert woken < 100


@pytest.mark.parametrize("half", (1000, 100_000, 250_000))
def test_a_reader_learns_of_the_end_in_the_middle_of_a_message(half):
    with Reader() as reader:
        header = wire.Header(kind=wire.DATA, group=1, tag=0, length=300_000)
        reader.sender.sendall(header.pack() + bytes(half))
        reader.sender.close()
        assert isinstance(reader.over.get(timeout=10), EOFError)


def test_a_reader_that_waits_for_the_rest_of_a_message_can_be_closed():
    with Reader() as reader:
        header = wire.Header(kind=wire.DATA, group=1, tag=0, length=300_000)
        reader.sender.sendall(header.pack() + bytes(150_000))
        reader.incoming.close()
        assert isinstance(reader.over.get(timeout=10), EOFError)
