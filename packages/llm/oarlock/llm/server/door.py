"""Every request passes here first and last: its id, key, body, log line and metrics."""

import asyncio
import logging
import traceback

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oarlock.llm.server import record
from oarlock.llm.server.errors import APIError, ClientGone, timed_out
from oarlock.llm.server.keys import ApiKeys
from oarlock.llm.server.limits import Limits
from oarlock.llm.server.metrics import Metrics

LOG = logging.getLogger("oarlock.llm.server")
PROTECTED = "/v1/"
CLIENT_GONE = 499  # nginx's status of a request whose client closed the connection


class Door:
    """ASGI middleware around all endpoints.

    Args:
        app: the endpoints.
        keys: that requests under /v1/ must show.
        limits: of bodies.
        metrics: told of every request.
    """

    def __init__(self, app: ASGIApp, *, keys: ApiKeys, limits: Limits, metrics: Metrics):
        self._app, self._keys, self._limits, self._metrics = app, keys, limits, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        entry = record.begin(scope)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                entry.status = message["status"]
                headers = [*message.get("headers", []), (b"x-request-id", entry.id.encode())]
                headers.append((b"x-content-type-options", b"nosniff"))
                message = {**message, "headers": headers}
            else:
                entry.sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self._pass(scope, receive, sending, entry)
        except ClientGone:
            entry.cancelled = True
        except asyncio.CancelledError:
            entry.cancelled = True
            raise
        except Exception as error:
            # The message of an exception may quote a prompt: its kind and place are enough to find it.
            place = "".join(traceback.format_tb(error.__traceback__))
            LOG.error("request %s failed: %s\n%s", entry.id, type(error).__name__, place)
            if entry.status:
                raise
            message = f"The server failed; its log has more under request {entry.id}."
            failure = APIError(500, message, code="internal_error")
            await failure.response()(scope, receive, sending)
        finally:
            if entry.cancelled and not entry.status:
                entry.status = CLIENT_GONE
            entry.route = getattr(scope.get("route"), "path", entry.route)
            self._metrics.requests.labels(entry.route, str(entry.status)).inc()
            self._metrics.seconds.labels(entry.route).observe(entry.seconds)
            if entry.cancelled:
                self._metrics.cancelled.inc()
            entry.log()

    async def _pass(self, scope: Scope, receive: Receive, send: Send, entry: record.Record) -> None:
        try:
            authorization = dict(scope["headers"]).get(b"authorization")
            if scope["path"].startswith(PROTECTED) and not self._keys.admit(authorization):
                raise APIError(
                    401,
                    "The request must have a header Authorization: Bearer KEY with one of this "
                    "server's keys.",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
            body = await self._read(scope, receive, entry)
        except APIError as error:
            await error.response()(scope, receive, send)
            return
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive, entry: record.Record) -> bytes:
        """The whole body, within its limits of size and time."""
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        most, chunks, size, more = self._limits.body_bytes, [], 0, True
        if declared.isdigit() and int(declared) > 16 * most:
            raise self._too_large()
        try:
            async with asyncio.timeout(self._limits.body_s):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    size += len(message.get("body", b""))
                    more = message.get("more_body", False)
                    if size <= most:
                        chunks.append(message.get("body", b""))
                    else:  # the rest is read and dropped: a client that still writes reads no answer
                        chunks.clear()
                    if size > 16 * most:
                        break
        except TimeoutError as error:
            refusal = timed_out(
                f"The body must come within {self._limits.body_s:g} s, got {size} bytes of it."
            )
            refusal.headers["Connection"] = "close"
            raise refusal from error
        if size > most:
            raise self._too_large()
        entry.body_bytes = size
        return b"".join(chunks)

    def _too_large(self) -> APIError:
        return APIError(
            413,
            f"The body must have at most {self._limits.body_bytes} bytes.",
            code="body_too_large",
            headers={"Connection": "close"},
        )
