"""Trials of Muon's two learning rates on the dense models of criterion 2.3.1.

    python -m oarlock.accept.sparse_training.rates --model dense 0.02,0.016 0.04,0.032

adds trials, rate of matrices and rate of tables, to the record of the dense model or of its narrower
rival; those on record are not run again. `settings.MUON`, which all arms take, is chosen by them; the
sparse model has no trials of its own.
"""

from functools import partial
from pathlib import Path
from typing import Any

from oarlock.accept.convergence.rates import command
from oarlock.accept.convergence.sweep import Sweep
from oarlock.accept.sparse_training.settings import COMPARISONS, MUON

FULL = COMPARISONS["full"]
TASKS = {"dense": FULL.task, "narrow": FULL.rival}


def sweep(folder: Path, model: str, text: str, origin: str) -> Sweep:
    """The record of a dense model in a folder."""
    return Sweep(
        folder / f"2.3.1-full-{model}.json",
        "full",
        TASKS[model],
        text,
        origin,
        criterion="2.3.1",
        prepare=partial(_attend, masks=FULL.dense()),
    )


def _attend(model: Any, masks: Any) -> None:
    model.attend(masks)


if __name__ == "__main__":
    command(__doc__.splitlines()[0], dict.fromkeys(TASKS, MUON), sweep)
