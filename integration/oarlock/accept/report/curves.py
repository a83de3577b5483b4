"""Line charts of the curves that evidence may carry, such as loss against step."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oarlock.accept.report import scale

MOST_POINTS = 400  # more than a screen can show
Curve = Mapping[str, Any]  #: as in evidence files: label, x, y, x_label, y_label


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve; `strokes` are SVG point lists in percent, broken where a value is not finite."""

    label: str
    baseline: bool
    colour: int
    strokes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Curves that share their axes. Ticks are (percent, value); y percent runs downwards."""

    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, float], ...]
    y_ticks: tuple[tuple[float, float], ...]
    logarithmic: bool


def thin(x: Sequence[float], y: Sequence[float], most: int = MOST_POINTS) -> list[tuple]:
    """At most `most` points of a curve, keeping the lowest and the highest of each stretch."""
    points = list(zip(x, y, strict=True))
    if len(points) <= most:
        return points
    stretch = math.ceil(len(points) / (most // 2))
    kept = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        finite = [point for point in part if math.isfinite(point[1])]
        if len(finite) < len(part):
            kept.append((part[0][0], math.nan))
        if finite:
            ends = {min(finite, key=lambda p: p[1]), max(finite, key=lambda p: p[1])}
            kept += sorted(ends)
    return kept


def _strokes(points: Iterable[tuple], x_axis: scale.Scale, y_axis: scale.Scale) -> tuple[str, ...]:
    strokes: list[list[str]] = [[]]
    for x, y in points:
        if math.isfinite(x) and math.isfinite(y):
            strokes[-1].append(f"{x_axis.percent(x):.2f},{100 - y_axis.percent(y):.2f}")
        elif strokes[-1]:
            strokes.append([])
    return tuple(" ".join(stroke) for stroke in strokes if stroke)


def _chart(series: list[Curve], baselines: set[str]) -> Chart | None:
    points = [thin(one["x"], one["y"]) for one in series]
    finite = [p for line in points for p in line if math.isfinite(p[0]) and math.isfinite(p[1])]
    if not finite:
        return None
    heights = [y for _, y in finite]
    logarithmic = min(heights) > 0 and max(heights) / min(heights) > 50
    x_axis = scale.linear((x for x, _ in finite), count=6)
    y_axis = (scale.logarithmic if logarithmic else scale.linear)(heights)
    lines, colour = [], 0
    for one, line in zip(series, points, strict=True):
        baseline = one["label"] in baselines or "baseline" in one["label"].lower()
        colour += not baseline
        lines.append(
            Line(
                label=one["label"],
                baseline=baseline,
                colour=0 if baseline else (colour - 1) % 5 + 1,
                strokes=_strokes(line, x_axis, y_axis),
            )
        )
    return Chart(
        x_label=series[0]["x_label"],
        y_label=series[0]["y_label"],
        lines=tuple(lines),
        x_ticks=tuple((x_axis.percent(tick), tick) for tick in x_axis.ticks),
        y_ticks=tuple((100 - y_axis.percent(tick), tick) for tick in y_axis.ticks),
        logarithmic=logarithmic,
    )


def charts(series: Iterable[Curve], baselines: set[str]) -> tuple[Chart, ...]:
    """One chart for each pair of axis labels; curves named in `baselines` are drawn in grey."""
    groups: dict[tuple[str, str], list[Curve]] = {}
    for one in series:
        groups.setdefault((one["x_label"], one["y_label"]), []).append(one)
    drawn = (_chart(group, baselines) for group in groups.values())
    return tuple(chart for chart in drawn if chart is not None)
