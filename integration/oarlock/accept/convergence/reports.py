"""What topics that compare training runs say of them in the same way."""

from collections.abc import Mapping, Sequence
from typing import Any

from oarlock.accept.experiment import Run
from oarlock.accept.convergence.settings import DATA

#: What a race leaves of each arm: steps, wall_s, cpu_s and the curve of (step, validation loss).
Race = Mapping[str, Mapping[str, Any]]


def text_of(run: Run) -> tuple[str, str]:
    """The text to train on and where it is from; a substitute, in the quick tier only."""
    from oarlock.accept import data

    if run.tier == "quick":
        return data.text_or_fallback(DATA)
    return data.load_text(DATA), data.origin(DATA)


def ends(races: Sequence[Race], arm: str) -> list[float]:
    """Validation loss at the end, by seed."""
    return [one[arm]["curve"][-1][1] for one in races]


def curve(races: Sequence[Race], arm: str) -> dict[str, Any]:
    """Validation loss over steps, the mean over seeds, as evidence draws it."""
    steps = [step for step, _ in races[0][arm]["curve"]]
    losses = [mean([one[arm]["curve"][i][1] for one in races]) for i in range(len(steps))]
    return {
        "label": arm,
        "x": steps,
        "y": [round(loss, 4) for loss in losses],
        "x_label": "step",
        "y_label": "validation loss, nats a byte",
    }


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
