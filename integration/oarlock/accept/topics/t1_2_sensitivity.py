"""Criterion 1.2: whether the probe ranks choices as training does, and how uniform formats converge.

Theory: `docs/topics/1.2.md`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from oarlock.accept.convergence.settings import DATA
from oarlock.accept.experiment import Evidence, Run, experiment
from oarlock.accept.convergence import reports
from oarlock.accept.low_precision.settings import (
    FORMATS,
    QUICK_FORMATS,
    SMALL,
    SMALL_ADAMW,
    STEPS_OF_A_CHOICE,
)
from oarlock.accept.measure.stats import bootstrap_ratio

RANK = 0.8  #: least rank correlation of predicted and measured changes of the loss
NO_WORSE = 0.99  #: least loss of float32 over that of a format
EMULATED = ("bf16", "fp16", "fp8")  #: computed in float32 here on operands rounded to the format


@experiment(
    "1.2",
    name="sensitivity",
    tiers=("quick", "full"),
    title="Predicted against measured change of the loss for every layer, product and format",
    minutes=12,
    data=(DATA,),
)
def sensitivity(run: Run) -> Iterator[Evidence]:
    """Rank correlation over all choices; the one constant of the prediction is taken from another seed."""
    from oarlock.accept.low_precision import divergence
    from oarlock.native.paddle import accelerate

    run.log(str(accelerate()))
    text, origin = reports.text_of(run)
    quick = run.tier == "quick"
    task, steps = SMALL[run.tier], STEPS_OF_A_CHOICE[run.tier]
    formats = QUICK_FORMATS if quick else FORMATS
    seeds = [run.seed + number for number in range(task.seeds + 1)]
    found = []
    for number, seed in enumerate(seeds):

        def on_choice(done: int, total: int) -> None:
            run.progress(number * total + done, len(seeds) * total, f"seed {seed}")

        measure = partial(
            divergence.choices,
            task,
            SMALL_ADAMW,
            text,
            seed=seed,
            formats=formats,
            steps=steps,
            total_steps=10 * task.steps,
            on_choice=on_choice,
        )
        records = run.remember(["choices", seed], lambda: [asdict(one) for one in measure()])
        found.append([divergence.Choice(**one) for one in records])
    drift = divergence.drift_of(found[0])
    notes = (
        f"LLaMA of width {task.hidden_size}, {task.num_layers} layers, after {task.steps} steps in"
        f" float32; each choice trains {steps} steps more on the same batches, measured is the root"
        f" mean square difference of their losses. Formats: {', '.join(formats)}; text: {origin}."
        f" Drift {drift:.2g} nats² from seed {seeds[0]}, which is not among those judged."
    )
    yield _correlation("sensitivity-rank", "all choices", found[1:], drift, seeds[1:], notes, RANK)
    for role in ("forward", "input_grad", "weight_grad"):
        some = [[one for one in choices if one.role == role] for choices in found[1:]]
        name = f"sensitivity-rank-{role.replace('_', '-')}"
        yield _correlation(name, f"choices of {role}", some, drift, seeds[1:], notes, None)


def _correlation(
    name: str,
    what: str,
    found: Sequence[list],
    drift: float,
    seeds: Sequence[int],
    notes: str,
    target: float | None,
) -> Evidence:
    from oarlock.accept.low_precision import divergence

    values = [divergence.rank_correlation(choices, drift) for choices in found]
    required = target if target is not None else RANK
    ratio = bootstrap_ratio(values, [required] * len(values), paired=True, statistic="mean")
    first = sorted(found[0], key=lambda one: one.predicted(drift))
    return Evidence(
        name=name,
        metric=f"rank correlation of predicted and measured change of the loss, {what}",
        unit="1",
        direction="higher",
        baseline=required,
        baseline_name="required" if target is not None else "as required of all together",
        ours=reports.mean(values),
        ratio=ratio.value,
        ci=ratio.ci if len(values) > 1 else None,
        n=len(values),
        seeds=list(seeds),
        target=None if target is None else 1.0,
        level="emulated",
        notes=f"{len(found[0])} choices a seed. {notes}",
        series=[
            {
                "label": what,
                "x": [one.predicted(drift) for one in first],
                "y": [one.change for one in first],
                "x_label": "predicted change of the loss, nats",
                "y_label": "measured change, nats",
            }
        ],
    )


@experiment(
    "1.2",
    name="recipes",
    tiers=("full",),
    title="Convergence with every product of every linear layer in one format",
    minutes=10,
    data=(DATA,),
)
def recipes(run: Run) -> Iterator[Evidence]:
    """Validation loss of uniform formats against float32 after as many steps."""
    from oarlock.accept.convergence.race import race
    from oarlock.core_opt import precision
    from oarlock.native.paddle import accelerate

    run.log(str(accelerate()))
    text, origin = reports.text_of(run)
    task = SMALL["recipes"]
    names = ("fp32", *FORMATS)
    seeds = [run.seed + number for number in range(task.seeds)]

    def uniform(name: str, model: Any) -> None:
        three = precision.Formats(name, name, name)
        layers = (layer for layer, _ in precision.linears(model))
        precision.apply(model, precision.Plan.of(dict.fromkeys(layers, three)))

    def train(number: int) -> dict[str, Any]:
        def on_turn(done: int, total: int) -> None:
            run.progress(number * total + done, len(seeds) * total, f"seed {seeds[number]}")

        found = race(
            task,
            {name: (SMALL_ADAMW, task.steps) for name in names},
            text,
            seed=seeds[number],
            prepare={name: partial(uniform, name) for name in FORMATS},
            on_turn=on_turn,
        )
        return {name: asdict(one) for name, one in found.items()}

    races = [run.remember(["recipes", seed], partial(train, i)) for i, seed in enumerate(seeds)]
    exact = reports.ends(races, "fp32")
    for name in FORMATS:
        found = reports.ends(races, name)
        ratio = bootstrap_ratio(exact, found, paired=True, statistic="mean")
        yield Evidence(
            name=f"recipe-{name.replace('_', '-')}",
            metric=f"validation loss with all three products of every linear layer in {name}",
            unit="nats/byte",
            direction="lower",
            baseline=reports.mean(exact),
            baseline_name="float32",
            ours=reports.mean(found),
            ratio=ratio.value,
            ci=ratio.ci,
            n=len(seeds),
            seeds=seeds,
            target=NO_WORSE,
            level="emulated" if name in EMULATED else "measured",
            notes=(
                f"LLaMA of width {task.hidden_size}, {task.num_layers} layers,"
                f" {task.tokens_a_step} tokens a step, {task.steps} steps; text: {origin}."
            ),
            series=[reports.curve(races, arm) for arm in ("fp32", name)],
        )
