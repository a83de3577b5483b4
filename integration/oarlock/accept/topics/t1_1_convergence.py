"""Criterion 1.1: faster convergence, by better update rules and by a faster step.

Three experiments: Muon against tuned AdamW on real text, `accelerate()` on a training step, and the
fused AdamW step. Theory: `docs/topics/1.1.md`.
"""

import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from oarlock.accept import peers
from oarlock.accept.convergence.settings import BEST, DATA, TASKS, Setting
from oarlock.accept.experiment import Evidence, Run, experiment
from oarlock.accept.measure import stats, timing
from oarlock.accept.workers import Worker

#: Sizes of the timed training step. `rounds` are ABBA rounds of `steps` steps.
STEP_SIZES: Mapping[str, dict[str, Any]] = {
    "quick": {
        "shape": {"vocab_size": 256, "hidden_size": 64, "num_layers": 2, "num_heads": 2},
        "batch": 4,
        "context": 64,
        "rounds": 3,
        "steps": 2,
        "threads": (2,),
    },
    "full": {
        "shape": {"vocab_size": 4096, "hidden_size": 256, "num_layers": 4, "num_heads": 4},
        "batch": 8,
        "context": 128,
        "rounds": 16,
        "steps": 3,
        "threads": (1, 2),
    },
}

#: Parameter shapes are those of a LLaMA of this width, depth and vocabulary.
ADAMW_SIZES: Mapping[str, dict[str, Any]] = {
    "quick": {"width": 128, "layers": 2, "vocabulary": 512, "rounds": 5, "steps": 2},
    "full": {"width": 512, "layers": 8, "vocabulary": 8192, "rounds": 40, "steps": 3},
}
ADAMW_OPTIONS = {"lr": 1e-3, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}

SETTLE_S = 0.25  #: OpenMP's threads spin for 0.2 s after their last work
_PEER = Path(peers.__file__).parent / "torch"


@experiment(
    "1.1",
    name="muon-llama",
    tiers=("quick", "full"),
    title="Muon against tuned AdamW: steps and time to the same loss, LLaMA on Shakespeare",
    minutes=28,
    data=(DATA,),
)
def muon_llama(run: Run) -> Iterator[Evidence]:
    """Steps and time that Muon needs to reach the loss at which tuned AdamW ends.

    Every run goes to the end of its own schedule, because rankings in its middle mislead. For each
    seed AdamW runs once and Muon at shorter lengths; the length at which Muon would end at AdamW's
    loss is interpolated, linearly in the logarithm of the length. All runs of a seed take turns.
    """
    from oarlock.accept import data
    from oarlock.accept.convergence.race import race
    from oarlock.native.paddle import accelerate

    run.log(str(accelerate()))
    task, best = TASKS[run.tier], BEST[run.tier]
    text, origin = data.text_or_fallback(DATA)
    arms = {"adamw": (best["adamw"], task.steps)}
    arms |= {f"muon {steps}": (best["muon"], steps) for steps in task.shorter}
    seeds = [run.seed + number for number in range(task.seeds)]
    races = []
    for number, seed in enumerate(seeds):

        def train(seed: int = seed, number: int = number) -> dict[str, Any]:
            def on_turn(done: int, total: int) -> None:
                run.progress(number * total + done, len(seeds) * total, f"seed {seed}")

            found = race(task, arms, text, seed=seed, on_turn=on_turn)
            return {name: asdict(one) for name, one in found.items()}

        races.append(run.remember(["race", seed], train))
    yield from _judge_race(run, races, seeds, origin)


def _judge_race(run: Run, races: list[dict], seeds: list[int], origin: str) -> Iterator[Evidence]:
    task, best = TASKS[run.tier], BEST[run.tier]
    longest = f"muon {max(task.shorter)}"
    losses = {name: [one[name]["curve"][-1][1] for one in races] for name in races[0]}
    p = stats.one_sided_p(losses["adamw"], losses[longest], paired=True)
    notes = (
        f"{task.tokens_a_step} tokens a step; text: {origin}. Settings of both from the committed"
        f" sweep: {_words(best['adamw'])}; {_words(best['muon'])}."
        f" Validation loss, mean over seeds: "
        + "; ".join(f"{name} {sum(v) / len(v):.4f}" for name, v in losses.items())
        + f". One-sided paired p that {longest} steps end below adamw: {p:.2g}."
    )
    shared = {"n": len(seeds), "seeds": seeds, "level": "measured", "baseline_name": "AdamW, tuned"}
    loss_ratio = stats.bootstrap_ratio(losses["adamw"], losses[longest], paired=True, statistic="mean")
    yield Evidence(
        name="muon-loss",
        metric=f"validation loss after {max(task.shorter)} steps, AdamW's after {task.steps}",
        unit="nats/byte",
        direction="lower",
        baseline=_mean(losses["adamw"]),
        ours=_mean(losses[longest]),
        ratio=loss_ratio.value,
        ci=loss_ratio.ci,
        target=1.0,
        exclusive=True,
        notes=notes,
        series=list(_curves(races, task.steps)),
        **shared,
    )
    if len(task.shorter) < 2:
        return
    steps = [_steps_to(one, one["adamw"]["curve"][-1][1]) for one in races]
    enclosed = sum(min(task.shorter) <= s <= max(task.shorter) for s in steps)
    step_ratio = stats.bootstrap_ratio([task.steps] * len(steps), steps, paired=True, statistic="mean")
    yield Evidence(
        name="muon-steps",
        metric="training steps to AdamW's final loss",
        unit="steps",
        direction="lower",
        baseline=task.steps,
        ours=_mean(steps),
        ratio=step_ratio.value,
        ci=step_ratio.ci,
        target=1.3,
        notes=f"{notes} The length was between those run for {enclosed} of {len(steps)} seeds.",
        **shared,
    )
    for name, clock, metric, target in (
        ("muon-time", "wall_s", "training time to AdamW's final loss", 1.1),
        ("muon-cpu-time", "cpu_s", "processor time to AdamW's final loss", None),
    ):
        ours = [
            length * sum(one[f"muon {s}"][clock] for s in task.shorter) / sum(task.shorter)
            for length, one in zip(steps, races)
        ]
        base = [one["adamw"][clock] for one in races]
        ratio = stats.bootstrap_ratio(base, ours, paired=True, statistic="mean")
        yield Evidence(
            name=name,
            metric=metric,
            unit="s",
            direction="lower",
            baseline=_mean(base),
            ours=_mean(ours),
            ratio=ratio.value,
            ci=ratio.ci,
            target=target,
            notes=f"Training steps only, the optimiser's included; validation is not timed. {notes}",
            **shared,
        )


def _steps_to(race: dict[str, Any], loss: float) -> float:
    """Length of a Muon run that would end at `loss`, linear in the logarithm of the length.

    Taken from the two lengths around it, or the two nearest; a length beyond those run is therefore
    extrapolated, and counted as such in the notes.
    """
    runs = sorted((one["steps"], one["curve"][-1][1]) for n, one in race.items() if n != "adamw")
    below = next((i for i, (_, end) in enumerate(runs) if end <= loss), len(runs) - 1)
    (s0, l0), (s1, l1) = runs[max(1, below) - 1], runs[max(1, below)]
    if l1 >= l0:
        raise ValueError(f"a longer Muon run ended at a higher loss: {runs}; nothing to interpolate")
    return math.exp(math.log(s0) + (loss - l0) / (l1 - l0) * math.log(s1 / s0))


def _curves(races: list[dict], steps: int) -> Iterable[dict[str, Any]]:
    for name in races[0]:
        x = [step for step, _ in races[0][name]["curve"]]
        y = [_mean([one[name]["curve"][i][1] for one in races]) for i in range(len(x))]
        yield {
            "label": f"AdamW, {steps} steps" if name == "adamw" else f"Muon, {name.split()[1]} steps",
            "x": x,
            "y": [round(value, 4) for value in y],
            "x_label": "training step",
            "y_label": "validation loss, nats a byte",
        }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _words(setting: Setting) -> str:
    options = ", ".join(f"{name} {value:.4g}" for name, value in setting.options.items())
    return (
        f"{setting.optimizer} at {setting.learning_rate:g}, warm-up {setting.warmup:g}, {options}"
    )


@experiment(
    "1.1",
    name="train-step",
    tiers=("quick", "full"),
    title="accelerate(): a training step against stock Paddle and PyTorch",
    minutes=6,
    peers=("torch",),
)
def train_step(run: Run) -> Iterator[Evidence]:
    """Time of one training step of the same LLaMA in stock Paddle, in ours and in PyTorch."""
    sizes = STEP_SIZES[run.tier]
    for index, threads in enumerate(sizes["threads"]):
        yield from _train_step(run, sizes, threads, index / len(sizes["threads"]))


def _train_step(run: Run, sizes: dict[str, Any], threads: int, begun: float) -> Iterator[Evidence]:
    module = "oarlock.accept.convergence.lm_step"
    env = {"OMP_NUM_THREADS": str(threads)}
    task = {name: sizes[name] for name in ("shape", "batch", "context")}
    task |= {"threads": threads, "learning_rate": 3e-4}
    with tempfile.TemporaryDirectory() as folder:
        weights = str(Path(folder) / "weights.npz")
        workers = {}
        reports = {}
        try:
            for name, accelerated, optimizer in (
                ("stock", False, "paddle"),
                ("accelerated", True, "paddle"),
                ("oarlock", True, "oarlock"),
            ):
                workers[name] = Worker.start(module, env=env)
                reports[name] = workers[name].call(
                    "build",
                    **task,
                    accelerated=accelerated,
                    optimizer=optimizer,
                    save_to=weights if name == "stock" else None,
                )
            torch = _torch(run)
            if torch is not None:
                workers["torch"] = Worker.start(_PEER / "lm_step.py", env=env, python=torch)
                reports["torch"] = workers["torch"].call("build", **task, weights=weights)
            first = {name: worker.call("step")["loss"] for name, worker in workers.items()}
            spread = max(first.values()) - min(first.values())
            if spread > 1e-3 * max(first.values()):
                raise ValueError(f"the arms do not compute the same: first losses {first}")
            timings = timing.paired(
                {
                    name: lambda worker=worker: worker.call("step", count=sizes["steps"])
                    for name, worker in workers.items()
                },
                rounds=sizes["rounds"],
                settle_s=SETTLE_S if run.tier == "full" else 0.0,
                on_round=lambda done, total: run.progress(
                    begun + done / total / len(sizes["threads"]), 1, f"{threads} threads"
                ),
            )
            last = {name: worker.call("step")["loss"] for name, worker in workers.items()}
        finally:
            for worker in workers.values():
                worker.close()
    after = max(abs(one / last["stock"] - 1) for one in last.values())
    notes = (
        f"LLaMA {sizes['shape']}, {sizes['batch']} x {sizes['context']} tokens, {threads} threads;"
        f" {reports['stock']['parameters']:,} parameters. First losses agree to"
        f" {spread / max(first.values()):.1e}, last ones to {after:.1e}."
        f" accelerate(): {' '.join(reports['accelerated']['accelerate'].split())}"
    )
    suffix = f"-{threads}t"
    judged = run.tier == "full"
    if run.tier == "quick":  # every arm computes the same: what a quick run can judge
        yield Evidence(
            name="train-step-equal",
            metric="loss after the timed steps",
            unit="nats/token",
            direction="lower",
            baseline=last["stock"],
            baseline_name="stock Paddle",
            ours=last["oarlock"],
            target=0.999,
            n=sizes["rounds"],
            seeds=[0],
            level="measured",
            notes=notes,
        )
    pairs = [
        ("stock", "accelerated", "accelerate-cpu", "processor", "cpu", "stock Paddle", 2.5),
        ("stock", "accelerated", "accelerate-wall", "wall", "wall", "stock Paddle", None),
        ("torch", "oarlock", "train-step-torch", "wall", "wall", "PyTorch", None),
    ]
    for base, ours, name, words, clock, baseline, target in pairs:
        if base not in workers:
            continue
        ratio = timings.ratio(base, ours, clock=clock)
        if target is not None and threads > 1:
            target = None  # processor time is judged on one thread, where waiting costs none
        yield Evidence(
            name=name + suffix,
            metric=f"{words} time of a training step, {threads} threads",
            unit="s",
            direction="lower",
            baseline=timings.median(base, clock=clock) / sizes["steps"],
            baseline_name=baseline,
            ours=timings.median(ours, clock=clock) / sizes["steps"],
            ratio=ratio.value,
            ci=ratio.ci,
            n=ratio.n,
            seeds=[0],
            target=target,
            judged=judged,
            level="measured",
            notes=notes,
        )


@experiment(
    "1.1",
    name="adamw-step",
    tiers=("quick", "full"),
    title="The fused AdamW step against Paddle's and PyTorch's",
    minutes=6,
    peers=("torch",),
)
def adamw_step(run: Run) -> Iterator[Evidence]:
    """Time of one AdamW step on all parameters of a LLaMA, gradients given."""
    sizes = ADAMW_SIZES[run.tier]
    shapes = _shapes(sizes["width"], sizes["layers"], sizes["vocabulary"])
    threads = 2
    env = {"OMP_NUM_THREADS": str(threads)}
    task = {"shapes": shapes, "threads": threads, "seed": run.seed, "options": ADAMW_OPTIONS}
    workers: dict[str, Any] = {}
    try:
        ours = workers["paddle"] = Worker.start("oarlock.accept.convergence.adamw_step", env=env)
        ours.call("build", **task)
        arms = {
            arm: lambda arm=arm: ours.call("step", arm=arm, count=sizes["steps"])
            for arm in ("paddle", "oarlock", "oarlock-unchecked")
        }
        torch = _torch(run)
        if torch is not None:
            for variant in ("fused", "foreach"):
                worker = Worker.start(_PEER / "adamw_step.py", env=env, python=torch)
                workers[f"torch {variant}"] = worker
                worker.call("build", **task, variant=variant)
                arms[f"torch {variant}"] = lambda worker=worker: worker.call(
                    "step", count=sizes["steps"]
                )
        timings = timing.paired(
            arms,
            rounds=sizes["rounds"],
            settle_s=SETTLE_S if run.tier == "full" else 0.0,
            on_round=lambda done, total: run.progress(done, total, "AdamW steps"),
        )
        samples = {arm: ours.call("sample", arm=arm, count=64) for arm in ("paddle", "oarlock")}
    finally:
        for worker in workers.values():
            worker.close()
    error = max(
        abs(a - b) / max(1e-3, abs(a))
        for base, found in zip(samples["paddle"], samples["oarlock"])
        for a, b in zip(base, found)
    )
    parameters = sum(math.prod(shape) for shape in shapes)
    notes = (
        f"{parameters / 1e6:.1f} M parameters in {len(shapes)} tensors, {threads} threads."
        f" Parameters after {(sizes['rounds'] + 2) * sizes['steps']} steps differ from Paddle's by"
        f" at most {error:.1e} (relative)."
    )
    if run.tier == "quick":
        yield Evidence(
            name="adamw-equal",
            metric="largest relative difference from Paddle's AdamW, 1e-4 allowed",
            unit="1",
            direction="lower",
            baseline=1e-4,
            baseline_name="allowed",
            ours=max(error, 1e-12),
            target=1.0,
            n=sizes["rounds"],
            seeds=[run.seed],
            level="measured",
            notes=notes,
        )
    comparisons = [("paddle", "adamw-paddle", "Paddle's AdamW", 1.5)]
    if torch is not None:
        fastest = min(("torch fused", "torch foreach"), key=timings.median)
        comparisons.append((fastest, "adamw-torch", f"PyTorch, {fastest.split()[1]}", 0.97))
        notes += " PyTorch, medians: " + ", ".join(
            f"{variant} {timings.median(f'torch {variant}') / sizes['steps'] * 1e3:.2f} ms"
            for variant in ("fused", "foreach")
        )
    for base, name, baseline, target in comparisons:
        for ours_name, suffix in (("oarlock", ""), ("oarlock-unchecked", "-unchecked")):
            ratio = timings.ratio(base, ours_name)
            look = (
                "the look for NaN included"
                if not suffix
                else "without the look for NaN, which the baseline does not take either"
            )
            yield Evidence(
                name=name + suffix,
                metric="wall time of an AdamW step",
                unit="s",
                direction="lower",
                baseline=timings.median(base) / sizes["steps"],
                baseline_name=baseline,
                ours=timings.median(ours_name) / sizes["steps"],
                ratio=ratio.value,
                ci=ratio.ci,
                n=ratio.n,
                seeds=[run.seed],
                target=target if suffix else None,
                judged=run.tier == "full",
                level="measured",
                notes=f"{notes} Ours: {look}.",
            )


def _torch(run: Run) -> Path | None:
    """The interpreter of the peer; None in the quick tier, and after saying so where it is missing."""
    if run.tier == "quick":
        return None
    try:
        return peers.python("torch")
    except peers.PeerMissing as missing:
        run.log(f"PyTorch is left out: {missing}")
        return None


def _shapes(width: int, layers: int, vocabulary: int) -> list[list[int]]:
    """Parameter shapes of a LLaMA."""
    hidden = -(-8 * width // 3 // 32) * 32
    block = [[width], *[[width, width]] * 4, [width]]
    block += [[width, hidden], [width, hidden], [hidden, width]]
    return [[vocabulary, width], *(block * layers), [width], [width, vocabulary]]
