"""Workers that compute one system in turns, and what is said of their times and forces."""

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from oarlock.accept import peers
from oarlock.accept.experiment import Evidence, Run
from oarlock.accept.measure.timing import Timings, paired
from oarlock.accept.workers import Worker


def ours(threads: int, module: str = "inference") -> Worker:
    """A worker of a module of `dynamics`."""
    env = {"OMP_NUM_THREADS": str(threads)}
    return Worker.start(f"oarlock.accept.dynamics.{module}", env=env)


def peer(
    run: Run, stack: ExitStack, name: str, threads: int, script: str = "inference"
) -> Worker | None:
    """A worker of a peer's script; None in the quick tier or where it is missing, which the log says."""
    if run.tier == "quick":
        return None
    try:
        python = peers.python(name)
    except peers.PeerMissing as missing:
        run.log(f"{name} is left out: {missing}")
        return None
    env = {"OMP_NUM_THREADS": str(threads)}
    path = peers.scripts(name) / f"{script}.py"
    return stack.enter_context(Worker.start(path, env=env, python=python))


def race(workers: Mapping[str, Worker], run: Run, sizes: Mapping[str, Any]) -> Timings:
    """Steps of all workers in turns."""
    return paired(
        {arm: partial(worker.call, "step") for arm, worker in workers.items()},
        rounds=sizes["rounds"],
        warmup=2,
        settle_s=sizes["settle_s"],
    )


def agreement(
    name: str,
    one: Worker,
    other: Worker,
    allowed: float,
    run: Run,
    atoms: int,
    threads: int,
    words: str,
    notes: str = "",
) -> Evidence:
    """The largest difference of two workers' forces, relative to the largest force."""
    words = f"{words}: largest difference of the largest force, {atoms} atoms"
    return within(f"{name}-{atoms}-{threads}t", words, apart(one, other), allowed, run, notes=notes)


def within(
    name: str, words: str, error: float, allowed: float, run: Run, *, notes: str = ""
) -> Evidence:
    """A relative error and what is allowed."""
    return Evidence(
        name=name,
        metric=words,
        unit="1",
        direction="lower",
        baseline=allowed,
        baseline_name="allowed",
        ours=max(error, 1e-16),
        target=1.0,
        seeds=[run.seed],
        level="measured",
        notes=notes,
    )


def apart(one: Worker, other: Worker) -> float:
    """The largest difference of two workers' forces, relative to the largest force of the first."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for index, worker in enumerate((one, other)):
            path = Path(folder) / f"{index}.npz"
            worker.call("save", path=str(path))
            with np.load(path) as arrays:
                found.append(arrays["forces"])
    return float(np.abs(found[0] - found[1]).max() / np.abs(found[0]).max())


def faster(
    timings: Timings,
    name: str,
    base: str,
    arm: str,
    run: Run,
    atoms: int,
    threads: int,
    target: float | None,
    *,
    work: str = "energy, forces and virial",
    system: str = "Cu",
    remark: str = "Lists of neighbours are given.",
) -> Evidence:
    """Microseconds an atom of a peer and of ours, for some work on some system."""
    ratio = timings.ratio(base, arm)
    each = ", ".join(f"{one} {timings.median(one) / atoms * 1e6:.1f}" for one in timings.wall)
    cpu = ", ".join(f"{one} {timings.median(one, 'cpu') / atoms * 1e6:.1f}" for one in timings.cpu)
    return Evidence(
        name=f"{name}-{atoms}-{threads}t",
        metric=f"{arm}: time of {work}, {atoms} {system} atoms, {threads} thread{'s' * (threads > 1)}",
        unit="µs/atom",
        direction="lower",
        baseline=timings.median(base) / atoms * 1e6,
        baseline_name=base,
        ours=timings.median(arm) / atoms * 1e6,
        ratio=ratio.value,
        ci=ratio.ci,
        n=ratio.n,
        seeds=[run.seed],
        target=target,
        judged=run.tier == "full" and target is not None,
        level="measured",
        notes=f"{remark} Medians, µs/atom: {each}; of the processor: {cpu}.",
    )
