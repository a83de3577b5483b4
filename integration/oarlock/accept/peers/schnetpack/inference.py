"""The twin of `dynamics/inference.py` in SchNetPack: SchNet and PaiNN with the same list.

Runs in the peer's own environment, which has SchNetPack, PyTorch and NumPy and nothing of ours.
"""

import time
import typing

import numpy as np
import torch
import torch.utils.data.dataloader

torch.utils.data.dataloader.T_co = typing.TypeVar("T_co")  # schnetpack 2.1.1 looks for it there

import schnetpack as spk  # noqa: E402
from schnetpack import properties  # noqa: E402

_state: dict = {}


def make(*, kind, features, layers, radial, cutoff, seed, path):
    """A model with random parameters, kept for `build`, and its parameters by name as an .npz file."""
    torch.manual_seed(seed)
    representation = getattr(spk.representation, kind)(
        n_atom_basis=features,
        n_interactions=layers,
        radial_basis=spk.nn.GaussianRBF(n_rbf=radial, cutoff=cutoff),
        cutoff_fn=spk.nn.CosineCutoff(cutoff),
    )
    model = spk.model.NeuralNetworkPotential(
        representation,
        input_modules=[spk.atomistic.Strain(), spk.atomistic.PairwiseDistances()],
        output_modules=[
            spk.atomistic.Atomwise(n_in=features, output_key="energy"),
            spk.atomistic.Forces(energy_key="energy", force_key="forces", calc_stress=True),
        ],
        postprocessors=[spk.transform.CastTo64()],
    )
    model.eval()
    _state["model"] = model
    np.savez(path, **{name: value.numpy() for name, value in model.state_dict().items()})
    return {"torch": torch.__version__, "schnetpack": "2.1.1"}


def build(*, case, threads):
    """The system for the model of `make`."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # as a careful user has it: twice as fast for Gaussians
    with np.load(case) as arrays:
        atoms = len(arrays["numbers"])
        _state["inputs"] = {
            properties.Z: torch.from_numpy(arrays["numbers"]),
            properties.R: torch.from_numpy(arrays["positions"]).float(),
            properties.cell: torch.from_numpy(arrays["cell"]).float()[None],
            properties.pbc: torch.ones(1, 3, dtype=torch.bool),
            properties.n_atoms: torch.tensor([atoms]),
            properties.idx_m: torch.zeros(atoms, dtype=torch.int64),
            properties.idx_i: torch.from_numpy(arrays["centers"].astype(np.int64)),
            properties.idx_j: torch.from_numpy(arrays["neighbours"].astype(np.int64)),
            properties.offsets: torch.from_numpy(arrays["shifts"]).float(),
        }


def _evaluate():
    return _state["model"](dict(_state["inputs"]))


def step():
    """Energy, forces and stress once; wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    _evaluate()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def save(*, path):
    """Energy and forces, as an .npz file."""
    found = _evaluate()
    np.savez(path, energy=found["energy"].item(), forces=found["forces"].detach().numpy())
