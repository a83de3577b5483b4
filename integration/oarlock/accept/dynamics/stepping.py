"""Steps of training on one batch with our potentials, served to an experiment."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from oarlock.accept.dynamics import elements
from oarlock.native.paddle import accelerate
from oarlock.sci_md import potentials
from oarlock.sci_md.data import Dataset
from oarlock.sci_md.potentials.convert_schnetpack import from_state
from oarlock.sci_md.training import Trainer, TrainingSettings

_state: dict[str, Any] = {}


def write_batch(*, element: str, count: int, cutoff: float, path: str) -> dict[str, int]:
    """The batch as a file for peers; how many atoms and edges it has."""
    with np.load(
        elements.for_peers(elements.one_batch(element, count), cutoff, Path(path))
    ) as arrays:
        return {name: int(arrays[name].sum()) for name in ("atoms", "edges")}


def build(
    *,
    element: str,
    count: int,
    threads: int,
    seed: int,
    rate: float,
    energy_weight: float,
    config: dict[str, Any] | None = None,
    schnetpack: str | None = None,
    path: str | None = None,
) -> None:
    """A potential, of a configuration or of SchNetPack's parameters, and one batch.

    Args:
        count: structures of the batch.
        schnetpack: an .npz file of its names; energies are then without reference and scale.
        path: an .npz file for our parameters.
    """
    accelerate(threads=threads)
    paddle.seed(seed)
    if schnetpack is not None:
        with np.load(schnetpack) as arrays:
            potential = from_state(dict(arrays), elements=(element,))
    else:
        assert config is not None
        potential = potentials.build(potentials.config_from_dict({**config, "elements": [element]}))
    if path is not None:
        np.savez(path, **{name: one.numpy() for name, one in potential.state_dict().items()})
    dataset = Dataset(
        elements.one_batch(element, count), elements=potential.elements, cutoff=potential.cutoff
    )
    values: dict[str, Any] = {
        "seed": seed,
        "steps": 1_000_000,
        "batch": count,
        "loss": {"energy": energy_weight, "forces": 1.0},
        "learning_rate": {"kind": "constant", "start": rate},
        "plots": False,
    }
    if schnetpack is not None:
        values |= {"reference": None, "scale": None}
    trainer = Trainer(potential, dataset, TrainingSettings.read(values, where="the experiment"))
    potential.train()
    _state.update(trainer=trainer, indices=np.arange(count))


def step() -> dict[str, float]:
    """The loss before the step, which includes making the batch; wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    loss = _state["trainer"].step(_state["indices"])
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "loss": loss,
    }
