"""Argument checks: each names the argument, what was given and what would be right."""

import difflib
import math
import numbers
from collections.abc import Iterable


def suggestion(name: str, known: Iterable[str]) -> str:
    """A sentence naming the nearest known names, or all of them when none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {', '.join(repr(match) for match in near)}?"
    return f"known: {', '.join(known)}."


def shown(value) -> str:
    """``repr`` of a value in one line of at most 60 characters, for messages."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def whole(name: str, value, low: int) -> int:
    """Return ``value`` as an integer of ``low`` or above, or raise ValueError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < low:
        raise ValueError(f"{name} must be an integer >= {low}, got {shown(value)}.")
    return int(value)


def real(name: str, value, low: float, high: float, *, open_low=False, open_high=False) -> float:
    """Return ``value`` as a float inside the interval, or raise ValueError."""
    interval = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} must be a number in {interval}, got {shown(value)}.")
    value = float(value)
    inside = (value > low if open_low else value >= low) and (
        value < high if open_high else value <= high
    )
    if math.isnan(value) or not inside:
        raise ValueError(f"{name} must lie in {interval}, got {value:g}.")
    return value


def non_negative(name: str, value) -> float:
    """Return ``value`` as a finite float >= 0."""
    return real(name, value, 0.0, math.inf, open_high=True)


def fraction(name: str, value) -> float:
    """Return ``value`` as a float in [0, 1)."""
    return real(name, value, 0.0, 1.0, open_high=True)


def flag(name: str, value) -> bool:
    """Return ``value`` if it is a bool."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {shown(value)}.")
    return value


def choice(name: str, value, choices: tuple):
    """Return ``value`` if it is one of ``choices``."""
    if value not in choices:
        options = ", ".join(repr(option) for option in choices)
        raise ValueError(f"{name} must be one of {options}, got {shown(value)}.")
    return value
