"""The router: an HTTP proxy in front of a fleet's replicas, as an ASGI application."""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Coroutine
from typing import Any

from oarlock.fleet_ext.rendezvous import Store
from oarlock.fleet_ext.serving import records
from oarlock.fleet_ext.serving.admin import Admin
from oarlock.fleet_ext.serving.balancing import Balancer, Full, NoReplica
from oarlock.fleet_ext.serving.forwarding import Answer, Exhausted, Forwarding, count_loss
from oarlock.fleet_ext.serving.incoming import (
    Body,
    ClientGone,
    Message,
    Receive,
    Request,
    Send,
    end_to_end,
)
from oarlock.fleet_ext.serving.metrics import Metrics
from oarlock.fleet_ext.serving.mirror import Mirror
from oarlock.fleet_ext.serving.records import Report, View, pack
from oarlock.fleet_ext.serving.refusals import Refusal, broken_event
from oarlock.fleet_ext.serving.registration import Registration
from oarlock.fleet_ext.serving.resuming import Differs, alike, forwarded, is_stream
from oarlock.fleet_ext.serving.routing import Routing
from oarlock.fleet_ext.serving.upstream import Lost

_log = logging.getLogger(__name__)
OWN = "/router/"
_REPORT_S = 0.1


class Router:
    """Several may run beside each other. `Server` runs it.

    Args:
        store: the fleet's.
        routing: what may be done with requests.
        address: where clients reach it, for those who look at the fleet.
        admin_token: that who drains or rescales over HTTP must show; None: nobody can.
    """

    def __init__(
        self, store: Store, *, routing: Routing = Routing(), address: str = "",
        admin_token: str | None = None,
    ) -> None:  # fmt: skip
        self._store, self._routing, self._address = store, routing, address
        self._name = f"{address or 'router'}-{secrets.token_hex(3)}"
        self._balancer = Balancer(routing)
        self._metrics = Metrics(self._balancer)
        self._forwarding = Forwarding(self._balancer, routing, self._metrics)
        self._admin = Admin(store, self._balancer, self._metrics, admin_token)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            if scope["path"].startswith(OWN):
                await self._admin(scope, receive, send)
            else:
                await self._proxy(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        loop = asyncio.get_running_loop()
        mirror = await asyncio.to_thread(Mirror, self._store, records.ALL)
        registration = Registration(self._store, self._name)

        def update() -> None:
            self._balancer.update(View.of(mirror.values).replicas)

        update()
        mirror.follow(lambda: loop.call_soon_threadsafe(update))
        reporting = asyncio.create_task(self._report(registration))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        reporting.cancel()
        await asyncio.wait([reporting])
        mirror.close()
        self._balancer.close()
        await asyncio.to_thread(registration.close)
        await send({"type": "lifespan.shutdown.complete"})

    async def _report(self, registration: Registration) -> None:
        key = records.ROUTERS + self._name
        while True:
            report = Report(address=self._address, uses=self._balancer.uses(), waiting=self._balancer.waiting,
                            answered=self._metrics.answered, failed=self._metrics.failed)  # fmt: skip
            registration.want({key: pack(report)})
            await asyncio.sleep(_REPORT_S)

    async def _proxy(self, scope: Message, receive: Receive, send: Send) -> None:
        begun, status = time.monotonic(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._metrics.first.observe(time.monotonic() - begun)
            await send(message)

        well = False
        try:
            body = await Body.of(receive, self._routing.kept_bytes)
            request = Request(scope, body, self._routing)
            well = await _while_there(receive, body, self._exchange(request, sending))
        except ClientGone:
            self._metrics.gone.inc()
            return
        except (ValueError, Full, NoReplica, Exhausted, TimeoutError) as error:
            refusal = Refusal.of(error, self._routing)
            await refusal.send(sending)
            well = refusal.status < 429
        finally:
            if status:
                self._metrics.requests.labels(str(status)).inc()
                self._metrics.seconds.observe(time.monotonic() - begun)
                self._metrics.answered += well
                self._metrics.failed += not well

    async def _exchange(self, request: Request, send: Send) -> bool:
        """Whether the client got all of an answer."""
        answer = await self._forwarding.answer(request)
        head = answer.head
        headers = [one for one in end_to_end(head.headers) if one[0] != b"x-oarlock-replica"]
        headers.append((b"x-oarlock-replica", answer.replica.encode()))
        async with contextlib.AsyncExitStack() as closing:
            closing.push_async_callback(answer.close)
            await send({"type": "http.response.start", "status": head.status, "headers": headers})
            if answer.whole is not None:
                await send({"type": "http.response.body", "body": answer.whole})
                return True
            client = forwarded(head)
            while True:
                try:
                    async for piece in client.follow(answer.pieces()):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                    break
                except (Lost, Differs) as error:
                    await closing.aclose()
                    _log.info("replica %s was lost within an answer: %s", answer.replica, error)
                    try:
                        answer = await self._again(request, answer, error)
                    except (Differs, Lost, Exhausted, Full, NoReplica, TimeoutError) as last:
                        await self._broken(answer, last, send)
                        return False
                    closing.push_async_callback(answer.close)
            await send({"type": "http.response.body", "body": b""})
            return True

    async def _again(self, request: Request, answer: Answer, error: Lost | Differs) -> Answer:
        """The same answer from another replica, which has not begun to be compared."""
        if not request.resumable or isinstance(error, Differs):
            raise error
        self._metrics.lost.inc()
        count_loss(request, self._routing, error)
        other = await self._forwarding.answer(request, frozenset((answer.replica,)))
        if not alike(answer.head, other.head):
            await other.close()
            raise Differs(f"the other replica's answer is of another kind: {other.head.status}")
        self._metrics.resumed.inc()
        return other

    async def _broken(self, answer: Answer, why: Exception, send: Send) -> None:
        """Says so where there are words for it, and leaves the answer without its end, so that nobody takes it for whole."""
        self._metrics.broken.inc()
        _log.warning("an answer of replica %s broke off: %s", answer.replica, why)
        if is_stream(answer.head):
            event = broken_event(answer.replica, why)
            await send({"type": "http.response.body", "body": event, "more_body": True})


async def _while_there(receive: Receive, body: Body, work: Coroutine[Any, Any, bool]) -> bool:
    """Does something, and cancels it when the client closes the connection.

    Raises:
        ClientGone: it did.
    """

    async def gone() -> None:
        await body.read.wait()  # until then the body's reader notices
        while (await receive())["type"] != "http.disconnect":
            pass

    task, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        for one in (task, leaving):
            one.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)
