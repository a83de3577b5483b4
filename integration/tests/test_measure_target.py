"""Where a curve reaches a target."""

import math

import pytest

from oarlock.accept.measure.target import time_to_target


def test_interpolates_the_first_crossing():
    assert time_to_target([0, 10, 20], [3.0, 2.0, 1.0], 1.5) == 15.0
    assert time_to_target([0, 10, 20, 30], [3.0, 1.0, 3.0, 1.0], 2.0) == 5.0
    assert time_to_target([0, 10, 20], [3.0, 2.0, 1.0], 2.0) == 10.0


def test_rising_metrics():
    assert time_to_target([1, 2], [0.5, 0.7], 0.6, direction="higher") == pytest.approx(1.5)
    assert time_to_target([1, 2], [0.5, 0.7], 0.8, direction="higher") is None


def test_never_and_at_once():
    assert time_to_target([0, 1], [3.0, 2.0], 1.0) is None
    assert time_to_target([5, 6], [1.0, 2.0], 1.0) == 5.0
    assert time_to_target([0, 1], [math.nan, math.nan], 1.0) is None
    assert time_to_target([0, 1, 2], [3.0, math.nan, 1.0], 1.0) == 2.0


def test_smoothing_ignores_a_lucky_value():
    values = [4.0, 4.0, 1.0, 4.0, 2.0, 2.0, 2.0]
    assert time_to_target(range(7), values, 2.0) < 2
    assert time_to_target(range(7), values, 2.0, smooth=3) == 6.0


@pytest.mark.parametrize(
    ("steps", "values", "options", "message"),
    [
        ([], [], {}, "must have one length"),
        ([1, 2], [1.0], {}, "must have one length"),
        ([1, 1], [1.0, 2.0], {}, "steps must increase"),
        ([1], [1.0], {"smooth": 0}, "smooth must be at least 1"),
        ([1], [1.0], {"direction": "down"}, "direction must be"),
    ],
)
def test_wrong_arguments_are_named(steps, values, options, message):
    with pytest.raises(ValueError, match=message):
        time_to_target(steps, values, 1.0, **options)
