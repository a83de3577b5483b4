"""Two models on the same items."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from oarlock.llm.eval.statistics.errors import mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """First minus second.

    Args:
        difference: of the means.
        standard_error: of the difference, paired and clustered.
        low, high: its confidence interval.
        p_value: of no difference, by Student's test of the paired differences.
        better, worse: items on which the first is above and below.
        sign_p_value: of as many of either, exactly (for right and wrong: McNemar's exact test).
        correlation: of the two models' scores over items; NaN where one of them never changes.
        n: number of items.
    """

    difference: float
    standard_error: float
    low: float
    high: float
    p_value: float
    better: int
    worse: int
    sign_p_value: float
    correlation: float
    n: int


def compare(
    first: Sequence[float],
    second: Sequence[float],
    *,
    weights: Sequence[float] | None = None,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
) -> Comparison:
    """Paired difference of two models' scores on the same items in the same order.

    Pairing removes what items have in common: the variance of the difference is
    σ_a² + σ_b² - 2 ρ σ_a σ_b, and models mostly find the same items hard. With clusters, the sign test, which takes
    items for independent, is made of the clusters' sums.

    Raises:
        ValueError: the scores are not as many.

    Source: Miller, arXiv 2411.00640, section 4.2; McNemar 1947.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"second must have as many scores as first, got {b.shape} for {a.shape}.")
    # an interval for differences: Wilson's is for shares, and differences of 0 and 1 alone look like one
    estimate = mean((a - b).tolist(), weights=weights, clusters=clusters, confidence=confidence)
    error = estimate.standard_error
    if math.isnan(error):
        low = high = p_value = math.nan
    else:
        dof = estimate.clusters - 1
        half = float(stats.t.ppf(0.5 + confidence / 2, dof)) * error
        low, high = estimate.value - half, estimate.value + half
        if error > 0:
            p_value = float(2 * stats.t.sf(abs(estimate.value) / error, dof))
        else:
            p_value = 1.0 if estimate.value == 0 else 0.0
    better, worse = int((a > b).sum()), int((a < b).sum())
    up, down = better, worse
    if clusters is not None:
        sums: dict[Hashable, float] = {}
        for cluster, change in zip(clusters, a - b):
            sums[cluster] = sums.get(cluster, 0.0) + float(change)
        up = sum(change > 1e-12 for change in sums.values())
        down = sum(change < -1e-12 for change in sums.values())
    varies = len(a) > 1 and a.std() > 0 and b.std() > 0
    return Comparison(
        difference=estimate.value,
        standard_error=error,
        low=low,
        high=high,
        p_value=p_value,
        better=better,
        worse=worse,
        sign_p_value=float(stats.binomtest(up, up + down).pvalue) if up + down else 1.0,
        correlation=float(np.corrcoef(a, b)[0, 1]) if varies else math.nan,
        n=len(a),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests at once, so that one false alarm among all is as rare as one alone. Source: Holm 1979."""
    order = np.argsort(p_values)
    out, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * float(p_values[index])))
        out[int(index)] = largest
    return out
