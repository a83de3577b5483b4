"""Connections between two ranks. Each carries frames one way, so that no socket has two users (TLS wants that).

`Outgoing` has a thread that sends what is queued, `Incoming` one that reads frames. What the kernel takes at once is
sent by the caller's own thread.
"""

import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable

from oarlock.fleet_ext.transport import wire
from oarlock.fleet_ext.transport.work import Work

_BUFFER = 4 << 20  #: bytes asked of the kernel: 32 ms at 1 Gbit/s
_FAREWELL_S = 1.0  #: for what is queued when a connection closes


def _prepared(connection: socket.socket) -> socket.socket:
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        connection.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
    if connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Outgoing:
    """The sending end of a connection.

    Args:
        connection: after its handshake.
        name: of its thread.
        lost: called once, from any thread, when it fails; not where it is closed.
    """

    def __init__(
        self, connection: socket.socket, name: str, lost: Callable[[BaseException], None]
    ) -> None:
        self._socket, self._lost = _prepared(connection), lost
        self._plain = not isinstance(connection, ssl.SSLSocket)
        self._queue: deque[tuple[list[memoryview], Work[None] | None]] = deque()
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
        parts = [memoryview(header.pack())]
        if payload is not None and len(payload):
            parts.append(payload)
        with self._change:
            error = self._error
            if error is None and self._closing:
                error = ConnectionError("the connection is closed")
            if error is None:
                if self._plain and not self._queue and not self._sending:
                    parts = self._at_once(parts)
                if parts:
                    self._queue.append((parts, work))
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
                self._queue.append(([memoryview(header.pack())], None))
            self._closing = True
            self._change.notify()
        if farewell:
            self._thread.join(_FAREWELL_S)
        if self._thread.is_alive():
            self._fail(ConnectionError("the connection is closed"), None, tell=False)
            self._thread.join(_FAREWELL_S)
        self._socket.close()

    def _at_once(self, parts: list[memoryview]) -> list[memoryview]:
        """Hands the kernel what it takes without waiting; the rest."""
        try:
            sent = self._socket.sendmsg(parts, [], socket.MSG_DONTWAIT)
        except OSError:
            return parts  # full, or broken: then the thread meets the same error, and tells
        self.bytes_sent += sent
        return _after(parts, sent)

    def _send_all(self) -> None:
        work: Work[None] | None = None
        try:
            while True:
                with self._change:
                    self._sending = False
                    while not self._queue and not self._closing:
                        self._change.wait()
                    if not self._queue:
                        return
                    parts, work = self._queue.popleft()
                    self._sending = True
                while parts:
                    sent = (
                        self._socket.sendmsg(parts) if self._plain else self._socket.send(parts[0])
                    )
                    self.bytes_sent += sent
                    parts = _after(parts, sent)
                if work is not None:
                    work.finish(None)
                    work = None
        except OSError as error:
            self._fail(error, work, tell=True)

    def _fail(self, error: BaseException, work: Work[None] | None, *, tell: bool) -> None:
        with self._change:
            self._error = self._error or error
            waiting = [work, *(one for _, one in self._queue)]
            self._queue.clear()
            tell = tell and not self._closing
            self._closing = True
            self._change.notify()
        _shut(self._socket)
        for one in waiting:
            if one is not None:
                one.fail(error)
        if tell:
            self._lost(error)


class Incoming:
    """The receiving end of a connection.

    Args:
        connection: after its handshake.
        name: of its thread.
        arrived: called with each header, from the thread; takes the payload by `read`, whole.
        ended: called once, from the thread; without an error if the other side said farewell.
    """

    def __init__(
        self,
        connection: socket.socket,
        name: str,
        arrived: Callable[[wire.Header, "Incoming"], None],
        ended: Callable[[BaseException | None], None],
    ) -> None:
        self._socket = _prepared(connection)
        self._arrived, self._ended = arrived, ended
        self.bytes_received = 0
        self._thread = threading.Thread(target=self._receive_all, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def read(self, view: memoryview) -> None:
        """Fills a view from the connection.

        Raises:
            EOFError: it ended before.
        """
        while len(view):
            count = self._socket.recv_into(view)
            if count == 0:
                raise EOFError("the connection ended")
            self.bytes_received += count
            view = view[count:]

    def close(self) -> None:
        _shut(self._socket)
        if self._thread is not threading.current_thread() and self._thread.ident is not None:
            self._thread.join(_FAREWELL_S)
        self._socket.close()

    def _receive_all(self) -> None:
        header = bytearray(wire.HEADER_BYTES)
        error: BaseException | None = None
        try:
            while True:
                self.read(memoryview(header))
                found = wire.Header.unpack(header)
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


def _after(parts: list[memoryview], sent: int) -> list[memoryview]:
    """What is left of parts of which so many bytes are sent."""
    while parts and sent >= len(parts[0]):
        sent -= len(parts[0])
        parts = parts[1:]
    return [parts[0][sent:], *parts[1:]] if sent else parts
