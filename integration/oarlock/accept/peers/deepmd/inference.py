"""The twin of `dynamics/inference.py` in DeePMD-kit's PyTorch backend: same parameters, same list.

Runs in the peer's own environment, which has DeePMD-kit, PyTorch and NumPy and nothing of ours.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

_state: dict = {}


def build(*, model, case, folder, threads, how):
    """A frozen model of DeePMD-kit's own making, on a system with its images as atoms.

    Args:
        model: a .dp file.
        how: "plain" or "compressed" (tabulated embedding, steps of 0.01 and 0.1, as by default), or "eval" for the
            plain model behind `DeepPot.eval`, which finds the neighbours itself.
    """
    torch.set_num_threads(threads)
    import deepmd.pt  # noqa: F401  registers its operators

    with np.load(case) as arrays:
        system = dict(arrays)
    frozen = Path(folder) / f"{Path(model).stem}.pth"
    if not frozen.exists():
        dp = Path(sys.executable).parent / "dp"
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([dp, "convert-backend", model, frozen], check=True, env=environment,
                       stdout=subprocess.DEVNULL)  # fmt: skip
    if how == "compressed":
        frozen = _compressed(frozen, float(system["shortest"]))
    _state.clear()
    _state["how"] = how
    if how == "eval":
        from deepmd.infer import DeepPot

        _state["deep_pot"] = DeepPot(str(frozen))
        _state["whole"] = (
            system["positions"].reshape(1, -1),
            system["cell"].reshape(1, 9),
            [0] * len(system["numbers"]),
        )
    else:
        _state["network"] = torch.jit.load(str(frozen))
        _state["inputs"], _state["owners"] = _extended(system)
    return {"torch": torch.__version__}


def _compressed(frozen, shortest):
    """As `dp compress` does it, with the shortest distance of the system."""
    import json

    from deepmd.pt.model.model import get_model

    path = frozen.with_suffix(".compressed.pth")
    if not path.exists():
        saved = torch.jit.load(str(frozen), map_location="cpu")
        model = get_model(json.loads(saved.model_def_script))
        model.load_state_dict(saved.state_dict())
        model.min_nbor_dist = torch.tensor(shortest, dtype=torch.float64)
        model.enable_compression(5, 0.01, 0.1, -1)
        torch.jit.save(torch.jit.script(model), str(path))
    return path


def _extended(system):
    """Coordinates with images, types, padded list and owners, as `forward_lower` takes them."""
    positions, centers = system["positions"], system["centers"]
    neighbours, shifts = system["neighbours"].astype(np.int64), system["shifts"]
    atoms = len(positions)
    steps = np.rint(shifts @ np.linalg.inv(system["cell"])).astype(np.int64)
    outside = steps.any(axis=1)
    images, which = np.unique(
        np.concatenate([neighbours[outside, None], steps[outside]], axis=1),
        axis=0,
        return_inverse=True,
    )
    ends = neighbours.copy()
    ends[outside] = atoms + which.reshape(-1)
    whole = np.concatenate([positions, positions[images[:, 0]] + images[:, 1:] @ system["cell"]])
    owners = np.concatenate([np.arange(atoms), images[:, 0]])
    counts = np.diff(system["offsets"])
    padded = np.full((atoms, _selected()), -1, np.int64)
    padded[centers, np.arange(len(ends)) - system["offsets"][centers]] = ends
    assert counts.max() <= padded.shape[1]
    inputs = (
        torch.from_numpy(whole[None]),
        torch.zeros((1, len(whole)), dtype=torch.int64),
        torch.from_numpy(padded[None]),
        torch.from_numpy(owners[None]),
    )
    return inputs, owners


def _selected():
    return sum(_state["network"].get_sel()) if hasattr(_state["network"], "get_sel") else 96


def _evaluate():
    if _state["how"] == "eval":
        energy, forces, _ = _state["deep_pot"].eval(*_state["whole"])
        return energy.item(), forces[0]
    found = _state["network"].forward_lower(*_state["inputs"])
    forces = torch.zeros((_state["inputs"][2].shape[1], 3), dtype=torch.float64)
    forces.index_add_(0, torch.from_numpy(_state["owners"]), found["extended_force"][0].double())
    return found["energy"].item(), forces.detach().numpy()


def step():
    """Energy, forces and virial once; wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    _evaluate()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def save(*, path):
    """Energy and forces, as an .npz file."""
    energy, forces = _evaluate()
    np.savez(path, energy=energy, forces=forces)
