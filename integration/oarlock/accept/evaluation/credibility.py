"""Whether errors, tests and forecasts hold on real scores, by drawing items anew.

The items of a run stand for all items that there could be, so that the truth is known: their own mean.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from oarlock.llm.eval.result import TaskResult
from oarlock.llm.eval.statistics import compare, items_needed, mean

Floats = NDArray[np.float64]


def values_of(task: TaskResult) -> tuple[Floats, Floats, list[str] | None]:
    """Values, weights and clusters of a task's primary score."""
    pairs = np.array([item.values[task.primary] for item in task.items])
    clusters = [item.cluster for item in task.items] if task.clustered else None
    return pairs[:, 0], pairs[:, 1], clusters


def coverage(task: TaskResult, *, draws: int, seed: int) -> float:
    """How many 95 % intervals of samples as large as the task hold the mean of all its items."""
    values, weights, clusters = values_of(task)
    truth = float((values * weights).sum() / weights.sum())
    plain = bool((weights == weights[0]).all())
    rng = np.random.default_rng(seed)
    groups = _groups(clusters, len(values))
    held = 0
    for _ in range(draws):
        picks = [groups[i] for i in rng.integers(0, len(groups), len(groups))]
        rows = np.concatenate(picks)
        names = np.repeat(np.arange(len(picks)), [len(one) for one in picks])
        found = mean(
            values[rows].tolist(),
            weights=None if plain else weights[rows].tolist(),
            clusters=names.tolist() if clusters is not None else None,
        )
        held += found.low <= truth <= found.high
    return held / draws


def false_alarms(first: TaskResult, second: TaskResult, *, draws: int, seed: int) -> float:
    """How often the test finds a difference of two models whose answers are swapped at random, p < 0.05."""
    a, weights, clusters = values_of(first)
    b, _, _ = values_of(second)
    rng = np.random.default_rng(seed)
    groups = _groups(clusters, len(a))
    alarms = 0
    for _ in range(draws):
        swap = np.zeros(len(a), bool)
        for rows in groups:
            swap[rows] = rng.random() < 0.5
        x, y = np.where(swap, b, a), np.where(swap, a, b)
        found = compare(x.tolist(), y.tolist(), weights=weights.tolist(), clusters=clusters)
        alarms += found.p_value < 0.05
    return alarms / draws


def forecast(first: TaskResult, second: TaskResult) -> int | None:
    """Items that are said to show the two models' difference in 80 % of samples; None where they have none."""
    a, weights, _ = values_of(first)
    b, _, _ = values_of(second)
    found = compare(a.tolist(), b.tolist(), weights=weights.tolist())
    if found.difference == 0:
        return None
    return items_needed(abs(found.difference), variance=len(a) * found.standard_error**2)


def power(first: TaskResult, second: TaskResult, n: int, *, draws: int, seed: int) -> float:
    """How many samples of n items show the two models' difference, p < 0.05."""
    a, weights, _ = values_of(first)
    b, _, _ = values_of(second)
    plain = bool((weights == weights[0]).all())
    rng = np.random.default_rng(seed)
    seen = 0
    for _ in range(draws):
        rows = rng.integers(0, len(a), n)
        w: Sequence[float] | None = None if plain else weights[rows].tolist()
        seen += compare(a[rows].tolist(), b[rows].tolist(), weights=w).p_value < 0.05
    return seen / draws


def _groups(clusters: list[str] | None, n: int) -> list[NDArray[np.int64]]:
    """Rows that are drawn together."""
    if clusters is None:
        return list(np.arange(n)[:, None])
    names = np.array(clusters)
    return [np.flatnonzero(names == name) for name in dict.fromkeys(clusters)]
