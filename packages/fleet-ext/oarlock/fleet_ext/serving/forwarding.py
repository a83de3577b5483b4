"""A request's way to an answer: attempts at replicas, again where one is lost, and at two where one is slow."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from oarlock.fleet_ext.serving.balancing import Balancer, Target
from oarlock.fleet_ext.serving.incoming import Request
from oarlock.fleet_ext.serving.metrics import Metrics
from oarlock.fleet_ext.serving.resuming import is_stream
from oarlock.fleet_ext.serving.routing import Routing
from oarlock.fleet_ext.serving.upstream import Connection, Head, Lost

_BUSY = (429, 503)  #: a replica that says so has not begun


class Exhausted(Exception):
    """The request may not be sent again."""


class Answer:
    """The beginning of an answer; `pieces` is the rest. To be closed.

    Attributes:
        replica: which answers.
        whole: the body, where it was read already.
    """

    def __init__(self, head: Head, replica: str, connection: Connection, stall_s: float) -> None:
        self.head, self.replica = head, replica
        self.whole: bytes | None = None
        self.closing = contextlib.AsyncExitStack()  #: what `close` does
        self._body, self._stall_s = connection.body(), stall_s

    async def read(self, most: int) -> None:
        """Reads an answer that is said to be short, and is of no use before its end."""
        length = self.head.get(b"content-length")
        if length is not None and int(length) <= most and not is_stream(self.head):
            self.whole = b"".join([piece async for piece in self.pieces()])

    async def pieces(self) -> AsyncIterator[bytes]:
        """
        Raises:
            Lost: the replica broke off, or stopped.
        """
        if self.whole is not None:
            yield self.whole
            return
        while True:
            try:
                async with asyncio.timeout(self._stall_s):
                    piece = await anext(self._body)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise Lost(f"nothing more came for {self._stall_s:g} s", sent=True) from error
            yield piece

    async def close(self) -> None:
        await self.closing.aclose()


class Forwarding:
    """
    Args:
        balancer: which knows the replicas.
        routing: what may be done.
        metrics: told of attempts.
    """

    def __init__(self, balancer: Balancer, routing: Routing, metrics: Metrics) -> None:
        self._balancer, self._routing, self._metrics = balancer, routing, metrics

    async def answer(self, request: Request, avoid: frozenset[str] = frozenset()) -> Answer:
        """The beginning of an answer, or all of a short one.

        Args:
            avoid: replicas to use only if there is no other.

        Raises:
            Full, NoReplica: no replica takes it.
            Exhausted: it was lost, and may not be sent again.
            TimeoutError: no answer began in time.
        """
        async with asyncio.timeout(self._routing.answer_s):
            return await self._race(request, set(avoid))

    async def _race(self, request: Request, tried: set[str]) -> Answer:
        running: dict[asyncio.Task[Answer], Target] = {}
        hedge_s = self._routing.hedge_s if request.repeatable else None
        try:
            while True:
                if not running:
                    target = await self._balancer.take(tried)
                    running[self._begin(target, request)] = target
                done, _ = await asyncio.wait(running, timeout=hedge_s, return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
                if not done:
                    hedge_s = None
                    other = self._balancer.take_now(tried | {one.id for one in running.values()})
                    if other is not None:
                        self._metrics.hedged.inc()
                        running[self._begin(other, request)] = other
                    continue
                task = done.pop()
                target = running.pop(task)
                tried.add(target.id)
                answer = self._result(task, target, request)
                if answer is not None and not (await self._busy(answer, request, tried)):
                    return answer
        finally:
            for task in running:
                task.cancel()
            for result in await asyncio.gather(*running, return_exceptions=True):
                if isinstance(result, Answer):
                    await result.close()

    def _result(self, task: asyncio.Task[Answer], target: Target, request: Request) -> Answer | None:  # fmt: skip
        """None where the request is to be sent again."""
        try:
            return task.result()
        except Lost as error:
            target.failed()
            self._metrics.lost.inc()
            if not error.sent:
                return None
            if not request.repeatable:
                raise Exhausted(f"replica {target.id} was lost, and may have had the request: {error}") from error  # fmt: skip
            count_loss(request, self._routing, error)
            return None

    async def _busy(self, answer: Answer, request: Request, tried: set[str]) -> bool:
        """Whether a replica had no room, and another may have."""
        if answer.head.status not in _BUSY or not request.repeatable:
            return False
        other = self._balancer.take_now(tried)
        if other is None:
            return False
        self._balancer.give_back(other)  # the next round takes it
        await answer.close()
        return True

    def _begin(self, target: Target, request: Request) -> asyncio.Task[Answer]:
        """An attempt at one replica, where the request has its place already."""

        def ended(task: asyncio.Task[Answer]) -> None:
            if task.cancelled() or task.exception() is not None:  # else closing the answer does it
                self._balancer.give_back(target)

        task = asyncio.create_task(self._attempt(target, request))
        task.add_done_callback(ended)
        return task

    async def _attempt(self, target: Target, request: Request) -> Answer:
        async with contextlib.AsyncExitStack() as closing:
            connection, head = await self._head(target, request, closing)
            answer = Answer(head, target.id, connection, self._routing.stall_s)
            await answer.read(self._routing.whole_bytes)
            closing.callback(self._balancer.give_back, target)
            answer.closing = closing.pop_all()
        target.answered()
        if answer.whole is not None:
            await answer.close()
        return answer

    @staticmethod
    async def _head(
        target: Target, request: Request, closing: contextlib.AsyncExitStack
    ) -> tuple[Connection, Head]:
        fresh = not request.repeatable
        connection = await closing.enter_async_context(target.pool.connection(fresh=fresh))
        try:
            await connection.send(request.head, request.body.pieces())
            return connection, await connection.head()
        except Lost as error:
            if not connection.reused:
                raise
            try:  # a connection that was kept may have been closed meanwhile, which says nothing of the replica
                connection = await closing.enter_async_context(target.pool.connection(fresh=True))
                await connection.send(request.head, request.body.pieces())
                return connection, await connection.head()
            except Lost:
                raise error from None


def count_loss(request: Request, routing: Routing, error: Lost) -> None:
    """
    Raises:
        Exhausted: it was one too many.
    """
    request.losses += 1
    if request.losses >= routing.losses:
        raise Exhausted(f"{request.losses} replicas were lost while they had the request, which may be the reason: {error}") from error  # fmt: skip
