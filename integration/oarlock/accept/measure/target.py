"""When a curve reaches a target."""

from collections.abc import Sequence
from typing import Literal

import numpy as np


def time_to_target(
    steps: Sequence[float],
    values: Sequence[float],
    target: float,
    *,
    smooth: int = 1,
    direction: Literal["lower", "higher"] = "lower",
) -> float | None:
    """Where `values` first reach `target`, by linear interpolation; None if they never do.

    Args:
        steps: steps or seconds, increasing.
        values: the metric at these places; a loss that became NaN does not reach anything.
        smooth: length of a trailing mean over `values` (shorter at the beginning); a single lucky
            value then does not count as reached.
        direction: whether the metric falls to the target or rises to it.
    Returns:
        a place on the axis of `steps`; `steps[0]` if the curve begins beyond the target.
    Raises:
        ValueError: lengths that differ, no value, or steps that do not increase.
    """
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or x.size == 0:
        raise ValueError(f"steps and values must have one length, got {x.shape} and {y.shape}")
    if (np.diff(x) <= 0).any():
        raise ValueError("steps must increase")
    if smooth < 1:
        raise ValueError(f"smooth must be at least 1, got {smooth}")
    if direction not in ("lower", "higher"):
        raise ValueError(f"direction must be 'lower' or 'higher', got {direction!r}")
    if smooth > 1:
        y = np.array([y[max(0, i + 1 - smooth) : i + 1].mean() for i in range(y.size)])
    missing = y - target if direction == "lower" else target - y  # falls to 0
    reached = np.flatnonzero(missing <= 0)
    if reached.size == 0:
        return None
    i = int(reached[0])
    if i == 0 or not np.isfinite(missing[i - 1]):
        return float(x[i])
    share = missing[i - 1] / (missing[i - 1] - missing[i])
    return float(x[i - 1] + share * (x[i] - x[i - 1]))
