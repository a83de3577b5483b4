"""SchNet written with PyTorch's operators alone: steps of training on one batch, served to an experiment.

Runs in the peer's own environment, which has PyTorch and NumPy and nothing of ours.
"""

import math
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent))

import force_training  # noqa: E402

_state: dict = {}


def _softplus(x):
    return F.softplus(x) - math.log(2.0)


class Interaction(nn.Module):
    def __init__(self, features, radial):
        super().__init__()
        self.filter = nn.ModuleList([nn.Linear(radial, features), nn.Linear(features, features)])
        self.into = nn.Linear(features, features, bias=False)
        self.out = nn.ModuleList([nn.Linear(features, features) for _ in range(2)])

    def forward(self, x, basis, cut, centers, neighbours):
        filters = self.filter[1](_softplus(self.filter[0](basis))) * cut
        messages = self.into(x)[neighbours] * filters
        summed = torch.zeros_like(x).index_add(0, centers, messages)
        return self.out[1](_softplus(self.out[0](summed)))


class SchNet(nn.Module):
    """Of one element; parameters have the names of ours.

    Args:
        state: an .npz file of parameters, whose matrices are [in, out].
    """

    def __init__(self, state, features, layers, radial, cutoff):
        super().__init__()
        self.cutoff, self.width = cutoff, cutoff / (radial - 1)
        self.register_buffer("values", torch.linspace(0, cutoff, radial))
        self.embedding = nn.Parameter(torch.empty(1, features))
        self.interactions = nn.ModuleList(Interaction(features, radial) for _ in range(layers))
        half = features // 2
        self.readout = nn.ModuleList([nn.Linear(features, half), nn.Linear(half, 1)])
        with torch.no_grad(), np.load(state) as arrays:
            for name, parameter in self.named_parameters():
                values = torch.from_numpy(arrays[name])
                parameter.copy_(values.T if name.endswith("weight") else values)

    def forward(self, atoms, vectors, centers, neighbours):
        """Energies of the atoms."""
        distances = torch.sqrt(torch.square(vectors).sum(-1))
        basis = torch.exp(-0.5 * torch.square((distances[:, None] - self.values) / self.width))
        cut = 0.5 * (torch.cos(distances * (math.pi / self.cutoff)) + 1.0)[:, None]
        x = self.embedding.expand(atoms, -1)
        for interaction in self.interactions:
            x = x + interaction(x, basis, cut, centers, neighbours)
        return self.readout[1](F.silu(self.readout[0](x)))[:, 0]


def build(*, batch, state, features, layers, radial, cutoff, threads, **options):
    """One batch for `step`; options of `force_training.OneBatch`."""
    model = SchNet(state, features, layers, radial, cutoff)
    _state["steps"] = force_training.OneBatch(model, _predict, batch, threads=threads, **options)


def step():
    return _state["steps"].step()


def _predict(model, given):
    centers, neighbours = given["centers"], given["neighbours"]
    positions, atoms = given["positions"], len(given["positions"])
    vectors = positions[neighbours] - positions[centers] + given["shifts"]
    vectors.requires_grad_(True)
    energies = model(atoms, vectors, centers, neighbours)
    (slopes,) = torch.autograd.grad(energies.sum(), vectors, create_graph=True)
    zeros = torch.zeros(atoms, 3)
    forces = zeros.index_add(0, centers, slopes) - zeros.index_add(0, neighbours, slopes)
    sums = torch.zeros(len(given["atoms"]), dtype=torch.float64)
    return sums.index_add(0, given["structures"], energies.double()), forces
