"""HTTP/1.1 connections to a replica, kept for more than one request."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import h11

READ_BYTES = 1 << 16
Headers = Sequence[tuple[bytes, bytes]]


class Lost(Exception):
    """A replica gave no whole answer.

    Attributes:
        sent: whether it may have had the request.
    """

    def __init__(self, why: str, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


@dataclass(frozen=True, slots=True)
class Head:
    """Of an answer: status, and headers with names in lower case."""

    status: int
    headers: Headers

    def get(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key == name), None)


class Connection:
    """One request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.CLIENT)
        self.progress = asyncio.get_running_loop().time()  #: when bytes last moved
        self.reused = False  #: whether it had a request before this one

    @property
    def usable(self) -> bool:
        """Whether another request may go over it, as far as is known."""
        open = not self._reader.at_eof() and not self._writer.is_closing()
        return open and self._http.our_state is h11.IDLE and self._http.their_state is h11.IDLE

    async def send(self, head: h11.Request, body: AsyncIterator[bytes]) -> None:
        """
        Raises:
            Lost: the connection broke.
        """
        try:
            waiting = self._http.send(head) or b""
            async for piece in body:  # the first piece goes in one packet with the headers
                self._writer.write(waiting + (self._http.send(h11.Data(data=piece)) or b""))
                waiting = b""
                await self._writer.drain()
                self._moved()
            self._writer.write(waiting + (self._http.send(h11.EndOfMessage()) or b""))
            await self._writer.drain()
        except OSError:
            pass  # it may have answered before it closed: reading tells

    async def head(self) -> Head:
        """
        Raises:
            Lost: there is none.
        """
        while True:
            event = await self._event()
            if isinstance(event, h11.Response):
                return Head(event.status_code, tuple(event.headers))
            if not isinstance(event, h11.InformationalResponse):
                raise Lost("it closed the connection without an answer", sent=True)

    async def body(self) -> AsyncIterator[bytes]:
        """
        Raises:
            Lost: it ends before its end.
        """
        while not isinstance(event := await self._event(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                raise Lost("the answer broke off", sent=True)
            yield bytes(event.data)
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()

    def abort(self) -> None:
        """Ends it at once; whoever waits for it gets `Lost`."""
        self._writer.transport.abort()

    async def _event(self) -> h11.Event | type[h11.PAUSED]:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                data = await self._reader.read(READ_BYTES)
                self._moved()
                self._http.receive_data(data)
        except (OSError, h11.RemoteProtocolError) as error:
            raise Lost(f"the answer broke off: {error}", sent=True) from error
        assert not isinstance(event, type) or event is h11.PAUSED
        return event  # type: ignore[return-value]

    def _moved(self) -> None:
        self.progress = asyncio.get_running_loop().time()


class Pool:
    """Connections to one replica.

    Args:
        host, port: where it listens.
        connect: seconds for a connection to be made.
        idle: connections that are kept.
    """

    def __init__(self, host: str, port: int, *, connect: float, idle: int = 64) -> None:
        self._host, self._port, self._connect, self._most = host, port, connect, idle
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._closed = False

    @contextlib.asynccontextmanager
    async def connection(self, *, fresh: bool) -> AsyncIterator[Connection]:
        """A connection, which is kept for others if its answer was read to the end.

        Args:
            fresh: a new one, that nobody else can have closed meanwhile.

        Raises:
            Lost: none can be made.
        """
        connection = None if fresh else self._take()
        if connection is None:
            connection = await self._open()
        self._busy.add(connection)
        try:
            yield connection
        finally:
            self._busy.discard(connection)
            if connection.usable and len(self._idle) < self._most and not self._closed:
                self._idle.append(connection)
            else:
                connection.abort()

    def quiet(self) -> float:
        """Seconds for which no byte of any request has moved; 0 where none runs."""
        if not self._busy:
            return 0.0
        return asyncio.get_running_loop().time() - max(one.progress for one in self._busy)

    def close(self) -> None:
        """Ends all connections, also those with requests."""
        self._closed = True
        for one in [*self._idle, *self._busy]:
            one.abort()
        self._idle.clear()

    def _take(self) -> Connection | None:
        while self._idle:
            one = self._idle.pop()
            if one.usable:
                one.progress, one.reused = asyncio.get_running_loop().time(), True
                return one
            one.abort()
        return None

    async def _open(self) -> Connection:
        if self._closed:
            raise Lost("it is gone", sent=False)
        try:
            async with asyncio.timeout(self._connect):
                return Connection(*await asyncio.open_connection(self._host, self._port))
        except (OSError, TimeoutError) as error:
            raise Lost(f"no connection: {error or 'it took too long'}", sent=False) from error
