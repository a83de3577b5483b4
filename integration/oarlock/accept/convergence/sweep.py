"""The search for the settings of criterion 1.1: as many trials for the baseline as for ours.

    python -m oarlock.accept.convergence.sweep --tier full --task gpt

The same for each optimiser, on each task, with as many trials. First at a shortened schedule: the
two learning rates, of the matrices and of embedding and head, each and both together by steps of a
factor of two, until no neighbour is better or the trials are used up; then the decays of moments, the
weight decay, the warm-up and the learning rate of vectors, a step up and down each; trials that the
first search left over go to the two rates again, around the best by then. Then over the whole
schedule, since short ones favour other settings: the best few, again the rates of the leader, then its
warm-up and second moment; trials left over go to the next best of the shortened ones. The lowest
validation loss wins. The record is written after every trial; a sweep that was stopped goes on from
it.

`--also adamw:learning_rate=0.002,beta1=0.6` adds a trial over the whole schedule: the winner with changes,
for a look beyond where the search ended; it must not be the baseline that has fewer trials.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from oarlock.accept.convergence.settings import DATA, TASKS, Setting, Task

START = {
    "adamw": Setting(
        optimizer="adamw",
        learning_rate=4e-3,
        table_learning_rate=3.2e-2,
        warmup=0.25,
        options={"beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1},
    ),
    "muon": Setting(
        optimizer="muon",
        learning_rate=0.08,
        table_learning_rate=6.4e-2,
        options={
            "momentum": 0.9,
            "adamw_beta2": 0.95,
            "weight_decay": 0.1,
            "adamw_weight_decay": 0.1,
        },
    ),
}
RATES = ("learning_rate", "table_learning_rate")
NUMBERS = (*RATES, "vector_learning_rate", "warmup")  #: of a setting, besides its options
RATE_TRIALS = 7  #: for the two learning rates, shortened
SHORTENED = 0.4  #: share of the schedule in the first part
FINALISTS = 2  #: that run the whole schedule first
WHOLE_RATE_TRIALS = 8  #: over the whole schedule, before the options
WHOLE_TRIALS = 12  #: over the whole schedule, in all
SEED = 1000  #: not among the seeds of the experiment


def neighbours(setting: Setting) -> Iterator[Setting]:
    """One of the two learning rates, or both, doubled or halved."""
    for names in (("table_learning_rate",), ("learning_rate",), RATES):
        for factor in (2.0, 0.5):
            yield _changed(setting, **{name: getattr(setting, name) * factor for name in names})


#: Values that an option can take, in steps of about the same effect.
WARMUPS = (0.03, 0.1, 0.25, 0.4, 0.6)
LADDERS: dict[str, tuple[float, ...]] = {
    "beta1": (0.6, 0.8, 0.9, 0.95, 0.98),
    "beta2": (0.9, 0.95, 0.99, 0.999),
    "momentum": (0.6, 0.8, 0.9, 0.95, 0.98),
    "adamw_beta2": (0.9, 0.95, 0.99, 0.999),
    "weight_decay": (0.0, 0.1, 0.5, 2.0),
}
TOGETHER = {"weight_decay": "adamw_weight_decay"}  #: where an optimiser has both
SECOND_MOMENT = ("beta2", "adamw_beta2")


def around(
    best: Setting, names: Iterable[str] = tuple(LADDERS), vectors: bool = True
) -> Iterator[Setting]:
    """A step up and down of each option, of the warm-up, and of the learning rate of vectors."""
    for name in names:
        for value in _steps(LADDERS[name], best.options.get(name)):
            change = {key: value for key in (name, TOGETHER.get(name)) if key in best.options}
            yield _changed(best, options=dict(best.options) | change)
    for warmup in _steps(WARMUPS, best.warmup):
        yield _changed(best, warmup=warmup)
    if vectors:
        for factor in (4.0, 0.25):
            yield _changed(best, vector_learning_rate=best.vector_learning_rate * factor)


def _steps(ladder: tuple[float, ...], value: float | None) -> list[float]:
    """The values next to one of a ladder; none for an option that is not there."""
    if value is None:
        return []
    place = ladder.index(value)
    return [ladder[i] for i in (place + 1, place - 1) if 0 <= i < len(ladder)]


def _changed(setting: Setting, **changes: Any) -> Setting:
    return Setting(**asdict(setting) | changes)


def best(trials: Iterable[dict[str, Any]], optimizer: str, stage: str) -> list[dict[str, Any]]:
    """The trials of an optimiser in a stage, best first; diverged ones are left out."""
    found = [
        trial
        for trial in trials
        if trial["setting"]["optimizer"] == optimizer
        and trial["stage"] == stage
        and trial["validation_loss"] is not None
    ]
    return sorted(found, key=lambda trial: trial["validation_loss"])


#: Loss and setting of each trial of a stage, by the setting's key.
Losses = dict[str, tuple[float, Setting]]


def _key(setting: Setting) -> str:
    return json.dumps(asdict(setting), sort_keys=True)


def _leader(losses: Losses) -> Setting:
    return min(losses.values(), key=lambda one: one[0])[1]


class Sweep:
    """Trials of one task of a tier, kept in a JSON file; `prepare` is done to each untrained model."""

    def __init__(
        self,
        path: Path,
        tier: str,
        task: Task,
        text: str,
        origin: str,
        *,
        criterion: str = "1.1",
        prepare: Callable[[Any], object] = lambda model: None,
    ):
        self.path, self.task, self.text, self.prepare = path, task, text, prepare
        sizes = asdict(self.task)
        for derived in ("shorter", "seeds"):  # decided after the sweep
            del sizes[derived]
        self.record: dict[str, Any] = {
            "criterion": criterion,
            "tier": tier,
            "task": sizes,
            "data": origin,
            "seed": SEED,
            "trials": [],
        }
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if {**kept, "trials": []} != self.record:
                raise ValueError(f"{path} is the record of another sweep; move it away first")
            self.record = kept

    def trial(self, setting: Setting, stage: str, steps: int) -> float:
        """Validation loss of one setting, infinite where it diverged; run unless on record."""
        from oarlock.accept.convergence.race import race

        key = {"stage": stage, "steps": steps, "setting": asdict(setting)}
        for one in self.record["trials"]:
            if all(one[name] == key[name] for name in key):
                return one["validation_loss"] or math.inf
        try:
            arms, prepare = {"only": (setting, steps)}, {"only": self.prepare}
            run = race(self.task, arms, self.text, seed=SEED, turns=1, prepare=prepare)["only"]
            loss: float | None = round(run.validation_loss, 5)
        except FloatingPointError:  # the loss, or a gradient before it
            loss = None
        self.record["trials"].append(key | {"validation_loss": loss})
        part = self.path.with_name(f".{self.path.name}")
        part.write_text(json.dumps(self.record, indent=1) + "\n", encoding="utf-8")
        os.replace(part, self.path)
        print(f"{stage:9} {steps} steps  loss {loss}  {setting}", file=sys.stderr, flush=True)
        return loss or math.inf

    def run(self, optimizer: str) -> Setting:
        """All trials of one optimiser; returns the winner."""
        steps = max(1, round(SHORTENED * self.task.steps))
        losses: Losses = {}
        leader = self._search_rates(START[optimizer], "shortened", steps, RATE_TRIALS, losses)
        left = RATE_TRIALS - len(losses)
        for setting in around(leader):
            losses[_key(setting)] = self.trial(setting, "shortened", steps), setting
        leader = _leader(losses)
        for setting, _ in zip(neighbours(leader), range(left)):
            losses[_key(setting)] = self.trial(setting, "shortened", steps), setting
        ranking = [setting for _, setting in sorted(losses.values(), key=lambda one: one[0])]

        losses, steps = {}, self.task.steps
        for setting in ranking[:FINALISTS]:
            losses[_key(setting)] = self.trial(setting, "whole", steps), setting
        self._search_rates(_leader(losses), "whole", steps, WHOLE_RATE_TRIALS, losses)
        for setting in (
            *around(_leader(losses), SECOND_MOMENT, vectors=False),
            *ranking[FINALISTS:],
        ):
            if len(losses) < WHOLE_TRIALS and _key(setting) not in losses:
                losses[_key(setting)] = self.trial(setting, "whole", steps), setting
        return _leader(losses)

    def also(self, optimizer: str, changes: Mapping[str, float]) -> float:
        """One more trial over the whole schedule: the winner so far with other rates or options.

        Raises:
            ValueError: the optimiser has no such setting.
        """
        winner = Setting(**best(self.record["trials"], optimizer, "whole")[0]["setting"])
        fields = {name: value for name, value in changes.items() if name in NUMBERS}
        options = {name: value for name, value in changes.items() if name not in NUMBERS}
        unknown = sorted(options.keys() - winner.options.keys())
        if unknown:
            known = ", ".join((*NUMBERS, *winner.options))
            raise ValueError(f"{optimizer} has no setting {', '.join(unknown)} here, but {known}.")
        changed = _changed(winner, **fields, options=dict(winner.options) | options)
        return self.trial(changed, "whole", self.task.steps)

    def _search_rates(
        self, leader: Setting, stage: str, steps: int, trials: int, losses: Losses
    ) -> Setting:
        """Goes downhill from `leader` until `losses` holds so many trials; where it ended."""
        if _key(leader) not in losses:
            losses[_key(leader)] = self.trial(leader, stage, steps), leader
        while True:
            for setting in neighbours(leader):
                if _key(setting) not in losses and len(losses) < trials:
                    losses[_key(setting)] = self.trial(setting, stage, steps), setting
                if losses.get(_key(setting), (math.inf,))[0] < losses[_key(leader)][0]:
                    leader = setting
                    break
            else:
                return leader


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tier", choices=sorted(TASKS), default="quick")
    parser.add_argument("--task", default="llama", help="one of settings.TASKS of the tier")
    parser.add_argument("--out", type=Path, default=Path("integration/results/sweeps"))
    parser.add_argument("--also", nargs="*", default=[], help="optimizer:name=value,name=value")
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    from oarlock.accept import data
    from oarlock.native.paddle import accelerate

    print(accelerate(threads=arguments.threads), file=sys.stderr)
    text, origin = data.load_text(DATA), data.origin(DATA)
    arguments.out.mkdir(parents=True, exist_ok=True)
    tier, name = arguments.tier, arguments.task
    if name not in TASKS[tier]:
        parser.error(f"--task must be one of {', '.join(TASKS[tier])}, got {name!r}")
    sweep = Sweep(arguments.out / f"1.1-{tier}-{name}.json", tier, TASKS[tier][name], text, origin)
    for optimizer in START:
        print(f"{optimizer}: {sweep.run(optimizer)}")
    for also in arguments.also:
        optimizer, _, changes = also.partition(":")
        pairs = (change.split("=") for change in changes.split(","))
        sweep.also(optimizer, {key: float(value) for key, value in pairs})


if __name__ == "__main__":
    main()
