"""The server's side of a run, whatever the clock: parameters, their version, what is recorded."""

import collections
import dataclasses
import math
from collections.abc import Callable
from typing import Protocol

import numpy as np

from .. import _checks
from .delays import Delays
from .strategies import Strategy, Vector


class Oracle(Protocol):
    """Where gradients come from."""

    def gradient(self, parameters: Vector, worker: int, rng: np.random.Generator) -> Vector:
        """A stochastic gradient at ``parameters`` [d], which it must not change."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Until:
    """When a run ends: at whatever comes first.

    Args:
        seconds: on the clock of the run.
        updates: of the parameters.
        value: the mean of the last ``window`` observed values is at most this.
        window: observed values that count; more of them make a lucky value count less.
    """

    seconds: float | None = None
    updates: int | None = None
    value: float | None = None
    window: int = 1

    def __post_init__(self) -> None:
        if self.seconds is None and self.updates is None:
            raise ValueError("until needs seconds or updates, or the run might never end.")
        if self.seconds is not None:
            _checks.real("seconds", self.seconds, 0.0, math.inf, open_low=True, open_high=True)
        if self.updates is not None:
            _checks.whole("updates", self.updates, 1)
        if self.value is not None:
            _checks.real("value", self.value, -math.inf, math.inf, open_low=True, open_high=True)
        _checks.whole("window", self.window, 1)


@dataclasses.dataclass(slots=True, kw_only=True)
class Trace:
    """What a run did.

    Args:
        parameters: at the end, [d].
        seconds_used: on the clock of the run, at the end.
        reached: seconds at which ``until.value`` was reached; None if it was not.
        diverged: whether an observed value, or at the end a parameter, was not finite.
        updates: of the parameters.
        applied: gradients that counted.
        discarded: gradients that came too late.
        stopped: computations stopped since they would have come too late.
        delays: how many gradients that counted had each delay.
        seconds: for each worker, how long its finished computations took.
        times, values: observations, the first at the start.
    """

    parameters: Vector
    seconds_used: float = 0.0
    reached: float | None = None
    diverged: bool = False
    updates: int = 0
    applied: int = 0
    discarded: int = 0
    stopped: int = 0
    delays: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    seconds: list[list[float]] = dataclasses.field(default_factory=list)
    times: list[float] = dataclasses.field(default_factory=list)
    values: list[float] = dataclasses.field(default_factory=list)


class Server:
    """Holds the parameters, hands gradients to the strategy and records what happens.

    Parameters are replaced, never changed in place, so that whoever began at an old version may
    keep it.
    """

    def __init__(
        self,
        strategy: Strategy,
        parameters: Vector,
        workers: int,
        until: Until,
        observe: Callable[[Vector], float] | None,
        every: int,
    ):
        if not isinstance(strategy, Strategy):
            raise ValueError(f"strategy must be a Strategy, got {_checks.shown(strategy)}.")
        if not isinstance(until, Until):
            raise ValueError(f"until must be an Until(...), got {_checks.shown(until)}.")
        if not isinstance(parameters, np.ndarray) or parameters.dtype.kind != "f":
            raise ValueError(
                "parameters must be a NumPy array of floating-point numbers, "
                f"got {_checks.shown(parameters)}."
            )
        if until.value is not None and observe is None:
            raise ValueError("until.value needs observe, the function that gives the value.")
        self._every = _checks.whole("every", every, 1)
        self.strategy, self._until, self._observe = strategy, until, observe
        strategy.reset(workers)
        self.parameters = parameters.copy()
        self.done = False
        self.trace = Trace(parameters=self.parameters, seconds=[[] for _ in range(workers)])
        self._record(0.0)

    @property
    def version(self) -> int:
        """Number of updates so far."""
        return self.trace.updates

    def take(
        self, worker: int, version: int, then: Vector, gradient: Callable[[], Vector], now: float
    ) -> bool:
        """Take a gradient begun at ``version``; returns whether the parameters changed.

        Args:
            gradient: gives the gradient; called only if it counts.
            now: seconds.

        Raises:
            ValueError: the gradient does not fit the parameters.
        """
        trace = self.trace
        delay = self.version - version
        if not self.strategy.accepts(delay):
            trace.discarded += 1
            return False
        trace.applied += 1
        trace.delays[delay] += 1
        found = gradient()
        check_gradient(found, self.parameters, worker)
        new = self.strategy.apply(self.parameters, found, worker=worker, then=then)
        if new is None:
            return False
        self.parameters = new
        trace.updates += 1
        if trace.updates % self._every == 0:
            self._record(now)
        if self._until.updates is not None and trace.updates >= self._until.updates:
            self.done = True
        return True

    def _record(self, now: float) -> None:
        if self._observe is None:
            return
        trace, until = self.trace, self._until
        value = float(self._observe(self.parameters))
        trace.times.append(now)
        trace.values.append(value)
        if not math.isfinite(value):
            trace.diverged = self.done = True
        elif until.value is not None and len(trace.values) >= until.window:
            if sum(trace.values[-until.window :]) / until.window <= until.value:
                trace.reached, self.done = now, True

    def finish(self, now: float) -> Trace:
        """The record of the run, which ends now."""
        self.trace.seconds_used = now
        self.trace.parameters = self.parameters
        if not np.isfinite(self.parameters).all():
            self.trace.diverged = True
        return self.trace


def streams(seed: int, workers: int) -> list[tuple[np.random.Generator, np.random.Generator]]:
    """For each worker, a generator for its delays and one for its gradients.

    The same for a simulated and a real run, so that both compute the same gradients.
    """
    children = np.random.SeedSequence(_checks.whole("seed", seed, 0)).spawn(2 * workers)
    rngs = [np.random.Generator(np.random.SFC64(child)) for child in children]
    return list(zip(rngs[::2], rngs[1::2]))


def check_gradient(gradient: Vector, parameters: Vector, worker: int) -> None:
    """Raise ValueError for a gradient that would change the shape or the dtype of the parameters."""
    if not isinstance(gradient, np.ndarray):
        raise ValueError(
            f"the gradient of worker {worker} must be a NumPy array, got {_checks.shown(gradient)}."
        )
    if gradient.shape != parameters.shape:
        raise ValueError(
            f"the gradient of worker {worker} must have the shape of the parameters, "
            f"{parameters.shape}, got {gradient.shape}."
        )
    if np.result_type(gradient.dtype, parameters.dtype) != parameters.dtype:
        raise ValueError(
            f"the gradient of worker {worker} is {gradient.dtype}, but the parameters are "
            f"{parameters.dtype}; return gradient.astype(parameters.dtype)."
        )


def check_workers(workers: int | None, delays: Delays | None) -> int:
    """The number of workers, from the argument or from the delays."""
    described = None if delays is None else delays.workers
    if workers is None:
        if described is None:
            raise ValueError("workers must be given, since delays are the same for any number.")
        return described
    workers = _checks.whole("workers", workers, 1)
    if described is not None and described != workers:
        raise ValueError(
            f"workers is {workers}, but delays describe {described}; leave workers out."
        )
    return workers
