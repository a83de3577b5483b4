"""Remembered values survive a restart, and only proper ones are kept."""

import math

import pytest

from oarlock.accept.remembered import Remembered


def test_values_survive_and_are_cleared(tmp_path):
    folder = tmp_path / "values"
    calls = []
    for _ in range(2):  # two processes
        remembered = Remembered(folder)
        assert remembered.get({"seed": 1, "arm": "a"}, lambda: calls.append(1) or 3.5) == 3.5
        assert remembered.get({"arm": "a", "seed": 1}, lambda: 0) == 3.5
    assert calls == [1]
    Remembered(folder).clear()
    assert not folder.exists()
    assert Remembered(folder).get({"seed": 1, "arm": "a"}, lambda: 4) == 4


def test_keys_do_not_mix(tmp_path):
    remembered = Remembered(tmp_path)
    assert [remembered.get(key, lambda key=key: [key]) for key in ("a", 1, "1", None)] == [
        ["a"],
        [1],
        ["1"],
        [None],
    ]


def test_a_failed_computation_leaves_nothing(tmp_path):
    remembered = Remembered(tmp_path)
    with pytest.raises(ZeroDivisionError):
        remembered.get("a", lambda: 1 / 0)
    assert remembered.get("a", lambda: 2) == 2


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("a", {1, 2}, r"remember\('a'\): the value must be plain JSON"),
        ("a", math.nan, "the value must be plain JSON"),
        (object(), 1, "the key must be plain JSON"),
    ],
)
def test_what_is_not_json_is_refused(tmp_path, key, value, message):
    with pytest.raises(ValueError, match=message):
        Remembered(tmp_path).get(key, lambda: value)
    assert list(tmp_path.iterdir()) == []
