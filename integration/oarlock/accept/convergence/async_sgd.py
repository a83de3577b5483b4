"""Strategies of asynchronous SGD raced on a simulated cluster, each with its own best step size.

A run ends at the first look that finds the exact squared norm of the gradient at the target or
below. No mean of several looks is asked for: it would cost those most whose updates are rare.
"""

import csv
import gzip
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from oarlock.core_opt.asynchronous import (
    Asynchronous,
    Cluster,
    DelayCompensated,
    Processes,
    Rennala,
    Ringmaster,
    Strategy,
    Synchronous,
    Trace,
    Until,
    bounds,
    delays,
    problems,
)

DATA = "tabular/uci_ctr"
TUNING_SEEDS = (1000, 1001, 1002)  #: not among the seeds of the experiment
GROWTH = 1e3  #: a squared gradient that has grown by this counts as diverged
PATIENCE = 20_000  #: updates after which a run is given up
DRAWS = 200  #: rounds of random delays from which the mean of the m-th arrival is taken


class Problem(Protocol):
    """What is minimised: gradients, and the constants that the theory asks for."""

    smoothness: float

    def gradient(self, parameters: np.ndarray, worker: int, rng: np.random.Generator) -> np.ndarray:
        """A stochastic gradient."""

    def squared_norm(self, parameters: np.ndarray) -> float:
        """Squared norm of the true gradient."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A problem, where it begins, and when it is solved."""

    problem: Problem
    dimension: int
    gap: float  #: f at the start less its minimum
    variance: float  #: of a stochastic gradient, at the start
    target: float  #: squared norm of the gradient

    @property
    def threshold(self) -> int:
        return bounds.threshold(variance=self.variance, target=self.target)

    def lower_bound(self, given: delays.Delays) -> float:
        """Seconds, with the mean delay of each worker for the constant one of the theorem."""
        return bounds.lower_bound(
            tuple(means(given)),
            smoothness=self.problem.smoothness,
            gap=self.gap,
            variance=self.variance,
            target=self.target,
        )


def chain_task(*, dimension: int, target: float, noise_ratio: float) -> Task:
    """The quadratic of the lower bounds, with the variance ``noise_ratio * target``."""
    variance = noise_ratio * target
    chain = problems.Chain(dimension, noise=math.sqrt(variance))
    return Task(
        problem=chain, dimension=dimension, gap=-chain.minimum, variance=variance, target=target
    )


#: What `profiles` are, in words.
PROFILES = {
    "equal": "every gradient takes 1 s",
    "square root": "those of worker i always take sqrt(i) s",
    "linear": "those of worker i always take i s",
    "log-normal": "those of a worker always take the same time, drawn once for each worker: exp(1.5 z)"
    " with a normal z, in units of the fastest",
    "random": "each gradient of worker i takes a time of its own: log-normal with the mean i s and a"
    " standard deviation of the logarithm of 1",
}


def profiles(workers: int) -> dict[str, delays.Delays]:
    """Delays by the names of ``PROFILES``: four of speed, and one where every delay is random."""
    number = np.arange(1, workers + 1.0)
    drawn = np.exp(1.5 * np.random.default_rng(0).standard_normal(workers))
    return {
        "equal": delays.Fixed(seconds=(1.0,) * workers),
        "square root": delays.power_law(workers, 0.5),
        "linear": delays.power_law(workers, 1.0),
        "log-normal": delays.Fixed(seconds=tuple(np.sort(drawn / drawn.min()))),
        "random": delays.LogNormal(seconds=tuple(number * math.exp(-0.5)), sigma=1.0),
    }


def _workers(given: delays.Delays) -> range:
    if given.workers is None:
        raise ValueError("delays must describe each worker; give seconds as a tuple.")
    return range(given.workers)


def means(given: delays.Delays) -> np.ndarray:
    """Expected seconds of a gradient of each worker, [n]."""
    return np.array([given.mean(worker) for worker in _workers(given)])


def arrivals(given: delays.Delays) -> np.ndarray:
    """Expected seconds at which the first, second, … gradient of a round is there, [n]."""
    rng, workers = np.random.default_rng(0), _workers(given)
    rounds = [[given.sample(worker, rng) for worker in workers] for _ in range(DRAWS)]
    return np.sort(rounds, axis=1).mean(axis=0)


#: A strategy of a step size.
Build = Callable[[float], Strategy]


def arms(task: Task, given: delays.Delays) -> dict[str, Build]:
    """What is compared. Only the step size is tuned; thresholds and numbers are those of theory."""
    threshold = task.threshold
    fastest = best_round(arrivals(given), threshold)
    return {
        "ringmaster": lambda lr: Ringmaster(lr, threshold=threshold, stops=False),
        "synchronous": Synchronous,
        "fastest": lambda lr: Synchronous(lr, gradients=fastest),
        "rennala": lambda lr: Rennala(lr, gradients=threshold),
        "asynchronous": Asynchronous,
        "compensated": DelayCompensated,
    }


def best_round(seconds: np.ndarray, noise_ratio: float) -> int:
    """m at which waiting for the m first takes least by theory: tau_m (1 + sigma^2 / (m eps)).

    Args:
        seconds: tau_m at which the m-th gradient of a round is there, [n], in any order.
    """
    taus, counts = np.sort(seconds), np.arange(1, len(seconds) + 1)
    return int(np.argmin(taus * (1 + noise_ratio / counts))) + 1


def run(
    task: Task, build: Build, given: delays.Delays, *, step: float, seed: int, at_most: float
) -> Trace:
    """One run to the target, given up after ``at_most`` simulated seconds.

    The norm is looked at after every update that is a mean of gradients, and else after as many as
    a quarter of the threshold, which finds the end a little late.
    """
    start = np.zeros(task.dimension)
    limit = GROWTH * task.problem.squared_norm(start)
    strategy = build(step)

    def observe(parameters: np.ndarray) -> float:
        value = task.problem.squared_norm(parameters)
        return value if value < limit else math.inf

    with np.errstate(over="ignore", invalid="ignore"):
        return Cluster(given, seed=seed).run(
            strategy,
            task.problem,
            start,
            until=Until(seconds=at_most, updates=PATIENCE, value=task.target),
            observe=observe,
            every=1 if strategy.limit == 1 else max(1, task.threshold // 4),
        )


@dataclass(slots=True, kw_only=True)
class Tuned:
    """The step size at which a strategy is fastest, with all trials: step size -> seconds."""

    step: float
    seconds: float  #: mean over the seeds of the tuning
    trials: Mapping[float, float | None] = field(default_factory=dict)


def tune(task: Task, build: Build, given: delays.Delays, *, patience: float) -> Tuned:
    """The best step size of the grid 2^(k/2) / L: from above by factors of 4 to the first that
    arrives, then to a faster one of the two nearest on each side until there is none.

    Seconds are the mean over ``TUNING_SEEDS``, since one seed favours steps that are lucky once. A
    trial is given up as soon as it is slower than the best one before, which changes no result.

    Args:
        patience: simulated seconds after which a run counts as not arriving.
    """
    trials: dict[int, float] = {}

    def total(step: float, best: float) -> float:
        spent = 0.0
        for seed in TUNING_SEEDS:
            left = min(best - spent, patience)
            if left <= 0:
                return math.inf
            found = run(task, build, given, step=step, seed=seed, at_most=left)
            if found.reached is None:
                return math.inf
            spent += found.reached
        return spent

    def trial(k: int) -> float:
        if k not in trials:
            best = min(trials.values(), default=math.inf)
            trials[k] = total(2 ** (k / 2) / task.problem.smoothness, best)
        return trials[k]

    here = 1  # a step of sqrt(2) / L; nothing beyond 2 / L is stable
    while trial(here) == math.inf and here > -40:
        here -= 4  # it diverges
    moved = True
    while moved:
        moved = False
        for change in (1, -1, 2, -2):  # noise may hide a better one behind the neighbour
            while trial(here + change) < trial(here):
                here, moved = here + change, True
    seeds = len(TUNING_SEEDS)
    steps = {2 ** (k / 2) / task.problem.smoothness: _finite(t / seeds) for k, t in trials.items()}
    step = 2 ** (here / 2) / task.problem.smoothness
    return Tuned(step=step, seconds=trials[here] / seeds, trials=steps)


def times(
    task: Task, build: Build, given: delays.Delays, tuned: Tuned, seeds: list[int]
) -> list[float]:
    """Seconds to the target for each seed; ten times the tuning's where a run does not arrive."""
    at_most = 10 * tuned.seconds
    found = [run(task, build, given, step=tuned.step, seed=seed, at_most=at_most) for seed in seeds]
    return [at_most if one.reached is None else one.reached for one in found]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


class Census:
    r"""Logistic regression on the Adult census table, with the L2 weight ``decay``.

    .. math::
        f(w) = \tfrac1n \sum_i \log(1 + e^{-y_i x_i^\top w}) + \tfrac{\lambda}{2} \|w\|^2

    Numbers are standardised, categories are one-hot and rows scaled to the norm 1, so that
    :math:`L = \lambda_{\max}(X^\top X) / (4n) + \lambda` is small; a gradient takes ``batch`` rows.
    """

    def __init__(self, table: Path, *, batch: int, decay: float = 1e-3):
        with gzip.open(table, "rt", encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
        label = np.array([row["income-per-year"].strip().startswith(">") for row in rows])
        columns = []
        for name in rows[0]:
            if name == "income-per-year":
                continue
            values = [row[name].strip() for row in rows]
            try:
                numbers = np.array(values, np.float64)
                columns.append(((numbers - numbers.mean()) / numbers.std())[:, None])
            except ValueError:
                kinds, index = np.unique(values, return_inverse=True)
                columns.append(np.eye(len(kinds))[index])
        features = np.concatenate([*columns, np.ones([len(rows), 1])], axis=1)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        self.signed = features * np.where(label, 1.0, -1.0)[:, None]  # y x, [n, d]
        self.batch, self.decay = batch, decay
        n, self.dimension = self.signed.shape
        top = np.linalg.eigvalsh(self.signed.T @ self.signed)[-1]
        self.smoothness = float(top / (4 * n) + decay)

    def _mean_gradient(self, rows: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        weight = -1 / (1 + np.exp(np.clip(rows @ parameters, -500, 500)))
        return weight @ rows / len(rows) + self.decay * parameters

    def gradient(self, parameters: np.ndarray, worker: int, rng: np.random.Generator) -> np.ndarray:
        """Of ``batch`` rows, drawn with replacement."""
        picks = rng.integers(0, len(self.signed), self.batch)
        return self._mean_gradient(self.signed[picks], parameters)

    def squared_norm(self, parameters: np.ndarray) -> float:
        """Over all rows."""
        gradient = self._mean_gradient(self.signed, parameters)
        return float(gradient @ gradient)

    def value(self, parameters: np.ndarray) -> float:
        """f(w)."""
        losses = np.logaddexp(0.0, -(self.signed @ parameters))
        return float(losses.mean() + self.decay / 2 * parameters @ parameters)

    def variance(self, parameters: np.ndarray) -> float:
        """Of a stochastic gradient: the spread over single rows, over ``batch``."""
        weight = -1 / (1 + np.exp(self.signed @ parameters))
        mean = weight @ self.signed / len(self.signed)
        squares = np.square(weight) * np.square(self.signed).sum(axis=1)
        return float((squares.mean() - mean @ mean) / self.batch)


def census_task(folder: Path, *, batch: int, target: float) -> Task:
    """Adult, from zero; the minimum is that of accelerated gradient descent, to many digits."""
    census = Census(folder / "adult.csv.gz", batch=batch)
    start = np.zeros(census.dimension)
    x, before, step = start, start, 1 / census.smoothness
    for k in range(300):
        y = x + k / (k + 3) * (x - before)
        before, x = x, y - step * census._mean_gradient(census.signed, y)
    return Task(
        problem=census,
        dimension=census.dimension,
        gap=census.value(start) - census.value(x),
        variance=census.variance(start),
        target=target,
    )


def chain_oracle(dimension: int, noise: float, worker: int) -> problems.Chain:
    """The oracle of a worker process."""
    return problems.Chain(dimension, noise=noise)


def over_processes(
    task: Task, build: Build, given: delays.Delays, *, step: float, seed: int
) -> tuple[float | None, float | None]:
    """Seconds to the target over real processes that wait out their delays, and simulated."""
    chain = task.problem
    if not isinstance(chain, problems.Chain):
        raise ValueError(f"the workers build a Chain, not {type(chain).__name__}.")
    strategy, start = build(step), np.zeros(task.dimension)
    until = Until(seconds=60.0, value=task.target)
    options: dict[str, Any] = {"until": until, "observe": chain.squared_norm}
    oracle = partial(chain_oracle, task.dimension, chain.noise)
    with Processes(oracle, delays=given, seed=seed) as processes:
        real = processes.run(strategy, start, **options)
    model = Cluster(given, seed=seed).run(strategy, chain, start, **options)
    return real.reached, model.reached
