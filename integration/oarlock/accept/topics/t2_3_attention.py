"""Criterion 2.3.2: attention for training under masks against Paddle's and PyTorch's."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from oarlock.accept.convergence import torch_peer
from oarlock.accept.experiment import Evidence, Run, experiment
from oarlock.accept.measure.timing import Timings, paired
from oarlock.accept.workers import Worker

#: Heads as LLaMA 3.2 1B has them: 32 of 64, 8 of keys and values.
SIZES: Mapping[str, dict[str, Any]] = {
    "quick": {
        "shape": {"batch": 1, "context": 192, "heads": 4, "kv_heads": 2, "dim": 16},
        "threads": (2,),
        "rounds": 2,
    },
    "full": {
        "shape": {"batch": 1, "context": 2048, "heads": 32, "kv_heads": 8, "dim": 64},
        "threads": (1, 2),
        "rounds": 10,
    },
}
KINDS = ("causal", "document", "window", "question")
WARMUP = 1  #: rounds
SETTLE_S = 0.25  #: OpenMP's threads spin for 0.2 s after their last work
TARGET = 1.1
#: Largest difference of a result or gradient, relative to the largest number of its tensor.
ALLOWED = 1e-4
OURS = "oarlock"
PADDLE = ("paddle", "paddle by parts")
TORCH = ("bool mask", "float mask", "by parts")


@experiment(
    "2.3.2",
    name="attention",
    tiers=("quick", "full"),
    title="Attention under masks, forward and backward, against Paddle's and PyTorch's",
    minutes=25,
    peers=("torch",),
)
def attention(run: Run) -> Iterator[Evidence]:
    """Time of attention, forward and backward, on the same operands under four masks.

    Each library takes the whole mask at once, and also parts of the sequence that need little or no
    mask, written by hand; the fastest form of each library is its baseline. Where PyTorch's compiled
    FlexAttention cannot take gradients, it is compared in the forward pass.
    """
    for threads in SIZES[run.tier]["threads"]:
        env = {"OMP_NUM_THREADS": str(threads)}
        with ExitStack() as stack:
            ours = stack.enter_context(Worker.start("oarlock.accept.kernels.attention", env=env))
            peer = None
            if torch_peer.available(run):
                peer = stack.enter_context(torch_peer.start("attention", env))
            for kind in KINDS:
                yield from _compare(run, threads, kind, ours, peer)


def _compare(
    run: Run, threads: int, kind: str, ours: Worker, peer: Worker | None
) -> Iterator[Evidence]:
    from oarlock.accept.kernels import attention_masks

    sizes = SIZES[run.tier]
    shape = sizes["shape"]
    spec = attention_masks.KINDS[kind](shape["context"], run.seed)
    task = {"shape": shape, "mask": spec, "threads": threads, "seed": run.seed}
    ours.call("build", **task)
    workers = {arm: ours for arm in (OURS, *PADDLE)}
    if peer is not None:
        peer.call("build", **task)
        workers |= {arm: peer for arm in TORCH}
    settle_s = 0.0 if run.tier == "quick" else SETTLE_S

    def time(arms: Mapping[str, Worker], what: str) -> Timings:
        return paired(
            {arm: partial(worker.call, what, arm=arm) for arm, worker in arms.items()},
            rounds=sizes["rounds"],
            warmup=WARMUP,
            settle_s=settle_s,
            on_round=lambda done, total: run.progress(
                done, total, f"{kind}, {threads} threads, {what}"
            ),
        )

    error = _difference(workers)
    timings = time(workers, "step")
    seen = attention_masks.mask_of(spec).seen(shape["context"])
    notes = (
        f"{shape}, {threads} thread{'s' * (threads > 1)}, float32; {kind} mask of"
        f" {spec['lengths']}, {seen:.0%} of pairs seen. accelerate() is on in Paddle's arms. Results"
        f" and gradients of all arms agree within {error:.1e} of the largest. Medians:"
        f" {_medians(timings)}."
    )
    yield _equal(kind, threads, error, notes, run.seed)
    yield from _times(timings, kind, threads, notes, run)
    if peer is not None:
        passes = time({OURS: ours, "flex": peer}, "forward")
        said = peer.call("flex_trains") or "works."
        yield _forward(passes, kind, threads, f"FlexAttention with gradients: {said} {notes}", run)


def _difference(workers: Mapping[str, Worker]) -> float:
    """The largest difference of any arm from Paddle's, relative to the largest number of a tensor."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.npz"
        for arm, worker in workers.items():
            worker.call("save", arm=arm, path=str(path))
            with np.load(path) as arrays:
                found[arm] = {name: arrays[name] for name in arrays.files}
    base = found["paddle"]
    return max(
        float(np.abs(arrays[name] - base[name]).max() / np.abs(base[name]).max())
        for arrays in found.values()
        for name in base
    )


def _medians(timings: Timings) -> str:
    return "; ".join(f"{arm} {timings.median(arm) * 1e3:.0f} ms" for arm in timings.wall)


def _equal(kind: str, threads: int, error: float, notes: str, seed: int) -> Evidence:
    return Evidence(
        name=f"attention-{kind}-equal-{threads}t",
        metric=f"{kind} mask: largest relative difference of results and gradients from Paddle's",
        unit="1",
        direction="lower",
        baseline=ALLOWED,
        baseline_name="allowed for rounding",
        ours=max(error, 1e-9),
        target=1.0,
        seeds=[seed],
        level="measured",
        notes=notes,
    )


def _times(timings: Timings, kind: str, threads: int, notes: str, run: Run) -> Iterator[Evidence]:
    for library, arms, words in (
        ("paddle", PADDLE, "Paddle's scaled_dot_product_attention"),
        ("torch", TORCH, "PyTorch's scaled_dot_product_attention"),
    ):
        present = [arm for arm in arms if arm in timings.wall]
        if not present:
            continue
        fastest = min(present, key=timings.median)
        ratio = timings.ratio(fastest, OURS)
        form = fastest.removeprefix("paddle").strip() or "bool mask"
        yield Evidence(
            name=f"attention-{kind}-{library}-{threads}t",
            metric=f"{kind} mask: time of attention, forward and backward",
            unit="s",
            direction="lower",
            baseline=timings.median(fastest),
            baseline_name=f"{words}, {form}, {threads} thread{'s' * (threads > 1)}",
            ours=timings.median(OURS),
            ratio=ratio.value,
            ci=ratio.ci,
            n=ratio.n,
            seeds=[run.seed],
            target=TARGET,
            exclusive=True,
            judged=run.tier == "full",
            level="measured",
            notes=notes,
        )


def _forward(passes: Timings, kind: str, threads: int, notes: str, run: Run) -> Evidence:
    ratio = passes.ratio("flex", OURS)
    return Evidence(
        name=f"attention-{kind}-flex-forward-{threads}t",
        metric=f"{kind} mask: time of attention, forward only, without gradients",
        unit="s",
        direction="lower",
        baseline=passes.median("flex"),
        baseline_name=f"PyTorch's FlexAttention, compiled, {threads} thread{'s' * (threads > 1)}",
        ours=passes.median(OURS),
        ratio=ratio.value,
        ci=ratio.ci,
        n=ratio.n,
        seeds=[run.seed],
        target=TARGET,
        exclusive=True,
        judged=run.tier == "full",
        level="measured",
        notes=notes,
    )
