"""The table of all optimisers on one small LLaMA, as CSV.

    python -m oarlock.accept.convergence.optimizer_table --out integration/results/optimizers.csv

Every optimiser of the registry trains the same model over the same tokens. Each is tuned by the same
search, with at most as many trials: the two learning rates, of matrices and of embedding and head,
each and both together by factors of two over the whole schedule until no neighbour is better or the
trials are used up; then its decays of moments, its weight decay, the warm-up and the rate of vectors, one
at a time. All else is its paper's. The column `trials` says how many there were, and `settled` whether
every neighbour of the rates was tried: if not, lower losses may lie further on. Trials are kept beside
the CSV (`.trials.json`), from which a search that was stopped goes on; the seeds of the table are none
of the search's.
"""

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from oarlock.accept.convergence.settings import DATA, TASKS, Setting
from oarlock.accept.convergence.sweep import RATES, Losses, Sweep, neighbours

TASK = "table"  #: in `settings.TASKS`
SEEDS = (0, 1, 2)
RATE_TRIALS = 10
TURNS, STEPS_A_TURN = 5, 20  #: of the timing, in which all take turns

#: Where the search begins: learning rates of matrices and of tables. A guess for each, from which the
#: search moves by factors of two.
START = {
    "adafactor": (0.064, 0.128),
    "adam_mini": (4e-3, 0.032),
    "adamw": (4e-3, 0.032),
    "lamb": (0.016, 0.032),
    "lars": (8.0, 8.0),
    "lion": (5e-4, 4e-3),
    "mars": (4e-3, 0.032),
    "muon": (0.08, 0.064),
    "normuon": (0.08, 0.064),
    "schedule_free_adamw": (8e-3, 0.064),
    "shampoo": (4e-3, 0.032),
    "soap": (8e-3, 0.032),
    "soap_muon": (0.08, 0.064),
    "sophia_g": (1e-3, 8e-3),
}
ALTERNATIVES: dict[str, tuple[float, ...]] = {
    "beta2": (0.95, 0.99),
    "momentum": (0.9, 0.95),
    "weight_decay": (0.0, 0.1),
}
FIELDS = (
    "optimizer",
    "paper",
    "loss",
    "loss_std",
    "seeds",
    "learning_rate",
    "table_learning_rate",
    "warmup",
    "options",
    "trials",
    "settled",
    "state_bytes_per_parameter",
    "step_ms",
    "step_over_adamw",
)


def start(optimizer: str) -> Setting:
    """Where its search begins. Vectors have AdamW's rate where they get AdamW, else that of matrices."""
    from oarlock.accept.convergence.race import WITH_ADAMW

    rate, table_rate = START[optimizer]
    setting = Setting(optimizer=optimizer, learning_rate=rate, table_learning_rate=table_rate)
    if optimizer in WITH_ADAMW:
        return setting
    return replace(setting, vector_learning_rate=rate)


def alternatives(setting: Setting) -> Iterator[Setting]:
    """One option at a time that is not at its value already."""
    from oarlock.core_opt import optim

    defaults = optim.info(setting.optimizer).defaults
    for key, values in ALTERNATIVES.items():
        now = {**defaults, **setting.options}.get(key)
        for value in values:
            if key in defaults and value != now:
                yield replace(setting, options=dict(setting.options) | {key: value})
    yield replace(setting, warmup=0.25)
    for factor in (4.0, 0.25):
        yield replace(setting, vector_learning_rate=factor * setting.vector_learning_rate)


class TableSweep(Sweep):
    """The search of one optimiser of the table."""

    def run(self, optimizer: str) -> Setting:
        """All trials of one optimiser; returns the winner."""
        losses: Losses = {}
        steps = self.task.steps
        best = self._search_rates(start(optimizer), "whole", steps, RATE_TRIALS, losses)
        for setting in list(alternatives(best)):
            if self.trial(setting, "whole", steps) < self.trial(best, "whole", steps):
                best = setting
        return best

    def settled(self, winner: Setting) -> bool:
        """Whether all neighbours of the winner's rates were tried."""

        def rates(setting: Setting) -> tuple[float, ...]:
            return tuple(getattr(setting, name) for name in RATES)

        tried = {
            rates(Setting(**one["setting"]))
            for one in self.record["trials"]
            if one["setting"]["optimizer"] == winner.optimizer
        }
        return tried >= {rates(one) for one in neighbours(winner)}

    def trials(self, optimizer: str) -> int:
        """Trials on record of one optimiser."""
        return sum(one["setting"]["optimizer"] == optimizer for one in self.record["trials"])


def rows(sweep: TableSweep, text: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each optimiser, lowest loss first."""
    import numpy as np

    from oarlock.accept.convergence.race import race
    from oarlock.core_opt import optim

    found = []
    settings = {name: sweep.run(name) for name in names}
    times = step_times(settings, sweep.task, text)
    for name, setting in settings.items():
        arms = {name: (setting, sweep.task.steps)}
        ends = [
            race(sweep.task, arms, text, seed=seed, turns=1)[name].validation_loss for seed in SEEDS
        ]
        found.append(
            {
                "optimizer": name,
                "paper": optim.info(name).paper,
                "loss": round(float(np.mean(ends)), 4),
                "loss_std": round(float(np.std(ends, ddof=1)), 4),
                "seeds": len(SEEDS),
                "learning_rate": setting.learning_rate,
                "table_learning_rate": setting.table_learning_rate,
                "warmup": setting.warmup,
                "options": " ".join(f"{key}={value:g}" for key, value in setting.options.items()),
                "trials": sweep.trials(name),
                "settled": "yes" if sweep.settled(setting) else "no",
                **times[name],
            }
        )
        print(found[-1], file=sys.stderr, flush=True)
    return sorted(found, key=lambda row: row["loss"])


def step_times(settings: dict[str, Setting], task: Any, text: str) -> dict[str, dict[str, float]]:
    """State and time of each optimiser: all take turns, and the median turn counts."""
    import numpy as np

    from oarlock.accept.convergence import race as racing

    training, _ = racing.tokens(text)
    steps = STEPS_A_TURN * (TURNS + 1)
    runners = {
        name: racing.runner_of(task, setting, steps, training, 0)
        for name, setting in settings.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for turn in range(TURNS + 1):
        for name, runner in runners.items():
            before = runner.run.wall_s
            runner.advance(STEPS_A_TURN * (turn + 1))
            if turn:  # the first one builds the state
                seconds[name].append((runner.run.wall_s - before) / STEPS_A_TURN)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    return {
        name: {
            "state_bytes_per_parameter": round(state_bytes(runner), 2),
            "step_ms": round(1000 * medians[name], 1),
            "step_over_adamw": round(medians[name] / medians["adamw"], 2),
        }
        for name, runner in runners.items()
    }


def state_bytes(runner: Any) -> float:
    """Bytes of all tensors in the optimiser's state, over the parameters of the model."""
    import paddle

    state = runner.optimizer.state_dict()
    tensors = [value for value in state.values() if isinstance(value, paddle.Tensor)]
    total = sum(tensor.size * tensor.element_size() for tensor in tensors)
    return total / runner.model.num_parameters()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tier", choices=sorted(TASKS), default="full")
    parser.add_argument("--out", type=Path, default=Path("integration/results/optimizers.csv"))
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    from oarlock.accept import data
    from oarlock.core_opt import optim
    from oarlock.native.paddle import accelerate

    print(accelerate(threads=arguments.threads), file=sys.stderr)
    text, origin = data.load_text(DATA), data.origin(DATA)
    trials = arguments.out.with_suffix(".trials.json")
    trials.parent.mkdir(parents=True, exist_ok=True)
    sweep = TableSweep(trials, arguments.tier, TASKS[arguments.tier][TASK], text, origin)
    table = rows(sweep, text, optim.list())
    with arguments.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    print(f"{arguments.out}: {len(table)} optimisers")


if __name__ == "__main__":
    main()
