"""Criterion 1.1: the fused AdamW step against Paddle's and PyTorch's."""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from oarlock.accept.convergence import torch_peer
from oarlock.accept.experiment import Evidence, Run, experiment
from oarlock.accept.measure.timing import Timings, paired
from oarlock.accept.workers import Worker

#: Parameter shapes are those of a LLaMA of this width, depth and vocabulary.
SIZES: Mapping[str, dict[str, int]] = {
    "quick": {"width": 128, "layers": 2, "vocabulary": 512, "rounds": 2, "steps": 2},
    "full": {"width": 512, "layers": 8, "vocabulary": 8192, "rounds": 40, "steps": 3},
}
OPTIONS = {"lr": 1e-3, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}
THREADS = 2
WARMUP = 2  #: rounds
SETTLE_S = 0.25  #: OpenMP's threads spin for 0.2 s after their last work
#: Difference from Paddle's parameters that rounding may make in a step, relative to 1e-3 at least.
ALLOWED = 1e-5
#: Of PyTorch's AdamW: its form and its threads. The fastest is the baseline.
VARIANTS = [(form, threads) for form in ("fused", "foreach") for threads in (1, 2)]
#: Ours looks for NaN before it changes anything; the others do not, and neither does this.
UNCHECKED = "oarlock-unchecked"


@experiment(
    "1.1",
    name="adamw-step",
    tiers=("quick", "full"),
    title="The fused AdamW step against Paddle's and PyTorch's",
    minutes=6,
    peers=("torch",),
)
def adamw_step(run: Run) -> Iterator[Evidence]:
    """Time of one AdamW step on all parameters of a LLaMA, gradients given.

    Each arm has its own parameters with the same values. Judged is what the baselines do too; our
    default, which also looks for NaN in the gradients, stands beside it.
    """
    sizes = SIZES[run.tier]
    shapes = shapes_of_llama(sizes["width"], sizes["layers"], sizes["vocabulary"])
    count = sizes["steps"]
    task = {"shapes": shapes, "threads": THREADS, "seed": run.seed, "options": OPTIONS}
    env = {"OMP_NUM_THREADS": str(THREADS)}
    with ExitStack() as stack:
        ours = stack.enter_context(Worker.start("oarlock.accept.convergence.adamw_step", env=env))
        ours.call("build", **task)
        arms: dict[str, Any] = {
            arm: partial(ours.call, "step", arm=arm, count=count)
            for arm in ("paddle", "oarlock", UNCHECKED)
        }
        if torch_peer.available(run):
            for form, threads in VARIANTS:
                own = {"OMP_NUM_THREADS": str(threads)}
                worker = stack.enter_context(torch_peer.start("adamw_step", own))
                worker.call("build", **task | {"threads": threads}, variant=form)
                arms[_torch(form, threads)] = partial(worker.call, "step", count=count)
        timings = paired(
            arms,
            rounds=sizes["rounds"],
            warmup=WARMUP,
            settle_s=0.0 if run.tier == "quick" else SETTLE_S,
            on_round=lambda done, total: run.progress(done, total, "AdamW steps"),
        )
        samples = {arm: ours.call("sample", arm=arm, count=64) for arm in ("paddle", "oarlock")}
    error = _difference(samples["paddle"], samples["oarlock"])
    taken = (sizes["rounds"] + WARMUP) * count
    notes = (
        f"{sum(map(math.prod, shapes)) / 1e6:.1f} M parameters in {len(shapes)} tensors, {THREADS}"
        f" threads. After {taken} steps parameters differ from Paddle's by at most {error:.1e}."
    )
    yield _equal(error, taken, notes, run.seed)
    yield from _times(timings, count, notes, run)


def _times(timings: Timings, count: int, notes: str, run: Run) -> Iterator[Evidence]:
    baselines = [("paddle", "adamw-paddle", "Paddle's AdamW", 1.5)]
    torch = [name for form, threads in VARIANTS if (name := _torch(form, threads)) in timings.wall]
    if torch:
        fastest = min(torch, key=timings.median)
        baselines.append((fastest, "adamw-torch", fastest, 0.97))
        each = (f"{name} {timings.median(name) / count * 1e3:.1f} ms" for name in torch)
        notes += f" Medians: {'; '.join(each)}."
    for base, name, baseline_name, target in baselines:
        for arm, suffix, look in (
            (UNCHECKED, "", "without a look for NaN in the gradients, as the baseline"),
            ("oarlock", "-checked", "our default: gradients are looked through for NaN first"),
        ):
            ratio = timings.ratio(base, arm)
            yield Evidence(
                name=name + suffix,
                metric=f"wall time of an AdamW step, {look}",
                unit="s",
                direction="lower",
                baseline=timings.median(base) / count,
                baseline_name=baseline_name,
                ours=timings.median(arm) / count,
                ratio=ratio.value,
                ci=ratio.ci,
                n=ratio.n,
                seeds=[run.seed],
                target=None if suffix else target,
                judged=run.tier == "full",
                level="measured",
                notes=notes,
            )


def _torch(form: str, threads: int) -> str:
    return f"PyTorch's AdamW, {form}, {threads} thread{'s' * (threads > 1)}"


def _equal(error: float, taken: int, notes: str, seed: int) -> Evidence:
    """The steps are the same as Paddle's, up to rounding."""
    return Evidence(
        name="adamw-equal",
        metric=f"largest relative difference of a parameter from Paddle's after {taken} steps",
        unit="1",
        direction="lower",
        baseline=ALLOWED * taken,
        baseline_name="allowed for rounding",
        ours=max(error, 1e-9),
        target=1.0,
        seeds=[seed],
        level="measured",
        notes=notes,
    )


def _difference(base: list[list[float]], ours: list[list[float]]) -> float:
    pairs = [pair for theirs, mine in zip(base, ours) for pair in zip(theirs, mine)]
    return max(abs(a - b) / max(1e-3, abs(a)) for a, b in pairs)


def shapes_of_llama(width: int, layers: int, vocabulary: int) -> list[list[int]]:
    """Shapes of all parameters, in the order of the model."""
    hidden = -(-8 * width // 3 // 32) * 32
    block = [[width], *[[width, width]] * 4, [width]]
    block += [[width, hidden], [width, hidden], [hidden, width]]
    return [[vocabulary, width], *(block * layers), [width], [width, vocabulary]]
