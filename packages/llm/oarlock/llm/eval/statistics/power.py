"""How many items a comparison needs. Source: Miller, arXiv 2411.00640, section 5."""

import math

from scipy import stats


def items_needed(
    difference: float,
    *,
    variance: float,
    noise_first: float = 0.0,
    noise_second: float = 0.0,
    samples: int = 1,
    significance: float = 0.05,
    power: float = 0.8,
) -> int:
    """Items at which a difference is found with the wanted probability.

        n = (z_{α/2} + z_β)² (ω² + σ_a²/K + σ_b²/K) / δ² + z²_{α/2} / 2

    The last term, two items at the usual level, is for Student's test, to which the spread is not known beforehand.

    Args:
        difference: δ to be found, such as 0.03.
        variance: ω², of the paired difference of the items' expected scores; `variance_of_difference`, or
            n · SE² of a `Comparison`, which contains the noise of one sample already.
        noise_first, noise_second: σ², mean variance of one answer to the same item; 0 for greedy answers.
        samples: K, answers an item.
        significance: α, of two sides.
        power: 1 - β.

    Raises:
        ValueError: an argument is out of range.
    """
    spread = _spread(variance, noise_first, noise_second, samples)
    if not difference > 0:
        raise ValueError(f"difference must be above 0, got {difference}.")
    return math.ceil((_z(significance, power) / difference) ** 2 * spread + _student(significance))


def detectable_difference(
    items: int,
    *,
    variance: float,
    noise_first: float = 0.0,
    noise_second: float = 0.0,
    samples: int = 1,
    significance: float = 0.05,
    power: float = 0.8,
) -> float:
    """Smallest difference that so many items find with the wanted probability: ``items_needed`` turned around."""
    least = math.floor(_student(significance)) + 1
    if items < least:
        raise ValueError(f"items must be {least} or more, got {items}.")
    spread = _spread(variance, noise_first, noise_second, samples)
    return _z(significance, power) * math.sqrt(spread / (items - _student(significance)))


def variance_of_difference(first: float, second: float, correlation: float) -> float:
    """Variance of the difference of two right-or-wrong scores: shares p and q, correlation ρ over items.

    p(1-p) + q(1-q) - 2 ρ √(p(1-p) q(1-q)).
    """
    for name, value in (("first", first), ("second", second)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be a share in [0, 1], got {value}.")
    if not -1 <= correlation <= 1:
        raise ValueError(f"correlation must be in [-1, 1], got {correlation}.")
    a, b = first * (1 - first), second * (1 - second)
    return a + b - 2 * correlation * math.sqrt(a * b)


def _spread(variance: float, noise_first: float, noise_second: float, samples: int) -> float:
    if samples < 1 or min(variance, noise_first, noise_second) < 0:
        raise ValueError(
            f"variances must be 0 or more and samples 1 or more, got {variance}, {noise_first}, "
            f"{noise_second}, {samples}."
        )
    return variance + (noise_first + noise_second) / samples


def _z(significance: float, power: float) -> float:
    if not (0 < significance < 1 and 0 < power < 1):
        raise ValueError(f"significance and power must be in (0, 1), got {significance}, {power}.")
    return float(stats.norm.ppf(1 - significance / 2) + stats.norm.ppf(power))


def _student(significance: float) -> float:
    """Further items that Student's test needs. Source: Guenther 1981."""
    if not 0 < significance < 1:
        raise ValueError(f"significance must be in (0, 1), got {significance}.")
    return float(stats.norm.ppf(1 - significance / 2)) ** 2 / 2
