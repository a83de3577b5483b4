"""How many requests are worked on, how many wait, and how the last ones end."""

import asyncio
import collections

from oarlock.llm.server.errors import busy, stopping
from oarlock.llm.server.limits import Limits


class Gate:
    """Lets requests in by turns, in the order in which they came.

    Args:
        limits: ``concurrency``, ``queue``, ``retry_after_s``.
    """

    def __init__(self, limits: Limits):
        self._limits = limits
        self._turns: collections.deque[asyncio.Future[None]] = collections.deque()
        self._empty = asyncio.Event()
        self._empty.set()
        self.running = 0
        self.stopping = False

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self._turns)

    async def enter(self) -> None:
        """Wait for a turn; `leave` must follow.

        Raises:
            APIError: 429, too many wait; 503, the server stops.
        """
        if self.stopping:
            raise self._stopping()
        if self.running < self._limits.concurrency:
            self.running += 1
            self._empty.clear()
            return
        if self.waiting >= self._limits.queue:
            raise busy(
                f"{self.running} requests are running and {self.waiting} waiting, as many as may: "
                "try again later.",
                retry_after_s=self._limits.retry_after_s,
            )
        turn = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave()  # the turn came in the moment of the cancellation
            elif turn in self._turns:
                self._turns.remove(turn)
            raise

    def leave(self) -> None:
        """End a turn, and begin the next."""
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1
        if not self.running:
            self._empty.set()

    def turn_away(self) -> None:
        """Refuse those that wait for their turn, and all who come."""
        self.stopping = True
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_exception(self._stopping())

    async def emptied(self, timeout_s: float) -> bool:
        """Wait until all are out; whether they were within ``timeout_s`` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    def _stopping(self) -> Exception:
        return stopping("The server is shutting down.", retry_after_s=self._limits.retry_after_s)
