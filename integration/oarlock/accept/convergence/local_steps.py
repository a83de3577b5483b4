"""Four workers over one text: one step together, or local steps as DiLoCo and MuLoCo take them.

    python -m oarlock.accept.convergence.local_steps --tier full --out integration/results/sweeps

searches the settings: as many trials for each method, first for the two learning rates, each and both
together by factors of two, then for what else matters most to the method: the outer step and momentum
of local steps, warm-up and weight decay of a step together. The record is written after every trial; a
search that was stopped goes on from it.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from oarlock.accept.convergence.settings import DATA, Setting, Task
from oarlock.accept.convergence.sweep import neighbours

WORKERS = 4
RATE_TRIALS = 7  #: for the two learning rates: where the search begins, and six neighbours or more
TRIALS = 10  #: for each method
SEED = 1000  #: of the search; not among the seeds of the experiment


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A tier: the model, the batch of one worker, and how often workers agree."""

    task: Task  #: its batch is that of one worker, its steps are those of every method
    inner_steps: int
    #: Lengths at which a step together also trains, to find what it needs to the loss of local steps.
    shorter: tuple[int, ...]

    def of_length(self, steps: int) -> "Plan":
        """The same to the end of another schedule, of whole rounds."""
        if steps % self.inner_steps:
            raise ValueError(f"steps must be whole rounds of {self.inner_steps}, got {steps}.")
        return replace(self, task=replace(self.task, steps=steps))

    @property
    def rounds(self) -> int:
        return self.task.steps // self.inner_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """An inner optimiser, and how workers agree: every step, or every ``inner_steps``."""

    setting: Setting
    local: bool
    outer_learning_rate: float = 0.7
    outer_momentum: float = 0.9
    bits: int | None = None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Method":
        """From its JSON form."""
        return cls(**{**record, "setting": Setting(**record["setting"])})


def _task(**sizes: Any) -> Task:
    return Task(model="llama", shorter=(), context=64, **sizes)


PLANS = {
    "quick": Plan(
        task=_task(
            hidden_size=32,
            num_layers=1,
            num_heads=2,
            num_kv_heads=1,
            batch=2,
            steps=16,
            seeds=1,
            validation_batches=16,
        ),
        inner_steps=4,
        shorter=(8,),
    ),
    "full": Plan(
        task=_task(
            hidden_size=64,
            num_layers=2,
            num_heads=4,
            num_kv_heads=2,
            batch=4,
            steps=120,
            seeds=5,
            validation_batches=32,
        ),
        inner_steps=15,
        shorter=(60, 90),
    ),
}

ADAMW = Setting(
    optimizer="adamw",
    learning_rate=0.008,
    table_learning_rate=0.032,
    options={"beta1": 0.9, "beta2": 0.99, "weight_decay": 0.1},
)
MUON = Setting(
    optimizer="muon",
    learning_rate=0.04,
    table_learning_rate=0.032,
    options={"momentum": 0.9, "weight_decay": 0.1, "adamw_weight_decay": 0.1},
)
#: Where the search begins: near where an earlier one ended, which had fewer trials.
START = {
    "adamw": Method(setting=ADAMW, local=False),
    "muon": Method(setting=MUON, local=False),
    "diloco": Method(setting=ADAMW, local=True, outer_learning_rate=0.7, outer_momentum=0.6),
    "muloco": Method(setting=MUON, local=True, outer_learning_rate=0.7, outer_momentum=0.6),
}

#: Winners of the searches in `integration/results/sweeps/1.1-<tier>-local-steps.json`, by tier.
BEST: dict[str, dict[str, Method]] = {
    "full": {
        "adamw": Method(
            setting=Setting(
                optimizer="adamw",
                learning_rate=0.008,
                table_learning_rate=0.064,
                warmup=0.25,
                options={"beta1": 0.9, "beta2": 0.99, "weight_decay": 0.1},
            ),
            local=False,
        ),
        "muon": Method(
            setting=Setting(
                optimizer="muon",
                learning_rate=0.08,
                table_learning_rate=0.128,
                options={"momentum": 0.9, "weight_decay": 0.1, "adamw_weight_decay": 0.1},
            ),
            local=False,
        ),
        "diloco": Method(
            setting=Setting(
                optimizer="adamw",
                learning_rate=0.008,
                table_learning_rate=0.128,
                options={"beta1": 0.9, "beta2": 0.99, "weight_decay": 0.1},
            ),
            local=True,
            outer_learning_rate=1.0,
            outer_momentum=0.5,
        ),
        "muloco": Method(
            setting=Setting(
                optimizer="muon",
                learning_rate=0.08,
                table_learning_rate=0.064,
                options={"momentum": 0.9, "weight_decay": 0.1, "adamw_weight_decay": 0.1},
            ),
            local=True,
            outer_learning_rate=1.0,
            outer_momentum=0.5,
        ),
    },
}


def best(tier: str) -> dict[str, Method]:
    """Winners of the search by method; in the quick tier, which is not searched, where it begins.

    Raises:
        ValueError: the tier was not searched yet.
    """
    if tier == "quick":
        return BEST.get(tier, START)
    if tier not in BEST:
        raise ValueError(
            f"the local steps of the {tier} tier have no settings yet: run python -m"
            f" oarlock.accept.convergence.local_steps --tier {tier}, and put the winners that it"
            " prints into BEST in oarlock/accept/convergence/local_steps.py"
        )
    return BEST[tier]


def rates(method: Method) -> Iterator[Method]:
    """One of the two learning rates, or both, doubled or halved."""
    for setting in neighbours(method.setting):
        yield replace(method, setting=setting)


def others(method: Method) -> tuple[Method, ...]:
    """As many changes for every method: what is outside, or else warm-up and weight decay."""
    if method.local:
        outer = ((0.7, 0.9), (1.0, 0.5), (1.0, 0.0))
        return tuple(
            replace(method, outer_learning_rate=rate, outer_momentum=momentum)
            for rate, momentum in outer
        )
    setting = method.setting
    decays = [name for name in setting.options if name.endswith("weight_decay")]
    undecayed = dict(setting.options) | dict.fromkeys(decays, 0.0)
    return (
        replace(method, setting=replace(setting, warmup=0.25)),
        replace(method, setting=replace(setting, warmup=0.03)),
        replace(method, setting=replace(setting, options=undecayed)),
    )


def train(
    plan: Plan,
    method: Method,
    text: str,
    *,
    seed: int,
    on_round: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Train to the end of the schedule; validation losses after each round, and bytes sent.

    Every method sees the same tokens: worker k draws from a stream of its own, and a step together
    takes the batches of all workers as one.

    Raises:
        FloatingPointError: a loss or a gradient is not finite.
    """
    from oarlock.accept.convergence import race
    from oarlock.core_opt.optim import parallel
    from oarlock.llm.data import BatchSampler

    task = plan.task
    training, held_out = race.tokens(text)
    validation = race._validation_batches(held_out, task)
    streams = [
        BatchSampler(training, task.batch, task.context, seed=seed * WORKERS + worker)
        for worker in range(WORKERS)
    ]
    runners = [
        race.runner_of(task, method.setting, task.steps, training, seed)
        for _ in range(WORKERS if method.local else 1)
    ]
    curve = []
    if method.local:
        options = parallel.Options(
            inner_steps=plan.inner_steps,
            outer_learning_rate=method.outer_learning_rate,
            outer_momentum=method.outer_momentum,
            bits=method.bits,
        )
        replicas = [
            parallel.Replica(one.model, partial(_optimizer_of, one), worker=k, options=options)
            for k, one in enumerate(runners)
        ]
    else:
        runners[0].batches = _together(streams)
    for number in range(plan.rounds):
        if method.local:
            sent = [
                one.send(lambda model, worker: model.loss(*next(streams[worker])))[0]
                for one in replicas
            ]
            for one in replicas:
                one.receive(sent)
        else:
            runners[0].advance((number + 1) * plan.inner_steps)
        steps = (number + 1) * plan.inner_steps
        curve.append((steps, runners[0].validate(validation)))
        on_round(number + 1, plan.rounds)
    size = sum(p.size for p in runners[0].model.parameters())
    sent_bytes = replicas[0].bytes_sent if method.local else 4 * size * task.steps
    return {"curve": curve, "loss": curve[-1][1], "bytes": sent_bytes}


def _optimizer_of(runner: Any, model: Any) -> Any:
    """What a replica takes as the maker of its inner optimiser: the runner has made it."""
    return runner.optimizer


def _together(streams: list) -> Iterator[tuple]:
    import paddle

    while True:
        parts = [next(stream) for stream in streams]
        yield tuple(paddle.concat(list(tensors)) for tensors in zip(*parts))


class Search:
    """Trials of one tier, kept in a JSON file."""

    def __init__(self, path: Path, tier: str, text: str, origin: str):
        self.path, self.plan, self.text = path, PLANS[tier], text
        self.record: dict[str, Any] = {
            "criterion": "1.1",
            "tier": tier,
            "plan": asdict(self.plan),
            "workers": WORKERS,
            "data": origin,
            "seed": SEED,
            "trials": [],
        }
        del (
            self.record["plan"]["task"]["seeds"],
            self.record["plan"]["shorter"],
        )  # not of the search
        self.record = json.loads(json.dumps(self.record))
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if {**kept, "trials": []} != self.record:
                raise ValueError(f"{path} is the record of another search; move it away first")
            self.record = kept

    def trial(self, name: str, method: Method) -> float:
        """Validation loss of one setting, infinite where it diverged; run unless on record."""
        key = {"name": name, "method": json.loads(json.dumps(asdict(method)))}
        for one in self.record["trials"]:
            if all(one[part] == key[part] for part in key):
                return math.inf if one["validation_loss"] is None else one["validation_loss"]
        try:
            loss: float | None = round(train(self.plan, method, self.text, seed=SEED)["loss"], 5)
        except FloatingPointError:
            loss = None
        self.record["trials"].append(key | {"validation_loss": loss})
        part = self.path.with_name(f".{self.path.name}")
        part.write_text(json.dumps(self.record, indent=1) + "\n", encoding="utf-8")
        os.replace(part, self.path)
        print(f"{name:7} loss {loss}  {method}", file=sys.stderr, flush=True)
        return math.inf if loss is None else loss

    def run(self, name: str) -> Method:
        """Downhill in the rates for RATE_TRIALS, then other changes of the leader; the winner."""
        leader = START[name]
        lowest, tried = self.trial(name, leader), [leader]
        moved = True
        while moved:
            moved = False
            for method in rates(leader):
                if method in tried or len(tried) == RATE_TRIALS:
                    continue
                tried.append(method)
                loss = self.trial(name, method)
                if loss < lowest:
                    leader, lowest, moved = method, loss, True
                    break
        for method in others(leader)[: TRIALS - len(tried)]:
            loss = self.trial(name, method)
            if loss < lowest:
                leader, lowest = method, loss
        return leader


def winner(record: Mapping[str, Any], name: str) -> Method:
    """The best trial of a method."""
    trials = [
        one
        for one in record["trials"]
        if one["name"] == name and one["validation_loss"] is not None
    ]
    return Method.of(min(trials, key=lambda one: one["validation_loss"])["method"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tier", choices=sorted(PLANS), default="quick")
    parser.add_argument("--out", type=Path, default=Path("integration/results/sweeps"))
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--only", choices=sorted(START), action="append")
    arguments = parser.parse_args()
    from oarlock.accept import data
    from oarlock.native.paddle import accelerate

    print(accelerate(threads=arguments.threads), file=sys.stderr)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"1.1-{arguments.tier}-local-steps.json"
    search = Search(path, arguments.tier, data.load_text(DATA), data.origin(DATA))
    for name in arguments.only or START:
        print(f"{name}: {search.run(name)}")


if __name__ == "__main__":
    main()
