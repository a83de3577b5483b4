"""SchNet of PyTorch's own operators, of the shape of ours, for `schnet_training.py`."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


def shifted_softplus(x: torch.Tensor) -> torch.Tensor:
    return F.softplus(x) - math.log(2.0)


class Interaction(nn.Module):
    def __init__(self, features: int, radial: int) -> None:
        super().__init__()
        self.filter = nn.ModuleList([nn.Linear(radial, features), nn.Linear(features, features)])
        self.into = nn.Linear(features, features, bias=False)
        self.out = nn.ModuleList([nn.Linear(features, features) for _ in range(2)])

    def forward(self, x, basis, cut, centers, neighbours):  # type: ignore[no-untyped-def]
        filters = self.filter[1](shifted_softplus(self.filter[0](basis))) * cut
        messages = self.into(x)[neighbours] * filters
        summed = torch.zeros_like(x).index_add(0, centers, messages)
        return self.out[1](shifted_softplus(self.out[0](summed)))


class SchNet(nn.Module):
    """Three interactions, 20 Gaussians, one element."""

    def __init__(self, features: int, cutoff: float) -> None:
        super().__init__()
        self.cutoff, self.width = cutoff, cutoff / 19
        self.register_buffer("values", torch.linspace(0, cutoff, 20))
        self.embedding = nn.Parameter(torch.empty(1, features))
        self.interactions = nn.ModuleList(Interaction(features, 20) for _ in range(3))
        self.readout = nn.ModuleList(
            [nn.Linear(features, features // 2), nn.Linear(features // 2, 1)]
        )

    def take_over(self, state: Mapping[str, np.ndarray]) -> None:
        """The weights of ours, whose matrices are [in, out]."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                values = torch.from_numpy(np.array(state[name]))
                is_matrix = name.endswith("weight")
                parameter.copy_(values.T if is_matrix else values)

    def forward(self, atoms, vectors, centers, neighbours):  # type: ignore[no-untyped-def]
        distances = torch.sqrt(torch.square(vectors).sum(-1))
        basis = torch.exp(-0.5 * torch.square((distances[:, None] - self.values) / self.width))
        cut = 0.5 * (torch.cos(distances * (math.pi / self.cutoff)) + 1.0)[:, None]
        x = self.embedding.expand(atoms, -1)
        for interaction in self.interactions:
            x = x + interaction(x, basis, cut, centers, neighbours)
        return self.readout[1](F.silu(self.readout[0](x)))[:, 0]
