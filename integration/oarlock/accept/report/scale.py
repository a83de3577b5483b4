"""Positions and tick marks along one axis of a plot."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Maps [low, high] to percent of an axis' length, linearly or by logarithm."""

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def percent(self, value: float) -> float:
        """Position of `value` in percent; values outside the scale stop at its ends."""
        low, high = self.low, self.high
        if self.logarithmic:
            if value <= 0:
                return 0.0
            low, high, value = math.log(low), math.log(high), math.log(value)
        return min(100.0, max(0.0, 100.0 * (value - low) / (high - low)))


def _step(span: float, count: int) -> float:
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * step for step in STEPS if power * step >= raw * (1 - 1e-9))


def _multiples(low: float, high: float, step: float) -> tuple[float, ...]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(round(i * step, 12) for i in range(first, last + 1))


def linear(values: Iterable[float], *, count: int = 5) -> Scale:
    """A linear scale over finite `values`, ending at about `count` round ticks."""
    values = list(values)
    low, high = min(values), max(values)
    if low == high:
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    step = _step(high - low, count)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return Scale(low=low, high=high, ticks=_multiples(low, high, step))


def logarithmic(values: Iterable[float], *, count: int = 5, margin: float = 0.06) -> Scale:
    """A logarithmic scale over positive `values`; its ticks are round numbers.

    `margin` is the share of the axis left free at each end.
    """
    values = list(values)
    low, high = min(values), max(values)
    room = max(math.log(high / low), math.log(1.05)) * margin
    low, high = low * math.exp(-room), high * math.exp(room)
    if high / low < 6:
        return Scale(
            low=low,
            high=high,
            ticks=_multiples(low, high, _step(high - low, count)),
            logarithmic=True,
        )
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [f * 10.0**d for d in decades for f in factors]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= count + 2:
            break
    stride = math.ceil(len(ticks) / (count + 2))
    return Scale(low=low, high=high, ticks=tuple(ticks[::stride]), logarithmic=True)
