"""Trials of Muon's two learning rates on the dense models of criterion 2.3.1.

    python -m oarlock.accept.sparse_training.rates --width dense 0.02,0.016 0.04,0.032

adds trials, rate of matrices and rate of tables, to the record of the dense model or of its narrower
rival; those on record are not run again. `settings.MUON`, which all arms take, is chosen by them; the
sparse model has no trials of its own.
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from oarlock.accept.convergence.settings import Setting
from oarlock.accept.convergence.sweep import Sweep, best
from oarlock.accept.sparse_training.settings import COMPARISONS, DATA, MUON

FULL = COMPARISONS["full"]
TASKS = {"dense": FULL.task, "narrow": FULL.rival}


def sweep(folder: Path, width: str, text: str, origin: str) -> Sweep:
    """The record of a width in a folder."""
    return Sweep(
        folder / f"2.3.1-full-{width}.json",
        "full",
        TASKS[width],
        text,
        origin,
        criterion="2.3.1",
        prepare=partial(_attend, masks=FULL.dense()),
    )


def _attend(model: Any, masks: Any) -> None:
    model.attend(masks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rates", nargs="*", help="matrices,tables")
    parser.add_argument("--width", choices=sorted(TASKS), required=True)
    parser.add_argument("--out", type=Path, default=Path("integration/results/sweeps"))
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    from oarlock.accept import data
    from oarlock.native.paddle import accelerate

    accelerate(threads=arguments.threads)
    found = sweep(arguments.out, arguments.width, data.load_text(DATA), data.origin(DATA))
    for pair in arguments.rates:
        matrices, tables = map(float, pair.split(","))
        setting = replace(MUON, learning_rate=matrices, table_learning_rate=tables)
        found.trial(setting, "whole", found.task.steps)
    print(Setting(**best(found.record["trials"], "muon", "whole")[0]["setting"]))


if __name__ == "__main__":
    main()
