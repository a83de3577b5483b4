"""Intervals and tests for a handful of repetitions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A ratio with the ends of its confidence interval, from `n` repetitions."""

    value: float
    low: float
    high: float
    n: int

    @property
    def ci(self) -> tuple[float, float]:
        return self.low, self.high


def _sample(name: str, values: Sequence[float], least: int) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size < least:
        raise ValueError(f"{name} must hold at least {least} numbers, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array.tolist()}")
    return array


def _tail_probability(n: int, level: float) -> float:
    """The lower quantile to take from n values for an interval of `level`, widened for small n."""
    if n < 2:
        return 0.0
    t = stats.t.ppf((1 + level) / 2, n - 1)
    return float(stats.norm.cdf(-t * math.sqrt(n / (n - 1))))


def bootstrap_ratio(
    base: Sequence[float],
    ours: Sequence[float],
    *,
    paired: bool,
    statistic: Literal["mean", "median"] = "median",
    seed: int = 0,
    level: float = 0.95,
) -> Ratio:
    r"""The ratio base / ours with its bootstrap interval.

    Paired: the statistic of the single ratios :math:`b_i / o_i`, whose pairs are drawn together.
    Not paired: the statistic of `base` over that of `ours`, each drawn by itself. The quantiles are
    those of the expanded percentile interval: with :math:`t` of :math:`n - 1` degrees of freedom,
    :math:`\alpha' = \Phi(-t_{1-\alpha/2} \sqrt{n / (n-1)})`, which makes up for the interval of the
    plain percentile method being too narrow when n is small (means of 3 values: 90 %). With fewer than 6 values no interval of
    a median can promise 95 %, since all of them lie on one side of it with probability 2 / 2^n.

    Args:
        base, ours: positive values, such as seconds; paired ones have the same length.
        seed: of the resampling.
    Raises:
        ValueError: too few values, not finite, not positive, or pairs that do not fit.
    Source: Hesterberg, What Teachers Should Know About the Bootstrap (2015), section 5.3.
    """
    b, o = _sample("base", base, 1), _sample("ours", ours, 1)
    if (b <= 0).any() or (o <= 0).any():
        raise ValueError("base and ours must be above 0 for a ratio")
    if statistic not in ("mean", "median"):
        raise ValueError(f"statistic must be 'mean' or 'median', got {statistic!r}")
    if paired and b.size != o.size:
        raise ValueError(f"pairs need as many base as ours, got {b.size} and {o.size}")
    centre = np.mean if statistic == "mean" else np.median
    rng = np.random.default_rng(seed)

    def draw(values: np.ndarray) -> np.ndarray:
        picks = rng.integers(0, values.size, (RESAMPLES, values.size))
        return centre(values[picks], axis=1)

    if paired:
        ratios = b / o
        value, drawn = float(centre(ratios)), draw(ratios)
    else:
        value, drawn = float(centre(b) / centre(o)), draw(b) / draw(o)
    n = min(b.size, o.size)
    alpha = _tail_probability(n, level)
    low, high = np.quantile(drawn, [alpha, 1 - alpha])
    return Ratio(value=value, low=float(low), high=float(high), n=n)


def one_sided_p(a: Sequence[float], b: Sequence[float], *, paired: bool = False) -> float:
    """How likely values such as these are if the mean of `a` is not greater than that of `b`.

    Welch's t test, which does not assume equal variances; Student's t test of the differences for
    pairs. Small values speak for "the mean of a is greater".

    Raises:
        ValueError: fewer than two values, not finite, or pairs that do not fit.
    """
    first, second = _sample("a", a, 2), _sample("b", b, 2)
    if paired and first.size != second.size:
        raise ValueError(f"pairs need as many a as b, got {first.size} and {second.size}")
    spread = np.ptp(first - second) if paired else np.ptp(first) + np.ptp(second)
    if spread == 0:  # the t statistic is infinite or undefined
        return {1: 0.0, 0: 0.5, -1: 1.0}[int(np.sign(first.mean() - second.mean()))]
    if paired:
        return float(stats.ttest_rel(first, second, alternative="greater").pvalue)
    return float(stats.ttest_ind(first, second, equal_var=False, alternative="greater").pvalue)


def mean_ci(values: Sequence[float], *, level: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high) by Student's t; exact for normal values."""
    sample = _sample("values", values, 2)
    half = stats.t.ppf((1 + level) / 2, sample.size - 1) * stats.sem(sample)
    mean = float(sample.mean())
    return mean, mean - float(half), mean + float(half)
