"""Evidence and experiments made up for tests."""

import importlib
import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from oarlock.accept import cli, experiment, stamp


def measurement(**changes) -> dict:
    """One entry of an evidence file, as it stands on disk."""
    return {
        "name": "time-to-loss",
        "metric": "time to validation loss 1.9",
        "unit": "s",
        "baseline": 202.4,
        "baseline_name": "AdamW, tuned",
        "ours": 137.7,
        "ratio": 1.47,
        "ci": [1.38, 1.55],
        "n": 5,
        "target": 1.0,
        "verdict": "met",
        "level": "measured",
        "seeds": [0, 1, 2],
        "hardware": {"cpu": "Xeon", "cores": 2},
        "commit": "0123abc",
        "versions": {"paddlepaddle": "3.3.1"},
        "date": "2026-11-24T09:40:11Z",
        "command": "./pants accept run 1.1 --tier full",
        "notes": "",
    } | changes


@pytest.fixture(scope="session")
def entry() -> Callable[..., dict]:
    return measurement


@pytest.fixture
def write_evidence(tmp_path) -> Callable[..., Path]:
    """Writes an evidence file into a results folder of this test; returns that folder."""

    def write(criterion: str, *entries: dict, tier: str = "full", root: Path | None = None) -> Path:
        results = (root or tmp_path) / "results"
        path = results / tier / f"{criterion}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {"criterion": criterion, "tier": tier, "evidence": list(entries)}
        path.write_text(json.dumps(record), encoding="utf-8")
        return results

    return write


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the user, for this process and those it starts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "oarlock"


HEAD = """
import os, sys, time
from oarlock.accept.experiment import Evidence, experiment

def evidence(**changes):
    known = dict(name="time", metric="time", unit="s", direction="lower", baseline=2.0,
                 baseline_name="theirs", ours=1.0, target=1.5)
    return Evidence(**known | changes)
"""


@pytest.fixture
def topics(tmp_path, monkeypatch, cache) -> Iterator[Callable[..., Path]]:
    """Puts a module of experiments in place of the real ones; returns the folder to import it from.

    The module may use `evidence(**changes)`, `experiment`, `os`, `sys` and `time`.
    """
    folder = tmp_path / "fake"
    package = f"fake_topics_{tmp_path.name}"
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(experiment, "TOPICS", package)
    monkeypatch.setattr(experiment, "_registry", {})
    monkeypatch.setattr(stamp, "_package_folders", tuple)  # may change while we test

    def write(text: str, module: str = "t1_1_fake") -> Path:
        text = HEAD + textwrap.dedent(text)
        (folder / package / f"{module}.py").write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
        return folder

    yield write
    for name in [name for name in sys.modules if name.startswith(package)]:
        del sys.modules[name]


@pytest.fixture
def accept(tmp_path) -> Callable[..., Any]:
    """Runs the command line in this process; `run` writes to `<tmp_path>/results`."""

    def call(*arguments: str) -> Any:
        words = list(arguments)
        if words[0] == "run":
            words += ["--out", str(tmp_path / "results")]
        return CliRunner().invoke(cli.app, words)

    return call
