"""Trainings of one element in workers of their own, one thread each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oarlock.accept import peers
from oarlock.accept.experiment import Run
from oarlock.accept.workers import Worker

_ENV = {"OMP_NUM_THREADS": "1"}


def sets(element: str, cutoff: float, folder: Path) -> dict[str, str]:
    """The published split as files for peers."""
    with Worker.start("oarlock.accept.dynamics.training", env=_ENV) as worker:
        return worker.call("write_sets", element=element, cutoff=cutoff, folder=str(folder))


def ours(
    element: str, config: Mapping[str, Any], recipe: Mapping[str, Any], seed: int
) -> dict[str, float]:
    with Worker.start("oarlock.accept.dynamics.training", env=_ENV) as worker:
        return worker.call(
            "train", element=element, config=dict(config), threads=1, seed=seed, **recipe
        )


def _peer(run: Run, name: str, script: str, function: str, **arguments: Any) -> dict[str, float]:
    """Nothing where the peer is missing, which the log says."""
    try:
        python = peers.python(name)
    except peers.PeerMissing as missing:
        run.log(f"{name} is left out: {missing}")
        return {}
    path = peers.scripts(name) / f"{script}.py"
    with Worker.start(path, env=_ENV, python=python) as worker:
        return worker.call(function, **arguments)


def mace(
    run: Run,
    files: Mapping[str, str],
    hidden: str,
    cutoff: float,
    neighbours: float,
    recipe: Mapping[str, Any],
    seed: int,
) -> dict[str, float]:
    return _peer(run, "mace", "training", "train", train=files["training"], test=files["test"], hidden=hidden,
                 cutoff=cutoff, neighbours=neighbours, threads=1, seed=seed, **recipe)  # fmt: skip


def schnetpack(
    run: Run,
    files: Mapping[str, str],
    kind: str,
    shape: Mapping[str, Any],
    recipe: Mapping[str, Any],
    seed: int,
) -> dict[str, float]:
    return _peer(run, "schnetpack", "training", "train", train=files["training"], test=files["test"], kind=kind,
                 threads=1, seed=seed, **shape, **recipe)  # fmt: skip


def gap(run: Run, files: Mapping[str, str], folder: Path, sparse: int) -> dict[str, float]:
    return _peer(run, "quip", "gap", "train", train=files["training"], test=files["test"], folder=str(folder),
                 sparse=sparse, threads=1)  # fmt: skip
