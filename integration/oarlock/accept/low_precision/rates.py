"""Trials of AdamW's two learning rates in float32, on the models of criterion 1.2.

    python -m oarlock.accept.low_precision.rates --model gpt 0.001,0.002 0.0005,0.001

adds trials, rate of matrices and rate of tables, to the record of a model; those on record are not run
again. The best of them is what `settings.ADAMW` holds.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from oarlock.accept.convergence.settings import Setting
from oarlock.accept.convergence.sweep import Sweep, best
from oarlock.accept.low_precision.settings import ADAMW, DATA, TASKS


def sweep(folder: Path, model: str, text: str, origin: str) -> Sweep:
    """The record of a model in a folder."""
    path = folder / f"1.2-full-{model}.json"
    return Sweep(path, "full", TASKS["full"][model], text, origin, criterion="1.2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rates", nargs="*", help="matrices,tables")
    parser.add_argument("--model", choices=sorted(ADAMW), required=True)
    parser.add_argument("--out", type=Path, default=Path("integration/results/sweeps"))
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    from oarlock.accept import data
    from oarlock.native.paddle import accelerate

    accelerate(threads=arguments.threads)
    found = sweep(arguments.out, arguments.model, data.load_text(DATA), data.origin(DATA))
    for pair in arguments.rates:
        matrices, tables = map(float, pair.split(","))
        setting = replace(
            ADAMW[arguments.model], learning_rate=matrices, table_learning_rate=tables
        )
        found.trial(setting, "whole", found.task.steps)
    print(Setting(**best(found.record["trials"], "adamw", "whole")[0]["setting"]))


if __name__ == "__main__":
    main()
