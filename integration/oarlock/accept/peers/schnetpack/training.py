"""SchNetPack's potentials trained on one element, served to an experiment.

Runs in the peer's own environment, which has SchNetPack, PyTorch and NumPy and nothing of ours.
"""

import sys
import typing
from pathlib import Path

import numpy as np
import torch
import torch.utils.data.dataloader

torch.utils.data.dataloader.T_co = typing.TypeVar("T_co")  # schnetpack 2.1.1 looks for it there
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "torch"))

import force_training  # noqa: E402
import schnetpack as spk  # noqa: E402
from schnetpack import properties  # noqa: E402

_state: dict = {}


class Scaled(torch.nn.Module):
    """A representation with its readout, in units of the data, beside the energy of atoms."""

    def __init__(self, model, reference, scale):
        super().__init__()
        self.model, self.reference, self.scale = model, reference, scale


def train(*, train, test, kind, features, layers, radial, cutoff, threads, seed, **options):
    """Args:
    train, test: .npz files.
    kind: "SchNet" or "PaiNN".
    options: of `force_training.fit`.
    """
    torch.set_num_threads(threads)
    structures = force_training.Structures(train)
    reference = float(np.mean(structures.arrays["energies"] / structures.atoms))
    scale = float(np.sqrt(np.mean(np.square(structures.arrays["forces"]))))
    model = Scaled(_potential(kind, features, layers, radial, cutoff, seed), reference, scale)
    found = force_training.fit(model, _predict, structures, seed=seed, **options)
    found["parameters"] = sum(one.numel() for one in model.parameters())
    return found | force_training.errors(model, _predict, force_training.Structures(test))


def build(*, batch, kind, features, layers, radial, cutoff, threads, seed, path, **options):
    """One batch for `step`, without scale and reference; the parameters go to an .npz file.

    Args:
        options: of `force_training.OneBatch`.
    """
    potential = _potential(kind, features, layers, radial, cutoff, seed)
    np.savez(path, **{name: value.numpy() for name, value in potential.state_dict().items()})
    model = Scaled(potential, 0.0, 1.0)
    _state["steps"] = force_training.OneBatch(model, _predict, batch, threads=threads, **options)


def step():
    return _state["steps"].step()


def _potential(kind, features, layers, radial, cutoff, seed):
    torch.manual_seed(seed)
    representation = getattr(spk.representation, kind)(
        n_atom_basis=features,
        n_interactions=layers,
        radial_basis=spk.nn.GaussianRBF(n_rbf=radial, cutoff=cutoff),
        cutoff_fn=spk.nn.CosineCutoff(cutoff),
    )
    return spk.model.NeuralNetworkPotential(
        representation,
        input_modules=[spk.atomistic.PairwiseDistances()],
        output_modules=[
            spk.atomistic.Atomwise(n_in=features, output_key="energy"),
            spk.atomistic.Forces(energy_key="energy", force_key="forces"),
        ],
    )


def _predict(model, given):
    found = model.model(
        {
            properties.Z: given["numbers"],
            properties.R: given["positions"],
            properties.cell: given["cells"],
            properties.pbc: torch.ones(len(given["atoms"]), 3, dtype=torch.bool),
            properties.n_atoms: given["atoms"],
            properties.idx_m: given["structures"],
            properties.idx_i: given["centers"],
            properties.idx_j: given["neighbours"],
            properties.offsets: given["shifts"],
        }
    )
    energies = model.scale * found["energy"].double() + model.reference * given["atoms"]
    return energies, model.scale * found["forces"]
