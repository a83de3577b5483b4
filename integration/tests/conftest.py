"""Evidence made up for tests."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest


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
