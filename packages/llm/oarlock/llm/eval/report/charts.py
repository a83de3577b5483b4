"""Charts as SVG text. Everything that comes from outside is escaped here."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from oarlock.llm.eval.statistics import Estimate

#: Told apart with any kind of colour vision (Okabe and Ito), and by dashes.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 4", "10 4", "4 1")
SIZE, RADIUS = 460, 160


def colour(number: int) -> str:
    """Colour of a model by its place."""
    return COLOURS[number % len(COLOURS)]


def radar(scores: Mapping[str, Mapping[str, Estimate | None]], axes: Sequence[str]) -> Markup:
    """Scores between 0 (chance, or below) in the middle and 1 at the rim; an ability that was not tested has no corner.

    Args:
        scores: by model, then by axis.
        axes: around the circle; at least three.

    Raises:
        ValueError: there are fewer axes.
    """
    if len(axes) < 3:
        raise ValueError(f"axes must be three or more, got {len(axes)}.")
    parts = [
        f'<svg viewBox="0 0 {SIZE + 160} {SIZE}" role="img" class="radar" '
        f'xmlns="http://www.w3.org/2000/svg"><title>Share of what chance leaves, by ability</title>'
    ]
    for ring in (0.25, 0.5, 0.75, 1.0):
        corners = " ".join(_at(i, len(axes), ring) for i in range(len(axes)))
        parts.append(f'<polygon points="{corners}" class="ring"/>')
    for i, axis in enumerate(axes):
        x, y = _point(i, len(axes), 1.14)
        anchor = "middle" if abs(x - _centre()[0]) < 20 else "start" if x > _centre()[0] else "end"
        label = escape(axis.replace("_", " "))
        parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{label}</text>')
    for number, (model, of_model) in enumerate(scores.items()):
        known = [
            (i, estimate)
            for i, axis in enumerate(axes)
            if (estimate := of_model.get(axis)) is not None
        ]
        if not known:
            continue
        shares = [(i, min(1.0, max(0.0, e.value))) for i, e in known]
        corners = " ".join(_at(i, len(axes), share) for i, share in shares)
        stroke, dash = colour(number), DASHES[number % len(DASHES)]
        parts.append(
            f'<polygon points="{corners}" fill="{stroke}" fill-opacity="0.08" stroke="{stroke}" '
            f'stroke-width="2" stroke-dasharray="{dash}"><title>{escape(model)}</title></polygon>'
        )
    return Markup("".join(parts) + "</svg>")


def interval(estimate: Estimate, low: float, high: float, number: int) -> Markup:
    """A score and its interval on a scale from ``low`` to ``high``, 160 units wide."""
    width = 160.0
    scale = width / (high - low) if high > low else 0.0

    def place(value: float) -> float:
        return min(width, max(0.0, (value - low) * scale))

    stroke = colour(number)
    line = ""
    if not math.isnan(estimate.low):
        line = (
            f'<line x1="{place(estimate.low):.1f}" x2="{place(estimate.high):.1f}" y1="7" y2="7" '
            f'stroke="{stroke}" stroke-width="2"/>'
        )
    return Markup(
        f'<svg viewBox="-4 0 168 14" class="interval" xmlns="http://www.w3.org/2000/svg" aria-hidden="true">'
        f'<line x1="0" x2="160" y1="7" y2="7" class="ring"/>{line}'
        f'<circle cx="{place(estimate.value):.1f}" cy="7" r="4" fill="{stroke}"/></svg>'
    )


def _centre() -> tuple[float, float]:
    return (SIZE + 160) / 2, SIZE / 2


def _point(i: int, n: int, share: float) -> tuple[float, float]:
    angle = 2 * math.pi * i / n - math.pi / 2
    x, y = _centre()
    return x + RADIUS * share * math.cos(angle), y + RADIUS * share * math.sin(angle)


def _at(i: int, n: int, share: float) -> str:
    x, y = _point(i, n, share)
    return f"{x:.1f},{y:.1f}"
