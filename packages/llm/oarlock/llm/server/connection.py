"""A client that may go away, and streams of events to it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from oarlock.llm.server.errors import APIError, ClientGone

T = TypeVar("T")


async def while_there(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Do ``work``, and cancel it when the client closes the connection.

    Raises:
        ClientGone: it did.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        for future in (task, gone):
            future.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events: a JSON object each, and ``[DONE]`` at the end of a whole answer.

    An error ends the stream with an event ``{"error": …}`` instead.

    Args:
        events: objects to send.
        close: called at the end, whatever the end is.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[dict[str, Any]], *, close: Callable[[], None]):
        self.status_code, self.background = 200, None
        self._events, self._close = events, close
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})

    background: BackgroundTask | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await while_there(receive, self._send_all(send))
        finally:
            self._close()

    async def _send_all(self, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        write = _writer(send)
        try:
            async for event in self._events:
                await write(encode(event))
        except APIError as error:
            await write(encode(error.body))
        except Exception:  # the log gets it; who reads must not take the stream for a whole one
            failure = APIError(500, "The server failed; its log has more.", code="internal_error")
            await write(encode(failure.body))
            raise
        else:
            await write(b"data: [DONE]\n\n")
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def encode(event: dict[str, Any]) -> bytes:
    """One event; ASCII, as some clients take other line ends of Unicode for ends of it."""
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


def _writer(send: Send) -> Callable[[bytes], Awaitable[None]]:
    async def write(data: bytes) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": True})

    return write
