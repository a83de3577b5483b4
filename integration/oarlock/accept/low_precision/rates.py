"""Trials of AdamW's two learning rates in float32, on the models of criterion 1.2.

    python -m oarlock.accept.low_precision.rates --model gpt 0.001,0.002 0.0005,0.001

adds trials, rate of matrices and rate of tables, to the record of a model; those on record are not run
again. The best of them is what `settings.ADAMW` holds.
"""

from pathlib import Path

from oarlock.accept.convergence.rates import command
from oarlock.accept.convergence.sweep import Sweep
from oarlock.accept.low_precision.settings import ADAMW, TASKS


def sweep(folder: Path, model: str, text: str, origin: str) -> Sweep:
    """The record of a model in a folder."""
    path = folder / f"1.2-full-{model}.json"
    return Sweep(path, "full", TASKS["full"][model], text, origin, criterion="1.2")


if __name__ == "__main__":
    command(__doc__.splitlines()[0], ADAMW, sweep)
