"""A forest plot: one ratio a row with its confidence interval, against 1 and the target."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from oarlock.accept.report import scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """One row as given: `ratio` > 1 means ours is better; `ci` and `target` may be unknown."""

    name: str
    ratio: float | None
    ci: tuple[float, float] | None
    target: float | None
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row as drawn; positions are percent of the axis, None where nothing is drawn."""

    given: Ratio
    at: float | None
    low: float | None
    high: float | None
    target: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forest:
    rows: tuple[Row, ...]
    one: float
    ticks: tuple[tuple[float, float], ...]


def _drawable(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value > 0


def forest(ratios: Iterable[Ratio]) -> Forest | None:
    """Lays the rows out on one logarithmic axis; None if no ratio can be drawn.

    On this axis twice as good and half as good are equally far from 1. Ratios that are not
    positive and finite keep their row and have no mark.
    """
    ratios = tuple(ratios)
    if not any(_drawable(row.ratio) for row in ratios):
        return None
    given = [value for row in ratios for value in (row.ratio, row.target, *(row.ci or ()))]
    axis = scale.logarithmic([1.0, *filter(_drawable, given)])

    def place(value: float | None) -> float | None:
        return axis.percent(value) if value is not None and _drawable(value) else None

    def lay(row: Ratio) -> Row:
        low, high = (place(end) for end in row.ci or (None, None))
        return Row(given=row, at=place(row.ratio), low=low, high=high, target=place(row.target))

    return Forest(
        rows=tuple(lay(row) for row in ratios),
        one=axis.percent(1.0),
        ticks=tuple((axis.percent(tick), tick) for tick in axis.ticks),
    )
