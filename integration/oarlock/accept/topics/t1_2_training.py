"""Criterion 1.2: training by a searched plan against float32, stock AMP and uniform bfloat16.

Theory: `docs/topics/1.2.md`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from oarlock.accept.convergence.lengths import length_to
from oarlock.accept.convergence.settings import DATA, Task
from oarlock.accept.experiment import Evidence, Run, experiment
from oarlock.accept.convergence import reports
from oarlock.accept.convergence.reports import Race
from oarlock.accept.low_precision.settings import ADAMW, LONGER, TASKS
from oarlock.accept.measure.stats import bootstrap_ratio

LESS_TIME = 1 / 0.75  #: 25 % less than float32 and than stock AMP
LESS_THAN_BF16 = 1 / 0.9  #: 10 % less than uniform bfloat16
NO_WORSE = 0.995  #: least loss of float32 over the plan's after as many steps

BASELINES = {
    "stock": ("paddle.amp O1, bfloat16", LESS_TIME),
    "fp32": ("float32, tuned", LESS_TIME),
    "bf16": ("uniform bfloat16 O1, our kernels", LESS_THAN_BF16),
}
MODELS = {"llama": "LLaMA", "gpt": "GPT"}


@experiment(
    "1.2",
    name="plan-llama",
    tiers=("quick", "full"),
    title="A searched plan against float32, stock AMP and bfloat16: time to the same loss, LLaMA",
    minutes=25,
    data=(DATA,),
)
def plan_llama(run: Run) -> Iterator[Evidence]:
    """See `_compare`."""
    yield from _compare(run, "llama")


@experiment(
    "1.2",
    name="plan-gpt",
    tiers=("full",),
    title="A searched plan against float32, stock AMP and bfloat16: time to the same loss, GPT",
    minutes=25,
    data=(DATA,),
)
def plan_gpt(run: Run) -> Iterator[Evidence]:
    """See `_compare`."""
    yield from _compare(run, "gpt")


def _compare(run: Run, name: str) -> Iterator[Evidence]:
    """Training time to the validation loss at which each baseline ends.

    For each seed all arms start from the same weights, see the same batches and take turns. The plan
    is searched on the first batch of the first seed and kept for all; it trains at two lengths, each
    to the end of its own schedule, between which the length is interpolated that ends at a baseline's
    loss. `accelerate()` is on in every arm, and the optimiser and its settings are the same.
    """
    from oarlock.accept.convergence.race import race
    from oarlock.accept.low_precision import arms
    from oarlock.core_opt import precision
    from oarlock.native.paddle import accelerate, kernels

    quick, task = run.tier == "quick", TASKS[run.tier][name]
    run.log(str(accelerate()))
    run.log(f"bfloat16: products in {kernels.load().matmul}")
    text, origin = reports.text_of(run)
    seeds = [run.seed + number for number in range(task.seeds)]
    plan = _plan(run, task, text, seeds[0])
    longer = round(task.steps * LONGER)
    lengths = {"stock": task.steps, "fp32": task.steps, "bf16": task.steps}
    lengths |= {f"plan {steps}": steps for steps in (task.steps, longer)}
    prepare: dict[str, Callable[[Any], object]] = {
        "stock": arms.stock_amp,
        "fp32": arms.float32,
        "bf16": arms.uniform_bfloat16,
    }
    prepare |= {
        arm: partial(precision.apply, plan=plan) for arm in lengths if arm.startswith("plan")
    }

    def train(number: int) -> dict[str, Any]:
        def on_turn(done: int, total: int) -> None:
            run.progress(number * total + done, len(seeds) * total, f"seed {seeds[number]}")

        found = race(
            task,
            {arm: (ADAMW[name], steps) for arm, steps in lengths.items()},
            text,
            seed=seeds[number],
            prepare=prepare,
            on_turn=on_turn,
        )
        return {arm: asdict(one) for arm, one in found.items()}

    races: list[Race] = [
        run.remember([name, seed], partial(train, i)) for i, seed in enumerate(seeds)
    ]
    about = (
        f"{MODELS[name]} of width {task.hidden_size}, {task.num_layers} layers,"
        f" {task.tokens_a_step} tokens a step, {task.steps} steps of AdamW; text: {origin}. Plan:"
        f" {_counts(plan)}; {plan.forecast}. Loss at the end, mean over seeds: "
        + "; ".join(f"{arm} {reports.mean(reports.ends(races, arm)):.4f}" for arm in lengths)
        + "."
    )
    yield from _evidence(name, races, task.steps, seeds, about, judged=not quick)
    yield _stock_is_float32(name, races, about)


def _plan(run: Run, task: Task, text: str, seed: int) -> Any:
    """Searched on a first batch; from memory where the experiment was begun before."""
    from oarlock.accept.convergence import race
    from oarlock.accept.low_precision import arms
    from oarlock.core_opt import precision
    from oarlock.llm.data import BatchSampler

    def search() -> dict[str, Any]:
        training, _ = race.tokens(text)
        batch = next(iter(BatchSampler(training, task.batch, task.context, seed=seed)))
        plan = precision.search(race.model_of(task, seed), batch, loss=arms.loss)
        run.log(plan.report())
        return plan.as_dict()

    return precision.Plan.from_dict(run.remember(["plan", task.model, seed], search))


def _evidence(
    name: str, races: Sequence[Race], steps: int, seeds: Sequence[int], about: str, *, judged: bool
) -> Iterator[Evidence]:
    shared: dict[str, Any] = {"n": len(seeds), "seeds": list(seeds), "level": "measured"}
    lengths = sorted(int(arm.split()[1]) for arm in races[0] if arm.startswith("plan "))
    for arm, (words, target) in BASELINES.items():
        baseline = [one[arm]["wall_s"] for one in races]
        ours = [_time_to(one, lengths, one[arm]["curve"][-1][1]) for one in races]
        ratio = bootstrap_ratio(baseline, ours, paired=True, statistic="mean")
        yield Evidence(
            name=f"plan-{name}-{arm}-time",
            metric=f"{MODELS[name]}: training time to the baseline's final loss",
            unit="s",
            direction="lower",
            baseline=reports.mean(baseline),
            baseline_name=words,
            ours=reports.mean(ours),
            ratio=ratio.value,
            ci=ratio.ci if len(races) > 1 else None,
            target=target,
            judged=judged,
            notes=about,
            **shared,
        )
    yield Evidence(
        name=f"plan-{name}-loss",
        metric=f"{MODELS[name]}: validation loss after as many steps, relative",
        unit="nats/byte",
        direction="lower",
        baseline=reports.mean(reports.ends(races, "fp32")),
        baseline_name="float32, tuned",
        ours=reports.mean(reports.ends(races, f"plan {steps}")),
        target=NO_WORSE,
        notes=about,
        series=[reports.curve(races, arm) for arm in ("fp32", "bf16", f"plan {steps}")],
        **shared,
    )


def _time_to(race: Race, lengths: Sequence[int], loss: float) -> float:
    """Seconds of a planned run whose length, interpolated, ends at a loss."""
    ends = [(steps, race[f"plan {steps}"]["curve"][-1][1]) for steps in lengths]
    a_step = sum(race[f"plan {steps}"]["wall_s"] for steps in lengths) / sum(lengths)
    return length_to(ends, loss) * a_step


def _stock_is_float32(name: str, races: Sequence[Race], about: str) -> Evidence:
    """Stock AMP on a CPU computes in float32: the same bits."""
    differences = [
        abs(a - b)
        for one in races
        for (_, a), (_, b) in zip(one["stock"]["curve"], one["fp32"]["curve"])
    ]
    return Evidence(
        name=f"plan-{name}-stock-difference",
        metric=f"{MODELS[name]}: largest difference of validation loss, paddle.amp and float32",
        unit="nats/byte",
        direction="lower",
        baseline=None,
        baseline_name="none: paddle.amp casts nothing on a CPU",
        ours=max(differences),
        n=len(differences),
        notes=f"Biases' gradients are summed in another order in the float32 arm. {about}",
    )


def _counts(plan: Any) -> str:
    return ", ".join(f"{count} products in {name}" for name, count in plan.count().items())
