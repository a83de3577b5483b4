"""A client's request, as it comes and as it goes to a replica."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Self

import h11

from oarlock.fleet_ext.serving.routing import REPLAYS, Replay, Routing

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

REPLAY = b"x-oarlock-replay"
#: About one connection only (RFC 9110, 7.6.1), or answered by the router.
HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
     b"trailer", b"transfer-encoding", b"upgrade", b"expect")
)  # fmt: skip
_IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE")


class ClientGone(Exception):
    """Nobody waits for the answer."""


class Body:
    """A request's body, of which so much is kept that it can be sent again.

    Attributes:
        whole: whether all of it is kept.
        size: of what came so far, bytes.
        read: set when all of it has come.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: list[bytes] = []
        self.whole, self.size = False, 0
        self.read = asyncio.Event()

    @classmethod
    async def of(cls, receive: Receive, limit: int) -> Self:
        """Reads it, up to a limit in bytes.

        Raises:
            ClientGone: the client closed the connection.
        """
        body = cls(receive)
        while not body.read.is_set() and body.size <= limit:
            body._kept.append(await body._next())
        body.whole = body.read.is_set()
        return body

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of it: any number of times if it is whole, else once."""
        for piece in self._kept:
            if piece:
                yield piece
        if not self.whole:
            self._kept.clear()
            while not self.read.is_set():
                yield await self._next()

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece: bytes = message.get("body", b"")
        self.size += len(piece)
        if not message.get("more_body", False):
            self.read.set()
        return piece


class Request:
    """
    Args:
        scope: ASGI's.
        body: which came with it.
        routing: what may be done with it, unless it says so itself.

    Attributes:
        repeatable: whether it may be sent again as long as nothing of an answer was forwarded.
        resumable: whether it may be sent again when a part was.
        losses: replicas that it lost.
        head: as replicas get it.

    Raises:
        ValueError: its `x-oarlock-replay` says something else than it can.
    """

    def __init__(self, scope: Message, body: Body, routing: Routing) -> None:
        self.body, self.losses = body, 0
        self.method: str = scope["method"]
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        given = dict(headers)
        said = given.get(REPLAY, routing.replay.encode()).decode("latin-1").strip().lower()
        if said not in REPLAYS:
            raise ValueError(f"x-oarlock-replay must be one of {', '.join(REPLAYS)}, not {said!r}")
        replay: Replay = said  # type: ignore[assignment]
        self.repeatable = body.whole and (replay != "never" or self.method in _IDEMPOTENT)
        self.resumable = body.whole and replay == "always"
        query = scope.get("query_string", b"")
        target = scope["raw_path"] + (b"?" + query if query else b"")
        self.head = h11.Request(
            method=self.method, target=target, headers=self._forwarded(headers, scope)
        )

    def _forwarded(self, headers: list[tuple[bytes, bytes]], scope: Message) -> list[tuple[bytes, bytes]]:  # fmt: skip
        kept = [one for one in end_to_end(headers) if one[0] not in (REPLAY, b"x-forwarded-for")]
        framed = b"transfer-encoding" in dict(headers)
        if (
            self.body.whole or framed
        ):  # what a client says beside that does not count (RFC 9112, 6.3)
            length = [value for key, value in kept if key == b"content-length"]
            kept = [one for one in kept if one[0] != b"content-length"]
            if not self.body.whole:
                kept.append((b"transfer-encoding", b"chunked"))
            elif self.body.size or length:
                kept.append((b"content-length", str(self.body.size).encode()))
        if b"host" not in dict(kept):
            kept.append((b"host", b"replica"))
        before = [value for key, value in headers if key == b"x-forwarded-for"]
        client = scope.get("client")
        if client is not None and _is_address(client[0]):
            before.append(client[0].encode())
        if before:
            kept.append((b"x-forwarded-for", b", ".join(before)))
        return kept


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Without those that are about one connection only, or that a connection names."""
    headers = list(headers)
    named = {
        name.strip().lower()
        for key, value in headers
        if key == b"connection"
        for name in value.split(b",")
    }
    # A connection cannot name away what says where the body ends, or for whom it is.
    dropped = HOP_BY_HOP | (named - {b"host", b"content-length", b"content-type"})
    return [(key, value) for key, value in headers if key not in dropped]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
