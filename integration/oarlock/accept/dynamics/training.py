"""Our potentials trained on an element or a molecule, served to an experiment."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from oarlock.accept.dynamics import elements, molecules
from oarlock.native.paddle import accelerate
from oarlock.sci_md.data import Dataset, read, write
from oarlock.sci_md.potentials import build, config_from_dict, save
from oarlock.sci_md.structure import Structure
from oarlock.sci_md.training import Trainer, TrainingSettings, predict

WARM_UP = 50  #: steps
TRIED = 40  #: steps by which the time of one is known, after some that fill caches


def write_sets(*, element: str, cutoff: float, folder: str) -> dict[str, str]:
    """The published split as files for peers: "training", "test", and a folder of "systems" for DeePMD-kit."""
    files = {
        part: str(
            elements.for_peers(
                elements.structures(element, part), cutoff, Path(folder) / f"{element}-{part}.npz"
            )
        )
        for part in ("training", "test")
    }
    systems = Path(folder) / f"{element}-systems"
    write(systems, elements.structures(element, "training"), format="deepmd")
    return {**files, "systems": str(systems)}


def write_ethanol(*, cutoff: float, folder: str, frames: int, seed: int) -> dict[str, str]:
    """See `molecules.ethanol`."""
    return molecules.ethanol(Path(folder), cutoff, frames, seed)


def _structures(data: str | Mapping[str, str], part: str) -> list[Structure]:
    if isinstance(data, str):
        return elements.structures(data, part)
    return read(Path(data[part]).with_suffix(".extxyz"), need=("energy", "forces"))


def train(
    *,
    data: str | dict[str, str],
    config: dict[str, Any],
    seconds: float | None,
    steps: int | None,
    batch: int,
    rate: float,
    energy_weight: float,
    decay: float,
    threads: int,
    seed: int,
    clip: float | None = None,
    path: str | None = None,
) -> dict[str, float]:
    """Trains with a cosine schedule, as the peers' loop does.

    Args:
        data: an element of mlearn, or the files of `write_ethanol`.
        config: of the potential, without elements.
        seconds, steps: of processor time, or steps; one of them None.
        clip: the largest norm of gradients.
        path: a file for the potential.

    Returns:
        steps, seconds, parameters, and mean absolute errors on the test structures: energy in
        meV/atom, forces in meV/Å; and that of forces which are zero.
    """
    accelerate(threads=threads)
    given = [_structures(data, part) for part in ("training", "test")]
    symbols = sorted({symbol for one in given[0] for symbol in one.symbols})
    values = config_from_dict({**config, "elements": symbols})
    train_set, test_set = (
        Dataset(part, elements=values.elements, cutoff=values.cutoff) for part in given
    )

    def settings(count: int) -> TrainingSettings:
        return TrainingSettings.read(
            {
                "seed": seed,
                "steps": count,
                "batch": batch,
                "ema": decay,
                "clip": clip,
                "loss": {"energy": energy_weight, "forces": 1.0},
                "learning_rate": {
                    "kind": "cosine",
                    "start": rate,
                    "stop": 0.01 * rate,
                    "warm_up": min(WARM_UP, count // 20),
                },
                "plots": False,
            },
            where="the experiment",
        )

    if steps is None:
        assert seconds is not None
        paddle.seed(seed)
        Trainer(build(values), train_set, settings(TRIED // 2)).run()
        begin = time.process_time()
        Trainer(build(values), train_set, settings(TRIED)).run()
        steps = max(2, round(seconds * TRIED / (time.process_time() - begin)))
    paddle.seed(seed)
    potential = build(values)
    begin = time.process_time()
    Trainer(potential, train_set, settings(steps)).run()
    spent = time.process_time() - begin
    if path is not None:
        save(potential, path)
    found = predict(potential, test_set)
    return {
        "steps": steps,
        "seconds": spent,
        "parameters": sum(one.size for one in potential.parameters()),
        "energy": 1e3 * found.energy.mae,
        "forces": 1e3 * found.forces.mae,
        "zero": 1e3 * float(np.abs(found.forces.label).mean()),
    }
