"""SphereNet: messages along edges that see distances, angles and torsions.

Source: Liu et al., "Spherical Message Passing for 3D Molecular Graphs", 2102.05013.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from oarlock.sci_md.graph import Graph
from oarlock.sci_md.ops import (
    convolve,
    gather,
    lengths,
    polynomial_cutoff,
    scatter_sum,
    silu,
)
from oarlock.sci_md.potentials.base import Potential
from oarlock.sci_md.potentials.config import PotentialConfig
from oarlock.sci_md.potentials.registry import register
from oarlock.sci_md.potentials.spherenet_basis import SphericalBessel, harmonics, legendre
from oarlock.sci_md.potentials.triplets import Triplets, find_triplets, next_around, turning

TORSIONS = ("mean", "nearest")
#: Keeps directions across an axis finite where an atom lies on it; squares of unit vectors.
ON_AXIS = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class SphereNetConfig(PotentialConfig):
    """Args:
    features: width of the messages.
    triplet_features: width in which messages meet.
    basis_features: width to which distances, angles and torsions are reduced before.
    readout_features: width of the atoms' networks.
    layers: rounds of messages.
    spherical: degrees of the harmonics, 0 … spherical − 1.
    radial: functions of the distance, of each degree.
    envelope_power: power of the polynomial that takes messages to zero at the cut-off.
    residual_before, residual_after: residual layers of each round, before and after the skip.
    readout_layers: hidden layers of the atoms' networks.
    torsion: where torsions around j → i count from. "nearest", as published: from the neighbour of
        j that comes next. The energy jumps when neighbours change places or leave the cut-off, and
        an image and its mirror image differ: for comparisons, not for dynamics. "mean": from the mean
        direction of the neighbours of j, weighted to zero at the cut-off. The energy is smooth and
        even; where the mean vanishes by symmetry torsions do not count.
    """

    model: ClassVar[str] = "spherenet"

    features: int = 128
    triplet_features: int = 64
    basis_features: int = 8
    readout_features: int = 256
    layers: int = 4
    spherical: int = 3
    radial: int = 6
    envelope_power: int = 6
    residual_before: int = 1
    residual_after: int = 2
    readout_layers: int = 3
    torsion: str = "mean"

    def __post_init__(self) -> None:
        PotentialConfig.__post_init__(self)
        if self.torsion not in TORSIONS:
            raise ValueError(f"torsion={self.torsion!r} has to be one of {', '.join(TORSIONS)}")
        if not (1 <= self.spherical <= 8 and self.radial >= 1 and self.envelope_power >= 3):
            raise ValueError(
                f"spherical={self.spherical}, radial={self.radial}, envelope_power="
                f"{self.envelope_power}: they have to be 1 to 8, at least 1, and at least 3"
            )

    @property
    def torsion_functions(self) -> int:
        """Harmonics by radial functions."""
        degrees = self.spherical
        even = degrees * (degrees + 1) // 2
        return (even if self.torsion == "mean" else degrees**2) * self.radial


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Geometry:
    """Functions of distances [E, R], of angles [T, L R] and of torsions [T, H R]."""

    radial: Tensor
    angular: Tensor
    torsional: Tensor
    triplets: Triplets
    graph: Graph


@register(SphereNetConfig)
class SphereNet(Potential):
    config: SphereNetConfig

    def __init__(self, config: SphereNetConfig) -> None:
        super().__init__(config)
        self.reach = config.layers + 1  # a first message knows both its atoms
        orders = paddle.arange(1, config.radial + 1, dtype=config.dtype)
        self.frequencies = self.create_parameter(
            [config.radial], default_initializer=nn.initializer.Assign(orders * paddle.pi)
        )
        self.bessel = SphericalBessel(config.spherical, config.radial, config.cutoff)
        self.embed = _Embed(config)
        self.rounds = nn.LayerList(_Round(config) for _ in range(config.layers))
        self.readouts = nn.LayerList(_Readout(config) for _ in range(config.layers + 1))

    def interaction_energies(self, graph: Graph) -> Tensor:
        geometry = self._geometry(graph)
        messages, seen = self.embed(geometry)
        energies = self.readouts[0](seen, graph)
        for index, step in enumerate(self.rounds):
            messages, seen = step(messages, geometry)
            energies = energies + self.readouts[index + 1](seen, graph)
        return energies

    def _geometry(self, graph: Graph) -> _Geometry:
        config = self.config
        distances = lengths(graph.vectors)
        scaled = (distances / config.cutoff).unsqueeze(-1)
        envelope = polynomial_cutoff(distances, config.cutoff, config.envelope_power)
        radial = envelope.unsqueeze(-1) / scaled * paddle.sin(self.frequencies * scaled)

        triplets = find_triplets(graph)
        directions = graph.vectors / distances.unsqueeze(-1)
        axis = -gather(directions, triplets.outer)  # from j to i
        along = gather(directions, triplets.inner)  # from j to k
        cosine = (axis * along).sum(axis=-1)
        if config.torsion == "mean":
            weights = envelope.unsqueeze(-1) * directions
            mean = gather(scatter_sum(weights, graph.centers, graph.atoms), graph.neighbours)
            across = mean - (mean * directions).sum(axis=-1, keepdim=True) * directions  # [E, 3]
            size = paddle.sqrt(1.0 + paddle.square(across).sum(axis=-1, keepdim=True))
            zero = gather(across / size, triplets.outer)
        else:
            after = gather(directions, next_around(graph, triplets, directions))
            across = after - (axis * after).sum(axis=-1, keepdim=True) * axis
            zero = across / paddle.sqrt(paddle.square(across).sum(axis=-1, keepdim=True) + ON_AXIS)
        surface, degrees = harmonics(
            cosine,
            (along * zero).sum(axis=-1),
            turning(axis, along, zero),
            config.spherical,
            odd=config.torsion == "nearest",
        )
        if config.torsion == "nearest":  # the published program pairs them in this order
            degrees = [position % config.spherical for position in range(len(degrees))]

        # Each harmonic times the radial functions of its degree. Rows are repeated by products of
        # matrices, which Paddle differentiates faster than products of numbers that are repeated.
        lines = gather(self.bessel(distances).astype(config.dtype), triplets.inner)  # [T, L, R]
        lines = lines.reshape([-1, config.spherical * config.radial])
        of_degree, each = np.eye(config.spherical), np.eye(config.radial)
        angular = lines * self._repeated(legendre(cosine, config.spherical))
        pairing = paddle.to_tensor(np.kron(of_degree[:, degrees], each), dtype=config.dtype)
        torsional = paddle.matmul(lines, pairing) * self._repeated(surface)
        return _Geometry(
            radial=radial,
            angular=angular,
            torsional=torsional,
            triplets=triplets,
            graph=graph,
        )

    def _repeated(self, functions: Tensor) -> Tensor:
        """[T, H] → [T, H R], each column as often as there are radial functions."""
        ones = np.ones((1, self.config.radial))
        matrix = np.kron(np.eye(functions.shape[-1]), ones)
        return paddle.matmul(functions, paddle.to_tensor(matrix, dtype=self.config.dtype))


class _Embed(nn.Layer):
    """The first messages, from the two atoms and their distance."""

    def __init__(self, config: SphereNetConfig) -> None:
        super().__init__()
        width = config.features
        uniform = nn.initializer.Uniform(-(3.0**0.5), 3.0**0.5)
        self.atoms = self.create_parameter(
            [len(config.elements), width], default_initializer=uniform
        )
        self.distance = _first(config.radial, width, config.radial)
        self.parts = nn.LayerList(
            [_first(width, width, 3 * width, bias=part == 0) for part in range(3)]  # of one sum
        )
        self.gate = _linear(config.radial, width, bias=False)

    def forward(self, geometry: _Geometry) -> tuple[Tensor, Tensor]:
        graph = geometry.graph
        kinds = F.one_hot(graph.species, self.atoms.shape[0]).astype(self.atoms.dtype)
        atoms = paddle.matmul(kinds, self.atoms)
        distance, center, neighbour = self.parts
        messages = silu(
            distance(silu(self.distance(geometry.radial)))
            + gather(center(atoms), graph.centers)
            + gather(neighbour(atoms), graph.neighbours)
        )
        return messages, self.gate(geometry.radial) * messages


class _Round(nn.Layer):
    """m_ji ← f(m_ji, Σ_k g(m_kj, d_kj) ∘ a(d_kj, θ_kji) ∘ t(d_kj, θ_kji, φ_kji))."""

    def __init__(self, config: SphereNetConfig) -> None:
        super().__init__()
        width, narrow, basis = config.features, config.triplet_features, config.basis_features
        angular = config.spherical * config.radial
        self.distance = nn.LayerList(_funnel(config.radial, basis, width))
        self.angle = nn.LayerList(_funnel(angular, basis, narrow))
        self.torsion = nn.LayerList(_funnel(config.torsion_functions, basis, narrow))
        self.own = _linear(width, width)
        self.others = _linear(width, width)
        self.down = _linear(width, narrow, bias=False)
        self.up = _linear(narrow, width, bias=False)
        self.before = nn.LayerList(_Residual(width) for _ in range(config.residual_before))
        self.skip = _linear(width, width)
        self.after = nn.LayerList(_Residual(width) for _ in range(config.residual_after))
        self.gate = _linear(config.radial, width, bias=False)

    def forward(self, messages: Tensor, geometry: _Geometry) -> tuple[Tensor, Tensor]:
        triplets, graph = geometry.triplets, geometry.graph
        others = silu(self.others(messages)) * self.distance[1](self.distance[0](geometry.radial))
        weights = self.angle[1](self.angle[0](geometry.angular)) * self.torsion[1](
            self.torsion[0](geometry.torsional)
        )
        others = convolve(
            silu(self.down(others)),
            weights,
            triplets.outer,
            triplets.inner,
            count=graph.edges + 1,  # one more: Paddle cannot differentiate a sum into no rows
        )[:-1]
        changed = silu(self.own(messages)) + silu(self.up(others))
        for layer in self.before:
            changed = layer(changed)
        messages = silu(self.skip(changed)) + messages
        for layer in self.after:
            messages = layer(messages)
        return messages, self.gate(geometry.radial) * messages


class _Residual(nn.Layer):
    """x + silu(W₂ silu(W₁ x))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.LayerList([_linear(width, width), _linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        return x + silu(self.layers[1](silu(self.layers[0](x))))


class _Readout(nn.Layer):
    """Energies of atoms [N] from the messages that they receive [E, F]."""

    def __init__(self, config: SphereNetConfig) -> None:
        super().__init__()
        width = config.readout_features
        self.up = _linear(config.features, width)
        self.hidden = nn.LayerList(_linear(width, width) for _ in range(config.readout_layers))
        self.out = _linear(width, 1, bias=False)

    def forward(self, messages: Tensor, graph: Graph) -> Tensor:
        atoms = self.up(scatter_sum(messages, graph.centers, graph.atoms))
        for layer in self.hidden:
            atoms = silu(layer(atoms))
        return self.out(atoms).squeeze(-1)


def _linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """Orthogonal weights of variance 2 / (inputs + outputs), as published."""
    gain = (2.0 * max(inputs, outputs) / (inputs + outputs)) ** 0.5
    weights = paddle.ParamAttr(initializer=nn.initializer.Orthogonal(gain))
    return nn.Linear(inputs, outputs, weight_attr=weights, bias_attr=None if bias else False)


def _first(inputs: int, outputs: int, of: int, *, bias: bool = True) -> nn.Linear:
    """Weights and bias within ±1 / √of, as published for the first messages; `of` counts all inputs of their sum."""
    uniform = paddle.ParamAttr(initializer=nn.initializer.Uniform(-(of**-0.5), of**-0.5))
    return nn.Linear(inputs, outputs, weight_attr=uniform, bias_attr=uniform if bias else False)


def _funnel(inputs: int, between: int, outputs: int) -> list[nn.Linear]:
    return [_linear(inputs, between, bias=False), _linear(between, outputs, bias=False)]
