"""Every experiment that has a quick tier runs through the command line, and misses no target."""

import json

import pytest
from oarlock.accept.cli import app
from oarlock.accept.experiment import discover
from typer.testing import CliRunner

QUICK = [one for one in discover() if "quick" in one.tiers]


@pytest.mark.parametrize("experiment", QUICK, ids=lambda one: one.id)
def test_quick_tier(experiment, tmp_path):
    arguments = ["run", experiment.criterion, "--only", experiment.name, "--out", str(tmp_path)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "quick" / f"{experiment.criterion}.json").read_text())
    verdicts = {one["name"]: one["verdict"] for one in record["evidence"]}
    assert "met" in verdicts.values(), "a quick tier judges something"
    assert "short" not in verdicts.values()
