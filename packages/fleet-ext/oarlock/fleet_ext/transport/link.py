"""Connections between two ranks. Each carries frames one way, so that no socket has two users (TLS wants that).

`Outgoing` has a thread that sends what is queued, `Incoming` one that reads frames. What the kernel takes at once is
sent by the caller's own thread.
"""

import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from oarlock.fleet_ext.transport import wire
from oarlock.fleet_ext.transport.ring import Ring
from oarlock.fleet_ext.transport.work import Work

_IN_RING = 1  #: flag of a frame whose payload comes through shared memory
_INLINE_BYTES = 1 << 12  #: up to here a payload goes with its header all the same
_BUFFER = 4 << 20  #: bytes asked of the kernel: 32 ms at 1 Gbit/s
_WAKING_BYTES = 1 << 17  #: of a message, at which its reader is woken
_FAREWELL_S = 1.0  #: for what is queued when a connection closes


@dataclass(frozen=True, slots=True)
class Connection:
    """One way between two ranks: a socket after its handshake, and memory beside it if they share a machine."""

    socket: socket.socket
    ring: Ring | None = None

    def close(self) -> None:
        self.socket.close()
        if self.ring is not None:
            self.ring.close()


def _prepared(connection: socket.socket) -> socket.socket:
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        connection.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
    if connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Outgoing:
    """The sending end of a connection.

    Args:
        connection: which nobody else sends on.
        name: of its thread.
        lost: called once, from any thread, when it fails; not where it is closed.
    """

    def __init__(
        self, connection: Connection, name: str, lost: Callable[[BaseException], None]
    ) -> None:
        self._connection, self._lost = connection, lost
        self._socket, self._ring = _prepared(connection.socket), connection.ring
        self._plain = not isinstance(connection.socket, ssl.SSLSocket)
        self._queue: deque[_Frame] = deque()
        self._change = threading.Condition()
        self._sending = False  #: the thread is between two pieces of a frame
        self._closing = False
        self._error: BaseException | None = None
        self.bytes_sent = 0
        self._thread = threading.Thread(target=self._send_all, name=name, daemon=True)
        self._thread.start()

    def send(
        self, header: wire.Header, payload: memoryview | None = None, work: Work[None] | None = None
    ) -> None:
        """Queues a frame; `work` ends when the kernel has all of it, or with what broke the connection."""
        frame = _Frame(header, payload, work, self._ring is not None)
        with self._change:
            error = self._error
            if error is None and self._closing:
                error = ConnectionError("the connection is closed")
            if error is None:
                if self._plain and not self._queue and not self._sending:
                    self._at_once(frame)
                if not frame.done():
                    self._queue.append(frame)
                    self._change.notify()
                    return
        if work is None:
            return
        if error is None:
            work.finish(None)
        else:
            work.fail(error)

    def close(self, *, farewell: bool) -> None:
        """Sends what is queued and a farewell, or drops it all."""
        with self._change:
            if farewell and not self._closing:
                header = wire.Header(kind=wire.FAREWELL, group=0, tag=0, length=0)
                self._queue.append(_Frame(header, None, None, False))
            self._closing = True
            self._change.notify()
        if farewell:
            self._thread.join(_FAREWELL_S)
        if self._thread.is_alive():
            self._fail(ConnectionError("the connection is closed"), None, tell=False)
            self._thread.join(_FAREWELL_S)
        if not self._thread.is_alive():
            self._connection.close()

    def _at_once(self, frame: "_Frame") -> None:
        """Hands the kernel what it takes without waiting."""
        try:
            sent = self._socket.sendmsg(frame.parts, [], socket.MSG_DONTWAIT)
        except OSError:
            return  # full, or broken: then the thread meets the same error, and tells
        self.bytes_sent += sent
        frame.sent(sent)

    def _send_all(self) -> None:
        frame: _Frame | None = None
        try:
            while True:
                with self._change:
                    self._sending = False
                    while not self._queue and not self._closing:
                        self._change.wait()
                    if not self._queue:
                        return
                    frame = self._queue.popleft()
                    self._sending = True
                while frame.parts:
                    sent = (
                        self._socket.sendmsg(frame.parts)
                        if self._plain
                        else self._socket.send(frame.parts[0])
                    )
                    self.bytes_sent += sent
                    frame.sent(sent)
                if frame.in_ring is not None:
                    assert self._ring is not None
                    self._ring.write(frame.in_ring, self._alive)
                    self.bytes_sent += len(frame.in_ring)
                if frame.work is not None:
                    frame.work.finish(None)
                frame = None
        except OSError as error:
            self._fail(error, frame.work if frame is not None else None, tell=True)

    def _alive(self) -> bool:
        """Whether somebody may still read from the ring."""
        return self._error is None and _open(self._socket)

    def _fail(self, error: BaseException, work: Work[None] | None, *, tell: bool) -> None:
        with self._change:
            tell = tell and not self._closing
        try:
            if tell:
                self._lost(error)  # first: whose send has failed then finds the rank among the lost
        finally:  # nobody waits for good, whatever became of telling
            self._end(error, work)

    def _end(self, error: BaseException, work: Work[None] | None) -> None:
        with self._change:
            self._error = self._error or error
            waiting = [work, *(one.work for one in self._queue)]
            self._queue.clear()
            self._closing = True
            self._change.notify()
        _shut(self._socket)
        for one in waiting:
            if one is not None:
                one.fail(error)


class _Frame:
    """What is queued: parts for the socket, and a payload for the ring behind them."""

    __slots__ = ("in_ring", "parts", "work")

    def __init__(
        self,
        header: wire.Header,
        payload: memoryview | None,
        work: Work[None] | None,
        ring: bool,
    ) -> None:
        self.work = work
        self.in_ring = (
            payload if ring and payload is not None and len(payload) > _INLINE_BYTES else None
        )
        if self.in_ring is not None:
            header = replace(header, flag=_IN_RING)
        self.parts = [memoryview(header.pack())]
        if self.in_ring is None and payload is not None and len(payload):
            self.parts.append(payload)

    def sent(self, count: int) -> None:
        """Drops so many bytes."""
        while self.parts and count >= len(self.parts[0]):
            count -= len(self.parts.pop(0))
        if count:
            self.parts[0] = self.parts[0][count:]

    def done(self) -> bool:
        return not self.parts and self.in_ring is None


class Incoming:
    """The receiving end of a connection.

    Args:
        connection: which nobody else reads from.
        name: of its thread.
        arrived: called with each header, from the thread; takes the payload by `read`, whole.
        ended: called once, from the thread; without an error if the other side said farewell.

    Attributes:
        reading_s: seconds in which payloads were on their way: each from its header to its last byte.
    """

    def __init__(
        self,
        connection: Connection,
        name: str,
        arrived: Callable[[wire.Header, "Incoming"], None],
        ended: Callable[[BaseException | None], None],
    ) -> None:
        self._connection = connection
        self._socket, self._ring = _prepared(connection.socket), connection.ring
        self._plain = not isinstance(connection.socket, ssl.SSLSocket)
        self._in_ring = self._closed = False
        self._woken_at = 1  #: bytes, as the kernel has been told
        self._readable = select.poll()
        self._readable.register(self._socket, select.POLLIN)
        self._arrived, self._ended = arrived, ended
        self.bytes_received, self.reading_s = 0, 0.0
        self._thread = threading.Thread(target=self._receive_all, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def read(self, view: memoryview) -> None:
        """Fills a view with a payload.

        Raises:
            EOFError: the connection ended before.
        """
        begin = time.monotonic()
        self._fill(view)
        self.reading_s += time.monotonic() - begin

    def close(self) -> None:
        self._closed = True
        _shut(self._socket)
        if self._thread is threading.current_thread():
            return  # it still reads, and ends behind this
        if self._thread.ident is not None:
            self._thread.join(_FAREWELL_S)
        if not self._thread.is_alive():
            self._connection.close()

    def _fill(self, view: memoryview) -> None:
        if self._in_ring and self._ring is not None:
            self._ring.read(view, self._alive)
            self.bytes_received += len(view)
            return
        while len(view):
            count = self._receive(view)
            if count == 0:
                raise EOFError("the connection ended")
            self.bytes_received += count
            view = view[count:]

    def _receive(self, view: memoryview) -> int:
        """Waits for bytes; how many came, 0 at the end of the connection.

        Of a large message a good part is waited for: on a slow link a thread that wakes for each packet costs the
        processor five times as much.
        """
        wanted = min(len(view), _WAKING_BYTES) if self._plain else 0
        if wanted <= _INLINE_BYTES:
            self._wake_at(1)
            return self._socket.recv_into(view)
        self._wake_at(wanted)
        while True:
            self._readable.poll()
            try:
                # Waiting, it would sleep on what it has not taken yet, which may be less than what wakes it.
                return self._socket.recv_into(view, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue

    def _wake_at(self, count: int) -> None:
        if count != self._woken_at:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
            self._woken_at = count

    def _alive(self) -> bool:
        """Whether who writes into the ring still can."""
        return not self._closed and _open(self._socket)

    def _receive_all(self) -> None:
        header = bytearray(wire.HEADER_BYTES)
        error: BaseException | None = None
        try:
            while True:
                self._in_ring = False
                self._fill(memoryview(header))
                found = wire.Header.unpack(header)
                self._in_ring = found.flag == _IN_RING
                if found.kind == wire.FAREWELL:
                    break
                self._arrived(found, self)
        except Exception as caught:  # whatever it is, who waits for this rank must hear of it
            error = caught
        _shut(self._socket)
        self._ended(error)


def _shut(connection: socket.socket) -> None:
    """Ends a connection, so that a thread that waits in it comes back."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is over already


def _open(connection: socket.socket) -> bool:
    """Whether the other end has not closed a connection."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
