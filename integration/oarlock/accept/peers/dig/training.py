"""DIG's SphereNet trained on molecules, served to an experiment.

Runs in the peer's own environment, which has DIG, PyTorch and NumPy and nothing of ours.
"""

import sys
import types
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "torch")]

import force_training  # noqa: E402
from published import spherenet  # noqa: E402

_edges: dict = {}


class Scaled(torch.nn.Module):
    """The network, in units of the data, beside the energy of atoms."""

    def __init__(self, network, reference, scale):
        super().__init__()
        self.network, self.reference, self.scale = network, reference, scale


def train(*, train, test, layers, features, triplet_features, readout_features, spherical, radial, cutoff,
          threads, seed, **options):  # fmt: skip
    """Args:
    train, test: .npz files.
    layers, …, radial: as ours are called.
    options: of `force_training.fit`.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    structures = force_training.Structures(train)
    reference = float(np.mean(structures.arrays["energies"] / structures.atoms))
    scale = float(np.sqrt(np.mean(np.square(structures.arrays["forces"]))))
    module, _ = spherenet(lambda positions, r, batch: _edges["list"])
    network = module.SphereNet(
        energy_and_force=True,
        cutoff=cutoff,
        num_layers=layers,
        hidden_channels=features,
        int_emb_size=triplet_features,
        out_emb_channels=readout_features,
        num_spherical=spherical,
        num_radial=radial,
    )
    model = Scaled(network, reference, scale)
    found = force_training.fit(model, _predict, structures, seed=seed, **options)
    found["parameters"] = sum(one.numel() for one in model.parameters())
    return found | force_training.errors(model, _predict, force_training.Structures(test))


def _predict(model, given):
    _edges["list"] = torch.stack([given["neighbours"], given["centers"]])
    positions = given["positions"].clone()
    batch = types.SimpleNamespace(z=given["numbers"], pos=positions, batch=given["structures"])
    raw = model.network(batch)[:, 0]
    (slopes,) = torch.autograd.grad(raw.sum(), positions, create_graph=model.training)
    energies = model.scale * raw.double() + model.reference * given["atoms"]
    return energies, -model.scale * slopes
