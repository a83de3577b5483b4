"""Energies, forces and virials of our potentials for one system, served to an experiment."""

import time
from typing import Any

import numpy as np
import paddle

from oarlock.native.paddle import accelerate
from oarlock.sci_md import potentials
from oarlock.sci_md.evaluate import EagerEvaluator, Evaluator
from oarlock.sci_md.neighbours import Neighbourhood

_state: dict[str, Any] = {}


def make(*, config: dict[str, Any], path: str, seed: int) -> None:
    """A potential of a configuration with parameters of a seed, as a file."""
    paddle.seed(seed)
    potentials.save(potentials.build(potentials.config_from_dict(config)), path)


def to_deepmd(*, model: str, case: str, path: str) -> None:
    """A Deep Potential with statistics of a system, in place of the file, and as DeePMD-kit reads it."""
    from oarlock.sci_md.deepmd import save_deepmd

    potential = potentials.load(model)
    assert isinstance(potential, potentials.DeepPotential)
    potential.fit_statistics([_read(case)])
    potentials.save(potential, model)
    save_deepmd(potential, path)


def widen(*, model: str, path: str) -> None:
    """A potential with its parameters in float64, as a file."""
    narrow = potentials.load(model)
    wide = potentials.build(
        potentials.config_from_dict({**narrow.config.to_dict(), "dtype": "float64"})
    )
    for name, tensor in narrow.state_dict().items():
        wide.state_dict()[name].set_value(tensor.astype(wide.state_dict()[name].dtype))
    potentials.save(wide, path)


def from_schnetpack(*, state: str, path: str) -> None:
    """SchNetPack's parameters, an .npz of its names, as a potential of ours."""
    from oarlock.sci_md.potentials.convert_schnetpack import from_state

    with np.load(state) as arrays:
        potential = from_state(dict(arrays), elements=("Cu",))
    potentials.save(potential, path)


def build(*, model: str, case: str, threads: int, how: str) -> str:
    """The arm "MODEL HOW", on a system.

    Args:
        how: "eager", or of a Deep Potential "native" or "compressed".
    """
    accelerate(threads=threads)
    _state["case"] = _read(case)
    _state["evaluator"] = _open(model, how, threads)
    return how


def _open(model: str, how: str, threads: int) -> Evaluator:
    potential = potentials.load(model)
    if how == "eager":
        return EagerEvaluator(potential)
    from oarlock.sci_md.evaluate.deep_potential import NativeDeepPotential

    assert isinstance(potential, potentials.DeepPotential)
    return NativeDeepPotential(potential, compressed=how == "compressed", threads=threads)


def _read(case: str) -> Neighbourhood:
    with np.load(case) as arrays:
        return Neighbourhood(
            positions=arrays["positions"],
            species=np.zeros(len(arrays["numbers"]), np.int32),
            offsets=arrays["offsets"],
            neighbours=arrays["neighbours"],
            shifts=arrays["shifts"],
            owned=len(arrays["numbers"]),
        )


def step() -> dict[str, float]:
    """Energy, forces and virial once; wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    _state["evaluator"].evaluate(_state["case"])
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def save(*, path: str) -> None:
    """Energy and forces, as an .npz file."""
    found = _state["evaluator"].evaluate(_state["case"])
    np.savez(path, energy=found.energy, forces=found.forces)
