"""Trainings of an element or a molecule in workers of their own, one thread each."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from oarlock.accept import peers
from oarlock.accept.dynamics import deepmd_input
from oarlock.accept.experiment import Run
from oarlock.accept.workers import Worker

_ENV = {"OMP_NUM_THREADS": "1"}


def sets(element: str, cutoff: float, folder: Path) -> dict[str, str]:
    """The published split as files for peers."""
    with Worker.start("oarlock.accept.dynamics.training", env=_ENV) as worker:
        return worker.call("write_sets", element=element, cutoff=cutoff, folder=str(folder))


def ethanol(cutoff: float, folder: Path, frames: int, seed: int) -> dict[str, str]:
    """Frames of a molecule, labelled here, as files for peers and for us."""
    with Worker.start("oarlock.accept.dynamics.training", env=_ENV) as worker:
        return worker.call(
            "write_ethanol", cutoff=cutoff, folder=str(folder), frames=frames, seed=seed
        )


def ours(
    data: str | Mapping[str, str], config: Mapping[str, Any], recipe: Mapping[str, Any], seed: int
) -> dict[str, float]:
    with Worker.start("oarlock.accept.dynamics.training", env=_ENV) as worker:
        return worker.call("train", data=data, config=dict(config), threads=1, seed=seed, **recipe)


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


def dig(
    run: Run,
    files: Mapping[str, str],
    shape: Mapping[str, Any],
    recipe: Mapping[str, Any],
    seed: int,
) -> dict[str, float]:
    return _peer(run, "dig", "training", "train", train=files["training"], test=files["test"], threads=1, seed=seed,
                 **shape, **recipe)  # fmt: skip


def deepmd(
    run: Run,
    files: Mapping[str, str],
    element: str,
    folder: Path,
    cutoff: float,
    recipe: Mapping[str, Any],
    seed: int,
) -> dict[str, float]:
    """Deep Potential of DeePMD-kit's own proportions, with a rate, a beginning of the smooth end and seconds."""
    with np.load(files["training"]) as arrays:
        most = int(np.bincount(_owners(arrays["atoms"], arrays["edges"], arrays["centers"])).max())
    values = deepmd_input.values(
        [str(one) for one in sorted(Path(files["systems"]).iterdir())],
        elements=[element],
        sel=[math.ceil(1.1 * most / 4) * 4],
        cutoff=cutoff,
        smooth=recipe["smooth"],
        network=deepmd_input.EXAMPLE,
        rate=recipe["rate"],
        seed=seed,
    )
    return _peer(run, "deepmd", "training", "train", values=values, test=files["test"],
                 folder=str(folder / f"deepmd-{seed}"), seconds=recipe["seconds"])  # fmt: skip


def _owners(atoms: Any, edges: Any, centers: Any) -> Any:
    """The centre of each edge, counted over all structures."""
    first = np.cumsum(atoms) - atoms
    return centers + np.repeat(first, edges)


def gap(
    run: Run, files: Mapping[str, str], folder: Path, settings: Mapping[str, Any]
) -> dict[str, float]:
    return _peer(run, "quip", "gap", "train", train=files["training"], test=files["test"], folder=str(folder),
                 threads=1, **settings)  # fmt: skip
