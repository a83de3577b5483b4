"""Means with standard errors, for items that may share a source."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean and what is known of its error.

    Args:
        value: the mean.
        standard_error: NaN where one cluster alone says nothing of it.
        low, high: of the confidence interval; NaN likewise.
        n: number of items.
        clusters: number of sources; n where none are shared.
    """

    value: float
    standard_error: float
    low: float
    high: float
    n: int
    clusters: int


def cluster_numbers(clusters: Sequence[Hashable] | None, n: int) -> NDArray[np.int64]:
    """Clusters as numbers 0 .. C-1 in the order of their first occurrence, [n]."""
    if clusters is None:
        return np.arange(n)
    if len(clusters) != n:
        raise ValueError(f"clusters must be one a value, got {len(clusters)} for {n}.")
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(c, len(known)) for c in clusters], np.int64)


def mean(
    values: Sequence[float],
    *,
    weights: Sequence[float] | None = None,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """Weighted mean, with the standard error of sums over clusters.

        m = Σ w v / Σ w
        SE² = C/(C-1) · Σ_c (Σ_{i in c} w_i (v_i - m))² / (Σ w)²

    Without clusters and weights this is the sample's standard deviation over √n; with weights, the linearised error
    of a ratio of sums. The interval is Student's with C - 1 degrees of freedom; for values that are all 0
    or 1, Wilson's with as many items as would give that standard error (all equal: as many as there are clusters), which
    does not vanish at 0 and 1.

    Args:
        values: one an item.
        weights: above 0; None for equal ones.
        clusters: what items share; None for nothing.
        confidence: of the interval.

    Raises:
        ValueError: there are no values, or they are not finite, or weights or clusters do not fit them.

    Source: Miller, arXiv 2411.00640, sections 2.1 and 2.2; Wilson 1927.
    """
    v = np.asarray(values, np.float64)
    w = np.ones_like(v) if weights is None else np.asarray(weights, np.float64)
    if v.ndim != 1 or not len(v) or not np.isfinite(v).all():
        raise ValueError("values must be finite numbers, at least one.")
    if w.shape != v.shape or not (np.isfinite(w).all() and (w > 0).all()):
        raise ValueError("weights must be numbers above 0, one a value.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}.")
    numbers = cluster_numbers(clusters, len(v))
    C = int(numbers.max()) + 1
    m = float((w * v).sum() / w.sum())
    if C == 1:
        return Estimate(
            value=m, standard_error=math.nan, low=math.nan, high=math.nan, n=len(v), clusters=1
        )
    sums = np.bincount(numbers, w * (v - m))
    error = math.sqrt(C / (C - 1) * float((sums**2).sum())) / float(w.sum())
    if weights is None and np.isin(v, (0, 1)).all():
        size = m * (1 - m) / error**2 if error > 0 else float(C)
        low, high = _wilson(m, size, confidence)
    else:
        half = float(stats.t.ppf(0.5 + confidence / 2, C - 1)) * error
        low, high = m - half, m + half
    return Estimate(value=m, standard_error=error, low=low, high=high, n=len(v), clusters=C)


def _wilson(p: float, n: float, confidence: float) -> tuple[float, float]:
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
