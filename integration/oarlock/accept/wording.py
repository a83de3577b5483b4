"""Numbers, ratios and levels in words, the same in the report, the tables and the terminal.

Standard library only: the tables are made before anything is installed.
"""

import math
from collections.abc import Mapping
from typing import Any

LEVELS = {
    "measured": "Measured: real work, real clock.",
    "emulated": "Emulated: real work, on a resource that was slowed down or restricted.",
    "simulated": (
        "Simulated: a model of a machine that is not here;"
        " the notes give that model's own validation error."
    ),
}
VERDICTS = {
    "met": "every target met",
    "short": "a target was missed",
    "info": "measured, nothing to judge",
    "not yet": "no experiment exists",
}


def number(value: float | None, digits: int = 4) -> str:
    """`value` with `digits` significant digits: 0.01234, 12.3, 12,345; powers of ten beyond."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value == 0:
        return "0"
    if float(value).is_integer() and abs(value) < 1e9:
        return f"{int(value):,}".replace("-", "−")
    if not 1e-4 <= abs(value) < 1e9:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", "−")


def quantity(value: float | None, unit: str) -> str:
    """A number with its unit: "12.3 s"; no unit where there is none."""
    text = number(value)
    return f"{text} {unit}" if unit and value is not None else text


def times(ratio: float | None) -> str:
    """A ratio such as "1.53×"; above 1 ours is better."""
    if ratio is None or not math.isfinite(ratio):
        return number(ratio)
    if 0.95 < ratio < 1.05:
        return f"{ratio:.3f}×"  # two decimals would hide on which side of 1 it is
    return f"{ratio:.2f}×" if 0.1 <= ratio < 100 else f"{number(ratio, 3)}×"


def target(ratio: float | None, exclusive: bool) -> str:
    """The ratio to reach or to exceed: "≥ 1.5", "> 1"."""
    if ratio is None:
        return "–"
    return f"{'>' if exclusive else '≥'} {number(ratio, 3)}"


def interval(ci: tuple[float, float] | list[float] | None) -> str:
    """The ends of a confidence interval: "1.41–1.66"."""
    if ci is None:
        return "–"
    return "–".join(times(end).removesuffix("×") for end in ci)


def in_words(value: Any) -> str:
    """A record of hardware or versions as text: "cpu Xeon, cores 2"."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {in_words(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(in_words(item) for item in value)
    return "unknown" if value is None else str(value)
