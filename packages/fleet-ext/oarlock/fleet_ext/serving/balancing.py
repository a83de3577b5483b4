"""Which replica gets a request: the one with the fewest, of those that are ready."""

import asyncio
import random
from collections import deque
from collections.abc import Collection, Mapping

from oarlock.fleet_ext.serving.records import Replica, Use
from oarlock.fleet_ext.serving.routing import Routing
from oarlock.fleet_ext.serving.upstream import Pool

_SHUN_S = (
    0.1,
    5.0,
)  #: for which a replica that failed gets nothing: the first time, and the longest


class Full(Exception):
    """Too many requests wait."""


class NoReplica(Exception):
    """No replica was free in time."""


class Target:
    """A replica, as a router uses it.

    Attributes:
        running: requests.
    """

    def __init__(self, replica: Replica, routing: Routing) -> None:
        self.replica = replica
        self.pool = Pool(replica.host, replica.port, connect=routing.connect_s)
        self.running = 0
        self._failures, self._shunned_until = 0, 0.0

    @property
    def id(self) -> str:
        return self.replica.id

    def shunned(self) -> float:
        """Seconds for which it gets nothing."""
        return max(0.0, self._shunned_until - asyncio.get_running_loop().time())

    def failed(self) -> None:
        """It could not be reached, or broke off."""
        pause = min(_SHUN_S[0] * 2**self._failures, _SHUN_S[1])
        self._failures = min(self._failures + 1, 16)
        self._shunned_until = asyncio.get_running_loop().time() + pause

    def answered(self) -> None:
        self._failures, self._shunned_until = 0, 0.0


class Balancer:
    """Belongs to one event loop."""

    def __init__(self, routing: Routing) -> None:
        self._routing = routing
        self._targets: dict[str, Target] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    @property
    def ready(self) -> int:
        """Replicas that get requests."""
        return sum(one.replica.state == "ready" for one in self._targets.values())

    def update(self, replicas: Mapping[str, Replica]) -> None:
        """Takes over what the store has. The requests of a replica that is no longer there are lost to it at once."""
        for id in self._targets.keys() - replicas.keys():
            self._targets.pop(id).pool.close()
        for id, replica in replicas.items():
            if id in self._targets:
                self._targets[id].replica = replica
            elif replica.state != "starting":
                self._targets[id] = Target(replica, self._routing)
        for _ in range(len(self._waiting)):
            self._wake()

    def uses(self) -> dict[str, Use]:
        """For the router's report."""
        return {one.id: Use(state=one.replica.state, running=one.running, quiet=round(one.pool.quiet()))
                for one in self._targets.values()}  # fmt: skip

    async def take(self, avoid: Collection[str] = ()) -> Target:
        """The replica for a request, which then runs there until `give_back`.

        Args:
            avoid: replicas to use only if there is no other.

        Raises:
            Full: too many requests wait already.
            NoReplica: none was free in time.
        """
        until = asyncio.get_running_loop().time() + self._routing.wait_s
        if not self._waiting and (target := self._choose(avoid)) is not None:
            return self._taken(target)
        if len(self._waiting) >= self._routing.queue:
            raise Full(f"{len(self._waiting)} requests wait already")
        first = False  # who was woken and found nothing waits in front again
        while True:
            turn = asyncio.get_running_loop().create_future()
            (self._waiting.appendleft if first else self._waiting.append)(turn)
            left = until - asyncio.get_running_loop().time()
            try:
                # A replica that is shunned comes back without a word.
                await asyncio.wait_for(turn, max(0.0, min(left, self._soonest())))
            except TimeoutError:
                pass
            except asyncio.CancelledError:
                if turn.done():  # it was this one's turn, which is now the next one's
                    self._wake()
                raise
            finally:
                if turn in self._waiting:
                    self._waiting.remove(turn)
            if (target := self._choose(avoid)) is not None:
                return self._taken(target)
            if asyncio.get_running_loop().time() >= until:
                raise NoReplica(f"no replica was free within {self._routing.wait_s:g} s")
            first = True

    def take_now(self, avoid: Collection[str]) -> Target | None:
        """Another replica, if one is free."""
        target = self._choose(avoid)
        return self._taken(target) if target is not None and target.id not in avoid else None

    def give_back(self, target: Target) -> None:
        """The request no longer runs there."""
        target.running -= 1
        self._wake()

    def close(self) -> None:
        self.update({})

    def _choose(self, avoid: Collection[str]) -> Target | None:
        free = [one for one in self._targets.values()
                if one.replica.state == "ready" and one.running < self._routing.most and not one.shunned()]  # fmt: skip
        others = [one for one in free if one.id not in avoid]
        return min(others or free, key=lambda one: (one.running, random.random()), default=None)

    def _taken(self, target: Target) -> Target:
        target.running += 1
        return target

    def _soonest(self) -> float:
        """Seconds until a replica that is shunned may be used again."""
        return min((pause for one in self._targets.values() if (pause := one.shunned())), default=60.0) + 1e-3  # fmt: skip

    def _wake(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
