"""How long a worker computes one gradient: given distributions, or what was measured."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from .. import _checks


class Delays(Protocol):
    """Seconds that the next gradient of a worker takes."""

    @property
    def workers(self) -> int | None:
        """How many workers it describes; None for any number of equal ones."""

    def sample(self, worker: int, rng: np.random.Generator) -> float:
        """Seconds, >= 0, of one computation of this worker."""

    def mean(self, worker: int) -> float:
        """Expected seconds of this worker; infinite for the heaviest tails."""


def _seconds(name: str, value, *, open_low: bool = False) -> float | tuple[float, ...]:
    """One number for all workers, or a tuple with one for each."""
    if isinstance(value, (tuple, list, np.ndarray)):
        if not len(value):
            raise ValueError(f"{name} is empty; give seconds for at least one worker.")
        return tuple(
            _checks.real(
                f"{name}[{i}]", _plain(v), 0.0, math.inf, open_low=open_low, open_high=True
            )
            for i, v in enumerate(value)
        )
    return _checks.real(name, _plain(value), 0.0, math.inf, open_low=open_low, open_high=True)


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _PerWorker:
    """A scale in seconds, for all workers alike or for each."""

    seconds: float | tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", _seconds("seconds", self.seconds))

    @property
    def workers(self) -> int | None:
        return len(self.seconds) if isinstance(self.seconds, tuple) else None

    def _scale(self, worker: int) -> float:
        return self.seconds[worker] if isinstance(self.seconds, tuple) else self.seconds


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fixed(_PerWorker):
    """Every gradient of worker i takes ``seconds[i]``, or ``seconds`` if that is one number.

    Args:
        seconds: >= 0, one number or one for each worker.
    """

    def sample(self, worker: int, rng: np.random.Generator) -> float:
        return self._scale(worker)

    def mean(self, worker: int) -> float:
        return self._scale(worker)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Exponential(_PerWorker):
    """Exponential with mean ``seconds``: a memoryless worker."""

    def sample(self, worker: int, rng: np.random.Generator) -> float:
        return self._scale(worker) * rng.standard_exponential()

    def mean(self, worker: int) -> float:
        return self._scale(worker)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LogNormal(_PerWorker):
    r"""Median ``seconds``, and :math:`\log` of the delay with standard deviation ``sigma`` >= 0."""

    sigma: float

    def __post_init__(self) -> None:
        _PerWorker.__post_init__(self)
        _checks.non_negative("sigma", self.sigma)

    def sample(self, worker: int, rng: np.random.Generator) -> float:
        return self._scale(worker) * math.exp(self.sigma * rng.standard_normal())

    def mean(self, worker: int) -> float:
        return self._scale(worker) * math.exp(self.sigma**2 / 2)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pareto(_PerWorker):
    r"""Heavy tail: :math:`P(\text{delay} > t) = (\text{seconds} / t)^{\text{shape}}`, t >= seconds.

    Args:
        seconds: least delay, one number or one for each worker.
        shape: > 0; at most 1 has no finite mean, at most 2 no finite variance.
    """

    shape: float

    def __post_init__(self) -> None:
        _PerWorker.__post_init__(self)
        _checks.real("shape", self.shape, 0.0, math.inf, open_low=True, open_high=True)

    def sample(self, worker: int, rng: np.random.Generator) -> float:
        return self._scale(worker) * (1 - rng.random()) ** (-1 / self.shape)

    def mean(self, worker: int) -> float:
        if self.shape <= 1:
            return math.inf
        return self._scale(worker) * self.shape / (self.shape - 1)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Draws from times that were measured, for each worker its own.

    Args:
        trace: for each worker, seconds of at least one computation; for example ``Trace.seconds``
            of a run over real processes.
    """

    trace: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if isinstance(self.trace, (str, bytes)) or not isinstance(self.trace, Sequence):
            raise ValueError(
                "trace must hold a sequence of seconds for each worker, "
                f"got {_checks.shown(self.trace)}."
            )
        if not self.trace:
            raise ValueError("trace is empty; give the times of at least one worker.")
        checked = []
        for i, times in enumerate(self.trace):
            seconds = _seconds(f"trace[{i}]", times)
            checked.append(seconds if isinstance(seconds, tuple) else (seconds,))
        object.__setattr__(self, "trace", tuple(checked))

    @property
    def workers(self) -> int:
        return len(self.trace)

    def sample(self, worker: int, rng: np.random.Generator) -> float:
        times = self.trace[worker]
        return times[int(rng.integers(len(times)))]

    def mean(self, worker: int) -> float:
        return sum(self.trace[worker]) / len(self.trace[worker])


def power_law(workers: int, exponent: float, *, fastest: float = 1.0) -> Fixed:
    r"""Fixed delays :math:`\tau_i = \text{fastest} \cdot i^{\text{exponent}}`, i = 1 … workers.

    Exponent 0 makes all workers equal, 1/2 and 1 are the spreads used in the literature.
    """
    count = _checks.whole("workers", workers, 1)
    _checks.non_negative("exponent", exponent)
    _checks.real("fastest", fastest, 0.0, math.inf, open_low=True, open_high=True)
    return Fixed(seconds=tuple(fastest * i**exponent for i in range(1, count + 1)))
