"""Criterion 1.1: Muon against tuned AdamW, steps and time to the same loss on real text.

Theory: `docs/topics/1.1.md`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from oarlock.accept.convergence.lengths import length_to
from oarlock.accept.convergence.settings import DATA, MODELS, TASKS, Setting, Task
from oarlock.accept.convergence.settings import best as best_settings
from oarlock.accept.experiment import Evidence, Run, experiment
from oarlock.accept.measure.stats import Ratio, bootstrap_ratio, one_sided_p

FEWER_STEPS = 1.3  #: targets, set before anything was measured
LESS_TIME = 1.1
SIGNIFICANT = 0.001

#: What a race leaves of each arm: steps, wall_s, cpu_s and the curve of (step, validation loss).
Race = dict[str, dict[str, Any]]


@experiment(
    "1.1",
    name="muon-llama",
    tiers=("quick", "full"),
    title="Muon against tuned AdamW: steps and time to the same loss, LLaMA on Shakespeare",
    minutes=15,
    data=(DATA,),
)
def muon_llama(run: Run) -> Iterator[Evidence]:
    """See `_compare`."""
    yield from _compare(run, "llama")


@experiment(
    "1.1",
    name="muon-gpt",
    tiers=("full",),
    title="Muon against tuned AdamW: steps and time to the same loss, GPT on Shakespeare",
    minutes=20,
    data=(DATA,),
)
def muon_gpt(run: Run) -> Iterator[Evidence]:
    """See `_compare`."""
    yield from _compare(run, "gpt")


@experiment(
    "1.1",
    name="muon-glm",
    tiers=("full",),
    title="Muon against tuned AdamW: steps and time to the same loss, GLM on Shakespeare",
    minutes=15,
    data=(DATA,),
)
def muon_glm(run: Run) -> Iterator[Evidence]:
    """See `_compare`."""
    yield from _compare(run, "glm")


def _compare(run: Run, model: str) -> Iterator[Evidence]:
    """Steps and time that Muon needs to reach the loss at which tuned AdamW ends.

    Every run goes to the end of its own schedule, because rankings in its middle mislead. For each
    seed AdamW runs once and Muon at shorter lengths; the length at which Muon would end at AdamW's
    loss is interpolated, linearly in the logarithm of the length. All runs of a seed take turns.
    """
    from oarlock.accept import data
    from oarlock.accept.convergence.race import TURNS, race
    from oarlock.native.paddle import accelerate

    run.log(str(accelerate()))
    task, best = TASKS[run.tier][model], best_settings(run.tier, model)
    if run.tier == "quick":
        text, origin = data.text_or_fallback(DATA)
    else:  # no substitute for what is judged in full
        text, origin = data.load_text(DATA), data.origin(DATA)
    run.log(f"text: {origin}")
    arms = {"adamw": (best["adamw"], task.steps)}
    arms |= {f"muon {steps}": (best["muon"], steps) for steps in task.shorter}
    seeds = [run.seed + number for number in range(task.seeds)]

    def train(number: int) -> Race:
        def on_turn(done: int, total: int) -> None:
            run.progress(number * total + done, len(seeds) * total, f"seed {seeds[number]}")

        turns = 4 if run.tier == "quick" else TURNS
        found = race(task, arms, text, seed=seeds[number], turns=turns, on_turn=on_turn)
        return {name: asdict(one) for name, one in found.items()}

    races: list[Race] = [
        run.remember(["race", seed], partial(train, number)) for number, seed in enumerate(seeds)
    ]
    notes = _notes(task, best, races, origin)
    shared = {"n": len(seeds), "seeds": seeds, "level": "measured"}
    yield _loss(task, races, notes, shared)
    if run.tier == "quick":
        return
    yield _significance(task, races, shared)
    lengths = [length_to(_muon_ends(one), _end(one["adamw"])) for one in races]
    yield _steps(task, lengths, notes, shared)
    for clock in ("wall", "cpu"):
        yield _time(task, races, lengths, clock, notes, shared)


def _end(one: dict[str, Any]) -> float:
    return one["curve"][-1][1]


def _muon_ends(race: Race) -> list[tuple[int, float]]:
    return [(one["steps"], _end(one)) for name, one in race.items() if name != "adamw"]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _paired(base: Sequence[float], ours: Sequence[float]) -> Ratio:
    return bootstrap_ratio(base, ours, paired=True, statistic="mean")


def _losses(races: list[Race]) -> dict[str, list[float]]:
    return {name: [_end(one[name]) for one in races] for name in races[0]}


def _notes(task: Task, best: Mapping[str, Setting], races: list[Race], origin: str) -> str:
    means = "; ".join(f"{name} {_mean(values):.4f}" for name, values in _losses(races).items())
    return (
        f"{MODELS[task.model]} of width {task.hidden_size}, {task.num_layers} layers;"
        f" {task.tokens_a_step} tokens a step; text: {origin}. Settings of both from the committed"
        f" sweep: {_words(best['adamw'])}; {_words(best['muon'])}. Validation loss, mean over seeds:"
        f" {means}."
    )


def _words(setting: Setting) -> str:
    options = ", ".join(f"{name} {value}" for name, value in setting.options.items())
    return (
        f"{setting.optimizer} at {setting.learning_rate:g} (tables {setting.table_learning_rate:g}),"
        f" warm-up {setting.warmup:g}, {options}"
    )


def _loss(task: Task, races: list[Race], notes: str, shared: dict[str, Any]) -> Evidence:
    losses = _losses(races)
    ours = losses[f"muon {max(task.shorter)}"]
    ratio = _paired(losses["adamw"], ours)
    return Evidence(
        name=f"muon-{task.model}-loss",
        metric=f"{_title(task)}: validation loss after {max(task.shorter)} steps, AdamW's after"
        f" {task.steps}",
        unit="nats/byte",
        direction="lower",
        baseline=_mean(losses["adamw"]),
        baseline_name="AdamW, tuned",
        ours=_mean(ours),
        ratio=ratio.value,
        ci=ratio.ci,
        target=1.0,
        exclusive=True,
        notes=notes,
        series=[_curve(races, name) for name in races[0]],
        **shared,
    )


def _title(task: Task) -> str:
    return MODELS[task.model]


def _curve(races: list[Race], name: str) -> dict[str, Any]:
    steps = [step for step, _ in races[0][name]["curve"]]
    optimizer = {"adamw": "AdamW", "muon": "Muon"}[name.split()[0]]
    return {
        "label": f"{optimizer}, {steps[-1]} steps",
        "x": steps,
        "y": [
            round(_mean([one[name]["curve"][i][1] for one in races]), 4) for i in range(len(steps))
        ],
        "x_label": "training step",
        "y_label": "validation loss, nats a byte",
    }


def _significance(task: Task, races: list[Race], shared: dict[str, Any]) -> Evidence:
    """The claim of `FEWER_STEPS` times fewer steps, as a test of losses at such a length."""
    steps = max(length for length in task.shorter if length * FEWER_STEPS <= task.steps)
    losses = _losses(races)
    p = one_sided_p(losses["adamw"], losses[f"muon {steps}"], paired=True)
    return Evidence(
        name=f"muon-{task.model}-p",
        metric=f"{_title(task)}: p that Muon after {steps} steps is no better than AdamW after"
        f" {task.steps}",
        unit="1",
        direction="lower",
        baseline=SIGNIFICANT,
        baseline_name="required",
        ours=p,
        ratio=SIGNIFICANT / max(p, 1e-12),
        target=1.0,
        exclusive=True,
        notes="One-sided t test of the differences of validation loss, paired by seed.",
        **shared,
    )


def _steps(task: Task, lengths: list[float], notes: str, shared: dict[str, Any]) -> Evidence:
    ratio = _paired([task.steps] * len(lengths), lengths)
    enclosed = sum(min(task.shorter) <= length <= max(task.shorter) for length in lengths)
    return Evidence(
        name=f"muon-{task.model}-steps",
        metric=f"{_title(task)}: training steps to AdamW's final loss",
        unit="steps",
        direction="lower",
        baseline=task.steps,
        baseline_name="AdamW, tuned",
        ours=_mean(lengths),
        ratio=ratio.value,
        ci=ratio.ci,
        target=FEWER_STEPS,
        notes=(
            f"The length lies between those run, {min(task.shorter)} and {max(task.shorter)}, for"
            f" {enclosed} of {len(lengths)} seeds. {notes}"
        ),
        **shared,
    )


def _time(
    task: Task,
    races: list[Race],
    lengths: list[float],
    clock: str,
    notes: str,
    shared: dict[str, Any],
) -> Evidence:
    def seconds_a_step(race: Race) -> float:
        runs = [one for name, one in race.items() if name != "adamw"]
        return sum(one[f"{clock}_s"] for one in runs) / sum(one["steps"] for one in runs)

    base = [one["adamw"][f"{clock}_s"] for one in races]
    ours = [length * seconds_a_step(one) for length, one in zip(lengths, races)]
    ratio = _paired(base, ours)
    words = {"wall": "training", "cpu": "processor"}[clock]
    return Evidence(
        name=f"muon-{task.model}-time" if clock == "wall" else f"muon-{task.model}-cpu-time",
        metric=f"{_title(task)}: {words} time to AdamW's final loss",
        unit="s",
        direction="lower",
        baseline=_mean(base),
        baseline_name="AdamW, tuned",
        ours=_mean(ours),
        ratio=ratio.value,
        ci=ratio.ci,
        target=LESS_TIME if clock == "wall" else None,
        notes=f"Training steps only, the optimiser's included; validation is not timed. {notes}",
        **shared,
    )
