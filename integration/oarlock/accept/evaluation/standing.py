"""The order of several models, and how sure it is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from oarlock.llm.eval import EvalResult, compare_task
from oarlock.llm.eval.statistics import Comparison, holm

SIGNIFICANT = 0.05
RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two models on the same items, the better one first.

    Args:
        comparison: first minus second, positive where the first is better.
        p_value, sign_p_value: of Student's and of the sign test, by Holm over all pairs.
    """

    better: str
    worse: str
    comparison: Comparison
    p_value: float
    sign_p_value: float

    @property
    def sure(self) -> bool:
        """Whether both tests say so."""
        return max(self.p_value, self.sign_p_value) < SIGNIFICANT


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Models from the best to the worst, with their scores, and all pairs."""

    order: tuple[str, ...]
    scores: Mapping[str, float]
    pairs: tuple[Pair, ...]

    def pair(self, better: str, worse: str) -> Pair:
        """The pair of two models, in this order or the other."""
        [found] = [one for one in self.pairs if {one.better, one.worse} == {better, worse}]
        return found

    def adjacent(self) -> list[Pair]:
        """Pairs of neighbours."""
        return [self.pair(a, b) for a, b in zip(self.order, self.order[1:])]


def rank(results: Mapping[str, EvalResult], task: str) -> Standing:
    """Order models by a task's score, and test all pairs."""
    estimates = {name: result.tasks[task].estimate() for name, result in results.items()}
    scores = {name: one.value for name, one in estimates.items() if one is not None}
    sign = next(iter(results.values())).tasks[task].sign
    order = tuple(sorted(scores, key=lambda name: -sign * scores[name]))
    names = [(a, b) for i, a in enumerate(order) for b in order[i + 1 :]]
    found = [compare_task(results[a], results[b], task) for a, b in names]
    adjusted = holm([one.p_value for one in found])
    adjusted_sign = holm([one.sign_p_value for one in found])
    pairs = tuple(
        Pair(better=a, worse=b, comparison=one, p_value=p, sign_p_value=q)
        for (a, b), one, p, q in zip(names, found, adjusted, adjusted_sign)
    )
    return Standing(order=order, scores=scores, pairs=pairs)


def agreement(
    results: Mapping[str, EvalResult], task: str, expected: Sequence[str], *, seed: int
) -> tuple[float, float, float]:
    """Kendall's rank correlation of the scores with an expected order, and its 95 % interval over items."""
    values_MN, weights_N, sign = _values(results, task, expected)
    rng = np.random.default_rng(seed)

    def tau(picked: np.ndarray) -> float:
        w = weights_N[picked]
        scores = sign * (values_MN[:, picked] * w).sum(-1) / w.sum()
        found = stats.kendalltau(-np.arange(len(expected)), scores).statistic
        return 0.0 if math.isnan(found) else round(float(found), 12)

    n = len(weights_N)
    drawn = [tau(rng.integers(0, n, n)) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return tau(np.arange(n)), float(low), float(high)


def _values(
    results: Mapping[str, EvalResult], task: str, names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, int]:
    rows, weights = [], np.ones(0)
    for name in names:
        found = results[name].tasks[task]
        pairs = np.array([item.values[found.primary] for item in found.items])
        rows.append(pairs[:, 0])
        weights = pairs[:, 1]
    return np.stack(rows), weights, results[names[0]].tasks[task].sign
