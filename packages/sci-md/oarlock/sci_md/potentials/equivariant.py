"""An equivariant potential: convolutions in the frames of edges, products of densities at atoms."""

import math
from dataclasses import dataclass
from typing import ClassVar

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from oarlock.native import spherical
from oarlock.sci_md.graph import Graph
from oarlock.sci_md.potentials import equivariant_ops as ops
from oarlock.sci_md.potentials.base import Potential
from oarlock.sci_md.potentials.config import PotentialConfig
from oarlock.sci_md.potentials.equivariant_layers import (
    DegreeLinear,
    Features,
    RadialTable,
    linear,
)
from oarlock.sci_md.potentials.registry import register


@dataclass(frozen=True, kw_only=True, slots=True)
class EquivariantConfig(PotentialConfig):
    """Args:
    features: channels of each component, a multiple of 16.
    layers: convolutions; atoms see so many cut-offs far.
    degree: highest degree of the density around an atom, 1 to 3.
    message_degree: highest degree of the features that pass between atoms, 0 to `degree`.
    radial: Bessel functions that radial networks see.
    radial_width: width of the hidden layers of radial networks.
    intervals: of the splines that hold radial weights, from 0 to the cut-off.
    neighbours: how many neighbours an atom has about; sums over them are divided by it.
    """

    model: ClassVar[str] = "equivariant"

    features: int = 64
    layers: int = 2
    degree: int = 3
    message_degree: int = 1
    radial: int = 8
    radial_width: int = 64
    intervals: int = 32
    neighbours: float = 30.0

    def __post_init__(self) -> None:
        PotentialConfig.__post_init__(self)
        if self.features < 16 or self.features % 16:
            raise ValueError(f"features={self.features} has to be a multiple of 16")
        if self.layers < 1:
            raise ValueError(f"layers={self.layers} has to be 1 or more")
        if not 1 <= self.degree <= 3:
            raise ValueError(f"degree={self.degree} has to be 1, 2 or 3")
        if not 0 <= self.message_degree <= self.degree:
            raise ValueError(
                f"message_degree={self.message_degree} has to be from 0 to degree={self.degree}"
            )
        if self.radial < 1 or self.radial_width < 1 or self.intervals < 4:
            raise ValueError(
                f"radial={self.radial} and radial_width={self.radial_width} have to be 1 or more, "
                f"intervals={self.intervals} 4 or more"
            )
        if not self.neighbours > 0:
            raise ValueError(f"neighbours={self.neighbours} has to be positive")


@register(EquivariantConfig)
class Equivariant(Potential):
    config: EquivariantConfig

    def __init__(self, config: EquivariantConfig) -> None:
        super().__init__(config)
        self.reach = config.layers
        kinds = len(config.elements)
        self.embedding = self.create_parameter(
            [kinds, config.features], default_initializer=nn.initializer.Normal()
        )
        last = config.layers - 1
        degrees = [0, *[config.message_degree] * last, 0]
        self.layers = nn.LayerList(
            Layer(config, degrees[i], degrees[i + 1], first=i == 0) for i in range(config.layers)
        )
        self.readouts = nn.LayerList(linear(config.features, 1) for _ in range(last))
        self.hidden = linear(config.features, config.features)
        self.readout = linear(config.features, 1)

    def interaction_energies(self, graph: Graph) -> Tensor:
        dtype = self.config.dtype
        kinds = F.one_hot(graph.species, len(self.elements)).astype(dtype)
        edges = ops.edges(graph, degree=self.config.degree, cutoff=self.cutoff)
        features: Features = [paddle.matmul(kinds, self.embedding).unsqueeze(1)]
        energies = 0.0
        for index, layer in enumerate(self.layers):
            features = layer(features, kinds, edges)
            scalars = features[0].squeeze(1)
            if index < len(self.readouts):
                energies = energies + self.readouts[index](scalars)
        energies = energies + self.readout(1.7 * F.silu(self.hidden(scalars)))
        return energies.squeeze(-1)


class Layer(nn.Layer):
    """Sums the neighbours' features, multiplies the sum with itself, and mixes.

    A_i = Σ_j Dᵀ S(r_ij) D h_j,  h_i ← W₁ A_i + W₂ (A_i², A_i³) + W₃ h_i.
    """

    def __init__(
        self, config: EquivariantConfig, degree_in: int, degree_out: int, *, first: bool
    ) -> None:
        super().__init__()
        width, degree = config.features, config.degree
        self.degree_in, self.degree_out = degree_in, degree_out
        self.table = RadialTable(
            paths=spherical.paths(degree_in, degree),
            channels=width,
            cutoff=config.cutoff,
            intervals=config.intervals,
            basis=config.radial,
            width=config.radial_width,
        )
        self.scale = 1.0 / math.sqrt(config.neighbours)
        self.into: DegreeLinear | None = None
        if not first:
            self.into = DegreeLinear(degree_in, width, width)
        self.mix = DegreeLinear(degree, width, width)
        self.from_sum = DegreeLinear(degree_out, width, width)
        self.from_powers = DegreeLinear(degree_out, 2 * width, width)
        self.from_self = DegreeLinear(min(degree_in, degree_out), width, width)
        self.of_kind: Tensor | None = None
        if len(config.elements) > 1:
            self.of_kind = self.create_parameter(
                [len(config.elements), 2 * width], default_initializer=nn.initializer.Constant(1.0)
            )
        values, weights = ops.sphere_points(degree, degree_out, config.dtype)
        self.register_buffer("sphere_values", values, persistable=False)
        self.register_buffer("sphere_weights", weights, persistable=False)

    def forward(self, features: Features, kinds: Tensor, edges: ops.Edges) -> Features:
        messages = features if self.into is None else self.into(features)
        density = self.mix(ops.convolve(messages, self.table() * self.scale, edges))
        products = ops.powers(density, self.sphere_values, self.sphere_weights)
        if self.of_kind is not None:
            factor = paddle.matmul(kinds, self.of_kind).unsqueeze(1)
            products = [one * factor for one in products]
        parts = [self.from_sum(density), self.from_powers(products), self.from_self(features)]
        return [
            sum(part[ell] for part in parts if ell < len(part))
            for ell in range(self.degree_out + 1)
        ]
