"""Numbers in the form in which people read them."""

import math

import pytest

from oarlock.accept.wording import in_words, interval, number, quantity, target, times


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (12.3456, "12.35"),
        (0.0123456, "0.01235"),
        (99999.6, "100,000"),
        (1234567, "1,234,567"),
        (-3.5, "−3.5"),
        (1.5e-7, "1.5e−7"),
        (3e12, "3e12"),
        (2.0, "2"),
        (math.nan, "not a number"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
    ],
)
def test_number(value, text):
    assert number(value) == text


def test_quantity():
    assert quantity(12.5, "s") == "12.5 s"
    assert quantity(12.5, "") == "12.5"
    assert quantity(None, "s") == "–"


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (1.466, "1.47×"),
        (0.996, "0.996×"),  # and not 1.00×, which would look like a tie
        (1.004, "1.004×"),
        (250.4, "250×"),
        (0.0123, "0.0123×"),
        (None, "–"),
        (math.inf, "∞"),
    ],
)
def test_times(ratio, text):
    assert times(ratio) == text


def test_interval():
    assert interval((1.38, 1.555)) == "1.38–1.55"
    assert interval(None) == "–"


def test_in_words():
    assert in_words({"cpu": "Xeon", "flags": ["a", "b"], "gpu": None}) == (
        "cpu Xeon, flags a, b, gpu unknown"
    )


@pytest.mark.parametrize(
    ("ratio", "exclusive", "text"), [(1.5, False, "≥ 1.5"), (1.0, True, "> 1"), (None, True, "–")]
)
def test_targets(ratio, exclusive, text):
    assert target(ratio, exclusive) == text
