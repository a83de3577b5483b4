"""Answers that broke off and go on from another replica.

The other replica answers from the beginning. What the client has already is compared and left out; where it differs (a
model that draws its words, say), the answer cannot go on.
"""

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any, Protocol

from oarlock.fleet_ext.serving.upstream import Head

#: Of JSON events: what is new in each run of a request, as OpenAI's interface has it. The first run's are kept.
IDENTITY = ("id", "created", "system_fingerprint")
EVENT_BYTES = 1 << 20
_SAME = (b"content-type", b"content-encoding", b"content-length")


class Differs(Exception):
    """The other replica's answer does not begin like the first one's."""


class Forwarded(Protocol):
    """What a client has of an answer."""

    def follow(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Pieces that the client does not have yet. May be called again, with another replica's answer.

        Raises:
            Differs: with the call that shows it.
        """


def forwarded(head: Head) -> Forwarded:
    kind = (head.get(b"content-type") or b"").partition(b";")[0].strip().lower()
    plain = head.get(b"content-encoding") in (None, b"identity")
    return _Events() if kind == b"text/event-stream" and plain else _Bytes()


def alike(first: Head, other: Head) -> bool:
    """Whether an answer may go on with another's body."""
    return first.status == other.status and all(first.get(one) == other.get(one) for one in _SAME)


def is_stream(head: Head) -> bool:
    """Whether parts of it are of use before its end."""
    return isinstance(forwarded(head), _Events)


class _Bytes:
    """Compared byte by byte, by a hash of all that was forwarded."""

    def __init__(self) -> None:
        self._hash, self._count = hashlib.sha256(), 0

    async def follow(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        left, again = self._count, hashlib.sha256()
        async for piece in pieces:
            known, piece = piece[:left], piece[left:]
            if known:
                again.update(known)
                left -= len(known)
                if not left and again.digest() != self._hash.digest():
                    raise Differs("its first bytes are others")
            if piece:
                self._hash.update(piece)
                self._count += len(piece)
                yield piece
        if left:
            raise Differs("it is shorter than what the client has")


class _Events:
    """Server-sent events: forwarded whole, and compared without what only names the run."""

    def __init__(self) -> None:
        self._hash, self._count = hashlib.sha256(), 0
        self._identity: dict[str, Any] | None = None

    async def follow(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        left, again = self._count, hashlib.sha256()
        resumed = bool(left)
        async for event in _events(pieces):
            fields = _object(event)
            known = _without_identity(event, fields)
            if left:
                again.update(known)
                left -= 1
                if not left and again.digest() != self._hash.digest():
                    raise Differs("its first events are others")
                continue
            self._hash.update(known)
            self._count += 1
            if self._identity is None and fields is not None:
                self._identity = {name: fields[name] for name in IDENTITY if name in fields}
            yield self._with_identity(event, fields) if resumed else event
        if left:
            raise Differs("it has fewer events than the client")

    def _with_identity(self, event: bytes, fields: dict[str, Any] | None) -> bytes:
        if fields is None or not self._identity:
            return event
        ours = {name: value for name, value in self._identity.items() if name in fields}
        said = json.dumps({**fields, **ours}, separators=(",", ":")).encode()
        return b"data: " + said + b"\n\n"


async def _events(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Each event with the blank line behind it; then what is left, if anything."""
    buffer = b""
    async for piece in pieces:
        begin = max(0, len(buffer) - 3)
        buffer += piece
        while (end := _end(buffer, begin)) is not None:
            yield buffer[:end]
            buffer, begin = buffer[end:], 0
        if len(buffer) > EVENT_BYTES:
            raise Differs(f"an event has more than {EVENT_BYTES} bytes")
    if buffer:
        yield buffer


def _end(buffer: bytes, begin: int) -> int | None:
    """Behind the first blank line."""
    found = [at + len(mark) for mark in (b"\n\n", b"\r\n\r\n", b"\r\r")
             if (at := buffer.find(mark, begin)) >= 0]  # fmt: skip
    return min(found, default=None)


def _object(event: bytes) -> dict[str, Any] | None:
    """The JSON object of an event that is nothing but one."""
    line = event.strip()
    if not line.startswith(b"data:") or b"\n" in line or b"\r" in line:
        return None
    try:
        found = json.loads(line.removeprefix(b"data:"))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _without_identity(event: bytes, fields: dict[str, Any] | None) -> bytes:
    if fields is None:
        return b"raw " + event
    kept = {name: value for name, value in fields.items() if name not in IDENTITY}
    return b"json " + json.dumps(kept, sort_keys=True).encode()
