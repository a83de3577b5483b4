"""Criterion 1.1: local steps at four workers against a step together, at equal tokens.

Theory: `docs/topics/1.1.md`, "Asynchrony: what delay costs".
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from oarlock.accept.experiment import Evidence, Run, experiment
from oarlock.accept.measure.stats import bootstrap_ratio

DATA = "llm/tinyshakespeare"
KEPT = 0.95  #: least share of the token efficiency of the same optimiser in a step together
KEPT_IN_FEW_BITS = 0.98  #: least loss in float32 over that in few bits
FEWER_BYTES = 6.0  #: with 4 bits, besides one exchange in place of one each step

#: Local steps, and the step together with the same optimiser.
TOGETHER = {"muloco": "muon", "diloco": "adamw"}
WORDS = {"muon": "Muon, a step together", "adamw": "AdamW, a step together"}


@experiment(
    "1.1",
    name="local-steps",
    tiers=("quick", "full"),
    title="DiLoCo and MuLoCo at four workers against a step together, LLaMA on Shakespeare",
    minutes=16,
    data=(DATA,),
)
def local_steps(run: Run) -> Iterator[Evidence]:
    """Validation loss and bytes sent at equal tokens, every method at its best settings.

    The K replicas take turns in this process and compute exactly what K processes would, which a
    test of the library holds them to; so the losses are measured. All methods see the same tokens. A
    step together also trains at shorter lengths, each to the end of its own schedule, between which
    the length is found at which it would end at the loss of local steps.
    """
    from oarlock.accept import data
    from oarlock.accept.convergence.local_steps import PLANS, WORKERS, best, train
    from oarlock.native.paddle import accelerate

    quick, plan, settings = run.tier == "quick", PLANS[run.tier], best(run.tier)
    run.log(str(accelerate()))
    if quick:
        text, origin = data.text_or_fallback(DATA)
    else:  # no substitute for what is judged in full
        text, origin = data.load_text(DATA), data.origin(DATA)
    methods = {name: method for name, method in settings.items() if not quick or "mu" in name}
    methods["muloco 4 bits"] = replace(settings["muloco"], bits=4)
    if not quick:
        methods["diloco 4 bits"] = replace(settings["diloco"], bits=4)
        methods["muloco 2 bits"] = replace(settings["muloco"], bits=2)
    together = {name: base for name, base in TOGETHER.items() if name in methods}
    arms = {name: (plan, method) for name, method in methods.items()}
    for base in together.values():
        for steps in plan.shorter:
            arms[_shorter(base, steps)] = plan.of_length(steps), methods[base]
    seeds = [run.seed + number for number in range(plan.task.seeds)]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in arms}
    for number, seed in enumerate(seeds):
        for place, (name, (length, method)) in enumerate(arms.items()):
            run.progress(number + place / len(arms), len(seeds), f"seed {seed}, {name}")
            measure = partial(train, length, method, text, seed=seed)
            found[name].append(run.remember([name, seed], measure))
    losses = {name: [one["loss"] for one in runs] for name, runs in found.items()}
    means = "; ".join(f"{name} {_mean(values):.4f}" for name, values in losses.items())
    about = (
        f"{WORKERS} workers, {plan.inner_steps} steps between exchanges, {plan.task.steps} steps of"
        f" {WORKERS * plan.task.tokens_a_step} tokens in all; text: {origin}. Validation loss, mean"
        f" over seeds: {means}."
    )
    shared: dict[str, Any] = {"n": len(seeds), "seeds": seeds, "level": "measured"}
    pairs: list[tuple[str, str, str, str, float | None]] = [
        ("muloco-loss", "muon", WORDS["muon"], "muloco", None)
    ]
    if not quick:
        pairs += [
            ("diloco-loss", "adamw", WORDS["adamw"], "diloco", None),
            ("muloco-against-diloco", "diloco", "DiLoCo, tuned", "muloco", 1.0),
            ("diloco-4-bits", "diloco", "DiLoCo in float32", "diloco 4 bits", KEPT_IN_FEW_BITS),
            ("muloco-2-bits", "muloco", "MuLoCo in float32", "muloco 2 bits", None),
        ]
    pairs.append(
        ("muloco-4-bits", "muloco", "MuLoCo in float32", "muloco 4 bits", KEPT_IN_FEW_BITS)
    )
    for name, base, words, ours, target in pairs:
        ratio = bootstrap_ratio(losses[base], losses[ours], paired=True, statistic="mean")
        yield Evidence(
            name=f"local-{name}",
            metric=f"validation loss of {ours} at equal tokens, relative",
            unit="nats/byte",
            direction="lower",
            baseline=_mean(losses[base]),
            baseline_name=words,
            ours=_mean(losses[ours]),
            ratio=ratio.value,
            ci=ratio.ci,
            target=target,
            exclusive=target == 1.0,
            notes=about,
            series=[_curve(found[arm], arm) for arm in (base, ours)],
            **shared,
        )
    for name, base in together.items():
        yield _tokens(plan, name, base, losses, about, shared, judged=not quick)
    yield Evidence(
        name="local-bytes",
        metric="bytes that a worker hands over, MuLoCo with 4 bits",
        unit="B",
        direction="lower",
        baseline=found["muon"][0]["bytes"],
        baseline_name="a float32 gradient each step",
        ours=found["muloco 4 bits"][0]["bytes"],
        target=FEWER_BYTES * plan.inner_steps,
        level="measured",
        notes=(
            "Counted from the arrays that are exchanged, with their ranges; eight times the steps"
            " between exchanges would be the most that 4 bits allow; six times are asked for."
            f" {about}"
        ),
    )


def _shorter(name: str, steps: int) -> str:
    return f"{name}, {steps} steps"


def _tokens(
    plan: Any,
    name: str,
    base: str,
    losses: dict[str, list[float]],
    about: str,
    shared: dict[str, Any],
    *,
    judged: bool,
) -> Evidence:
    """Steps after which a step together would end at the loss of local steps, over those of both."""
    from oarlock.accept.convergence.lengths import length_to

    steps = plan.task.steps
    ends = {length: losses[_shorter(base, length)] for length in plan.shorter}
    ends[steps] = losses[base]
    needed = [
        length_to([(length, at[place]) for length, at in ends.items()], loss)
        for place, loss in enumerate(losses[name])
    ]
    # Local steps take all the steps for what a step together does in `needed`.
    ratio = bootstrap_ratio(needed, [float(steps)] * len(needed), paired=True, statistic="mean")
    mean_ends = ", ".join(f"{length} steps {_mean(at):.4f}" for length, at in sorted(ends.items()))
    return Evidence(
        name=f"local-{name}-tokens",
        metric=f"steps to the loss at which {name} ends: share of token efficiency kept",
        unit="steps",
        direction="lower",
        baseline=_mean(needed),
        baseline_name=WORDS[base],
        ours=float(steps),
        ratio=ratio.value,
        ci=ratio.ci,
        target=KEPT,
        judged=judged,  # a few steps of the quick tier say nothing of that
        notes=(
            f"Tokens a step are the same. Loss at the end of schedules of {base}: {mean_ends}; the"
            f" length is interpolated seed by seed, linearly in its logarithm. {about}"
        ),
        **shared,
    )


def _curve(runs: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    steps = [step for step, _ in runs[0]["curve"]]
    return {
        "label": name,
        "x": steps,
        "y": [round(_mean([one["curve"][i][1] for one in runs]), 4) for i in range(len(steps))],
        "x_label": "step of every worker",
        "y_label": "validation loss, nats a byte",
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
