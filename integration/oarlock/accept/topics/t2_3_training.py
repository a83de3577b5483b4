"""Criterion 2.3.1: training with sparse attention against dense training, to the same loss.

Theory: `docs/topics/2.3.md`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from oarlock.accept.convergence.lengths import length_to
from oarlock.accept.convergence.settings import DATA
from oarlock.accept.experiment import Evidence, Run, experiment
from oarlock.accept.convergence import reports
from oarlock.accept.convergence.reports import Race
from oarlock.accept.measure.stats import bootstrap_ratio
from oarlock.accept.sparse_training.settings import COMPARISONS, Comparison, operations

LESS_TIME = 1 / 0.85  #: the criterion: 15 % less than dense
NO_WORSE = 1.0  #: least loss of the dense model over that of the longest sparse run
DENSE = "dense"


@experiment(
    "2.3.1",
    name="training",
    tiers=("quick", "full"),
    title="Sparse attention against dense training: time to the same loss, LLaMA over long contexts",
    minutes=45,
    data=(DATA,),
)
def training(run: Run) -> Iterator[Evidence]:
    """Training time to the validation loss at which the dense model ends.

    For each seed all arms start from the same seed's weights, see the same batches and take turns; the
    optimiser is the same, and dense attention is computed by the same kernels. The sparse model
    and the narrower rival train at two lengths each, to the end of their own schedules; between them the
    length is interpolated that ends at the dense model's loss.
    """
    from oarlock.accept.convergence.race import race
    from oarlock.native.paddle import accelerate

    run.log(str(accelerate()))
    one = COMPARISONS[run.tier]
    text, origin = reports.text_of(run)
    seeds = [run.seed + number for number in range(one.task.seeds)]
    lengths = {DENSE: one.task.steps}
    lengths |= {f"sparse {steps}": steps for steps in one.sparse_steps}
    lengths |= {f"narrow {steps}": steps for steps in one.narrow_steps}
    prepare: dict[str, Callable[[Any], object]] = {
        arm: partial(_attend, masks=one.windows() if arm.startswith("sparse") else one.dense())
        for arm in lengths
    }

    def train(number: int) -> dict[str, Any]:
        def on_turn(done: int, total: int) -> None:
            run.progress(number * total + done, len(seeds) * total, f"seed {seeds[number]}")

        found = race(
            one.task,
            {arm: (one.setting, steps) for arm, steps in lengths.items()},
            text,
            seed=seeds[number],
            prepare=prepare,
            tasks={arm: one.rival for arm in lengths if arm.startswith("narrow")},
            on_turn=on_turn,
        )
        return {arm: asdict(done) for arm, done in found.items()}

    races: list[Race] = [
        run.remember(["race", seed], partial(train, number)) for number, seed in enumerate(seeds)
    ]
    yield from _evidence(one, races, seeds, _about(one, races, origin), judged=run.tier == "full")


def _attend(model: Any, *, masks: Any) -> None:
    model.attend(masks)


def _about(one: Comparison, races: Sequence[Race], origin: str) -> str:
    task = one.task
    counts = {
        DENSE: operations(task, one.dense()),
        "sparse": operations(task, one.windows()),
        "narrow": operations(one.rival, one.dense()),
    }
    ends = "; ".join(
        f"{arm} {reports.mean(reports.ends(races, arm)):.4f} after {races[0][arm]['steps']} steps,"
        f" {reports.mean([seed[arm]['wall_s'] for seed in races]):.0f} s"
        for arm in races[0]
    )
    return (
        f"LLaMA of width {task.hidden_size}, {task.num_layers} layers, context {task.context},"
        f" {task.tokens_a_step} tokens a step of Muon; text: {origin}. Sparse: a window of"
        f" {one.window} tokens in all layers but the last. Narrow: width {one.narrow}. Multiplications for"
        " a token: "
        + ", ".join(f"{arm} {count / 1e6:.1f} million" for arm, count in counts.items())
        + f". Loss and time, means over seeds: {ends}."
    )


def _evidence(
    one: Comparison, races: Sequence[Race], seeds: Sequence[int], about: str, *, judged: bool
) -> Iterator[Evidence]:
    shared: dict[str, Any] = {
        "n": len(seeds),
        "seeds": list(seeds),
        "level": "measured",
        "notes": about,
    }
    goals = [race[DENSE]["curve"][-1][1] for race in races]
    ours = [_time_to(race, "sparse", goal) for race, goal in zip(races, goals)]
    rivals = {
        DENSE: ("dense attention", [race[DENSE]["wall_s"] for race in races], LESS_TIME),
        "narrow": (
            f"dense, width {one.narrow}",
            [_time_to(race, "narrow", goal) for race, goal in zip(races, goals)],
            1.0,
        ),
    }
    for name, (words, baseline, target) in rivals.items():
        ratio = bootstrap_ratio(baseline, ours, paired=True, statistic="mean")
        yield Evidence(
            name=f"sparse-attention-{name}-time",
            metric="training time to the dense model's final loss",
            unit="s",
            direction="lower",
            baseline=reports.mean(baseline),
            baseline_name=words,
            ours=reports.mean(ours),
            ratio=ratio.value,
            ci=ratio.ci if len(races) > 1 else None,
            target=target,
            exclusive=name != DENSE,
            judged=judged,
            **shared,
        )
    steps = max(one.sparse_steps)
    yield Evidence(
        name="sparse-attention-loss",
        metric=f"validation loss after {steps} steps, the dense model's after {one.task.steps}",
        unit="nats/byte",
        direction="lower",
        baseline=reports.mean(goals),
        baseline_name="dense attention",
        ours=reports.mean(reports.ends(races, f"sparse {steps}")),
        target=NO_WORSE,
        series=[reports.curve(races, arm) for arm in races[0]],
        **shared,
    )


def _time_to(race: Race, kind: str, loss: float) -> float:
    """Seconds of a run of this kind whose length, interpolated, ends at a loss."""
    runs = [one for arm, one in race.items() if arm.split()[0] == kind]
    ends = [(one["steps"], one["curve"][-1][1]) for one in runs]
    a_step = sum(one["wall_s"] for one in runs) / sum(one["steps"] for one in runs)
    return length_to(ends, loss) * a_step
