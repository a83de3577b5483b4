"""Criterion 1.1: a training step of the same LLaMA in stock Paddle, accelerated, and in PyTorch."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from oarlock.accept.convergence import torch_peer
from oarlock.accept.experiment import Evidence, Run, experiment
from oarlock.accept.measure import timing
from oarlock.accept.workers import Worker

#: `rounds` are ABBA rounds of `steps` steps.
SIZES: Mapping[str, dict[str, Any]] = {
    "quick": {
        "shape": {"vocab_size": 256, "hidden_size": 64, "num_layers": 2, "num_heads": 2},
        "batch": 4,
        "context": 64,
        "rounds": 2,
        "steps": 2,
        "threads": (2,),
    },
    "full": {
        "shape": {"vocab_size": 4096, "hidden_size": 256, "num_layers": 4, "num_heads": 4},
        "batch": 8,
        "context": 128,
        "rounds": 20,
        "steps": 2,
        "threads": (1, 2),
    },
}
SETTLE_S = 0.25  #: OpenMP's threads spin for 0.2 s after their last work
SAME = 1e-3  #: relative difference of losses below which arms compute the same
#: Arms in Paddle: whether accelerated, and whose AdamW.
PADDLE = {
    "stock": (False, "paddle"),
    "accelerated": (True, "paddle"),
    "oarlock": (True, "oarlock"),
}
#: Reached by hand on an AMD processor, where MKL takes its slowest path by itself; on Intel's it does
#: not, so that there is nothing to win back and nothing to judge.
CPU_TARGET = 2.5
NAMES = {"stock": "stock Paddle", "torch": "PyTorch, fused AdamW"}


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
    sizes = SIZES[run.tier]
    for index, threads in enumerate(sizes["threads"]):
        yield from _compare(run, threads, index / len(sizes["threads"]))


def _compare(run: Run, threads: int, begun: float) -> Iterator[Evidence]:
    sizes = SIZES[run.tier]
    with ExitStack() as stack:
        workers, built = _start(stack, run, threads)
        first = _losses(workers)
        timings = timing.paired(
            {
                name: partial(worker.call, "step", count=sizes["steps"])
                for name, worker in workers.items()
            },
            rounds=sizes["rounds"],
            settle_s=0.0 if run.tier == "quick" else SETTLE_S,
            on_round=lambda done, total: run.progress(
                begun + done / total / len(sizes["threads"]), 1, f"{threads} threads"
            ),
        )
        last = _losses(workers)
    notes = (
        f"LLaMA {sizes['shape']}, {built['stock']['parameters']:,} parameters, {sizes['batch']} x"
        f" {sizes['context']} tokens, {threads} threads. Losses of the arms differ by"
        f" {_spread(first):.1e} before and {_spread(last):.1e} after the timed steps (relative)."
        f" accelerate(): {' '.join(built['accelerated']['accelerate'].split())}"
    )
    yield _equal(last, threads, notes)
    intel = "GenuineIntel" in built["accelerated"]["accelerate"]
    rows: list[tuple[str, str, timing.Clock, str]] = [
        ("stock", "accelerated", "cpu", "accelerate-cpu"),
        ("stock", "accelerated", "wall", "accelerate-wall"),
        ("torch", "oarlock", "wall", "train-step-torch"),
        ("torch", "oarlock", "cpu", "train-step-torch-cpu"),
    ]
    for base, ours, clock, name in rows:
        if base not in workers:
            continue
        ratio = timings.ratio(base, ours, clock)
        yield Evidence(
            name=f"{name}-{threads}t",
            metric=f"{'wall' if clock == 'wall' else 'processor'} time of a training step",
            unit="s",
            direction="lower",
            baseline=timings.median(base, clock) / sizes["steps"],
            baseline_name=f"{NAMES[base]}, {threads} thread{'s' * (threads > 1)}",
            ours=timings.median(ours, clock) / sizes["steps"],
            ratio=ratio.value,
            ci=ratio.ci,
            n=ratio.n,
            seeds=[0],
            target=CPU_TARGET if name == "accelerate-cpu" and threads == 1 and not intel else None,
            judged=run.tier == "full",
            level="measured",
            notes=notes,
        )


def _start(stack: ExitStack, run: Run, threads: int) -> tuple[dict[str, Worker], dict[str, Any]]:
    """Workers of all arms with the same weights and batch, and what they said when built."""
    sizes = SIZES[run.tier]
    env = {"OMP_NUM_THREADS": str(threads)}
    task = {name: sizes[name] for name in ("shape", "batch", "context")}
    task |= {"threads": threads, "learning_rate": 3e-4}
    weights = str(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "weights.npz")
    workers, built = {}, {}
    for name, (accelerated, optimizer) in PADDLE.items():
        worker = stack.enter_context(Worker.start("oarlock.accept.convergence.lm_step", env=env))
        workers[name], arm = worker, {"accelerated": accelerated, "optimizer": optimizer}
        save_to = weights if name == "stock" else None
        built[name] = worker.call("build", **task, **arm, save_to=save_to)
    if torch_peer.available(run):
        workers["torch"] = stack.enter_context(torch_peer.start("lm_step", env))
        built["torch"] = workers["torch"].call("build", **task, weights=weights)
    return workers, built


def _losses(workers: dict[str, Worker]) -> dict[str, float]:
    """The loss of a step of each arm; ValueError unless all compute the same."""
    losses = {name: worker.call("step")["loss"] for name, worker in workers.items()}
    if _spread(losses) > SAME:
        raise ValueError(f"the arms do not compute the same: losses {losses}")
    return losses


def _spread(losses: dict[str, float]) -> float:
    return (max(losses.values()) - min(losses.values())) / min(losses.values())


def _equal(losses: dict[str, float], threads: int, notes: str) -> Evidence:
    """After the same steps the losses are the same."""
    return Evidence(
        name=f"train-step-equal-{threads}t",
        metric="loss after the timed steps, equal within 0.1 %",
        unit="nats/token",
        direction="lower",
        baseline=losses["stock"],
        baseline_name="stock Paddle",
        ours=losses["oarlock"],
        target=1 - SAME,
        seeds=[0],
        level="measured",
        notes=notes,
    )
