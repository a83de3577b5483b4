"""Trials of two learning rates beyond what a sweep runs, from the command line, kept on record."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from oarlock.accept.convergence.settings import DATA, Setting
from oarlock.accept.convergence.sweep import Sweep, best


def command(
    about: str,
    settings: Mapping[str, Setting],
    sweep: Callable[[Path, str, str, str], Sweep],
) -> None:
    """Run the trials that the command line names and print the best of the record.

    Args:
        about: what the command does, a line.
        settings: by model; trials differ from them in the rates of matrices and of tables.
        sweep: the record of a model, of (folder, model, text, its origin).
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("rates", nargs="*", help="matrices,tables")
    parser.add_argument("--model", choices=sorted(settings), required=True)
    parser.add_argument("--out", type=Path, default=Path("integration/results/sweeps"))
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    from oarlock.accept import data
    from oarlock.native.paddle import accelerate

    accelerate(threads=arguments.threads)
    found = sweep(arguments.out, arguments.model, data.load_text(DATA), data.origin(DATA))
    setting = settings[arguments.model]
    for pair in arguments.rates:
        matrices, tables = map(float, pair.split(","))
        trial = replace(setting, learning_rate=matrices, table_learning_rate=tables)
        found.trial(trial, "whole", found.task.steps)
    print(Setting(**best(found.record["trials"], setting.optimizer, "whole")[0]["setting"]))
