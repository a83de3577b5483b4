"""The tutorial, as short as it goes: every step runs, and a second call finds all of it done."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SHORT = ["--droplets", "1", "--molecules", "3", "--frames", "5", "--steps", "4"]
SHORT += ["--dynamics", "40", "--without-check"]


@pytest.fixture
def water(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["water.py", *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / "water.py"), run_name="__main__")
        return capsys.readouterr().out

    monkeypatch.setattr("oarlock.native.paddle.accelerate", lambda: None)
    return call


def test_water_from_labels_to_its_distribution(water, tmp_path):
    first = water(tmp_path / "water", *SHORT)
    assert "10 labelled, 0 failed" in first
    assert "Oxygens are most often" in first
    assert (tmp_path / "water" / "oxygens.png").stat().st_size > 3000
    again = water(tmp_path / "water", *SHORT)
    assert "labelled" not in again and "trained" not in again
    assert again.splitlines()[-2:] == first.splitlines()[-2:]


def test_what_is_wrong_takes_a_line(water, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="2"):
        water(tmp_path / "file")
    assert capsys.readouterr().err.startswith("water.py: ")
