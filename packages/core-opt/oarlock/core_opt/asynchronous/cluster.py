"""Workers on a simulated clock: the events of a run in their order, real gradients, no waiting."""

import collections
import heapq
from collections.abc import Callable

import numpy as np

from .. import _checks
from .delays import Delays
from .server import Oracle, Server, Trace, Until, check_workers, streams
from .strategies import Strategy, Vector


class Cluster:
    """Workers of given speeds around one server; communication takes no time.

    The order of events is that of their times, and of their beginning where times are equal, so
    that a run is the same bits for the same seed. Gradients that are discarded are not computed.

    Args:
        delays: seconds of a gradient, for each worker.
        workers: how many; None if ``delays`` say so.
        seed: of delays and gradients, an integer >= 0.
    """

    def __init__(self, delays: Delays, *, workers: int | None = None, seed: int = 0):
        if not callable(getattr(delays, "sample", None)):
            raise ValueError(
                f"delays must be a distribution such as Fixed(seconds=1.0), "
                f"got {_checks.shown(delays)}."
            )
        self.delays = delays
        self.workers = check_workers(workers, delays)
        self.seed = _checks.whole("seed", seed, 0)

    def run(
        self,
        strategy: Strategy,
        oracle: Oracle,
        parameters: Vector,
        *,
        until: Until,
        observe: Callable[[Vector], float] | None = None,
        every: int = 1,
    ) -> Trace:
        """Run a strategy from ``parameters`` [d] until it is done.

        Args:
            strategy: what the server does with gradients.
            oracle: where gradients come from.
            parameters: where to begin, [d]; left as they are.
            until: when to end.
            observe: a value of the parameters to record, such as the norm of the true gradient.
            every: updates between observations.

        Raises:
            ValueError: arguments that do not fit each other, or delays below 0.
        """
        server = Server(strategy, parameters, self.workers, until, observe, every)
        instant = sum(not self.delays.mean(worker) for worker in range(self.workers))
        enough = (strategy.gradients or self.workers) if strategy.waits else 1
        if until.updates is None and instant >= enough:
            raise ValueError(
                f"until needs updates where the delays of {instant} of {self.workers} workers are "
                "0: they alone make one update after the other, and no time passes."
            )
        rngs = streams(self.seed, self.workers)
        sample, horizon = self.delays.sample, until.seconds
        tokens = [0] * self.workers  # a computation is current while its token is
        begun: list[tuple[int, Vector, float]] = [(0, server.parameters, 0.0)] * self.workers
        events: list[tuple[float, int, int]] = []  # (finish, token, worker)
        by_version: collections.deque[tuple[int, int, int]] = collections.deque()
        idle: list[int] = []
        begins, now = 0, 0.0

        def begin(worker: int) -> None:
            nonlocal begins
            begins += 1
            tokens[worker] = begins
            begun[worker] = (server.version, server.parameters, now)
            seconds = sample(worker, rngs[worker][0])
            if not seconds >= 0:
                raise ValueError(f"delays must be >= 0, got {seconds} for worker {worker}.")
            heapq.heappush(events, (now + seconds, begins, worker))
            if strategy.stops:
                by_version.append((server.version, worker, begins))

        for worker in range(self.workers):
            begin(worker)
        while not server.done:
            finish, token, worker = heapq.heappop(events)
            if tokens[worker] != token:  # stopped meanwhile
                continue
            if horizon is not None and finish > horizon:
                now = horizon
                break
            now = finish
            version, then, since = begun[worker]
            server.trace.seconds[worker].append(now - since)

            def gradient(worker=worker, then=then) -> Vector:
                return oracle.gradient(then, worker, rngs[worker][1])

            changed = server.take(worker, version, then, gradient, now)
            tokens[worker] = 0
            if not strategy.waits or changed or version < server.version:
                begin(worker)
            else:
                idle.append(worker)
            if changed:
                while idle:
                    begin(idle.pop(0))
                if strategy.stops and strategy.limit is not None:
                    oldest = server.version - strategy.limit
                    while by_version and by_version[0][0] <= oldest:
                        _, late, token = by_version.popleft()
                        if tokens[late] == token:
                            server.trace.stopped += 1
                            begin(late)
        return server.finish(now)


def time_gradients(
    oracle: Oracle, parameters: Vector, *, repetitions: int = 20, seed: int = 0
) -> tuple[float, ...]:
    """Seconds of single gradients in this process, after one that is not counted.

    ``Measured(trace=(time_gradients(...),) * workers)`` makes a cluster of such workers.
    """
    import time

    rng = np.random.default_rng(_checks.whole("seed", seed, 0))
    seconds = []
    for _ in range(_checks.whole("repetitions", repetitions, 1) + 1):
        began = time.perf_counter()
        oracle.gradient(parameters, 0, rng)
        seconds.append(time.perf_counter() - began)
    return tuple(seconds[1:])
