"""PaiNN: messages of scalars and vectors. Source: Schütt, Unke, Gastegger, 2102.03150."""

from dataclasses import dataclass
from typing import ClassVar

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from oarlock.sci_md.graph import Graph
from oarlock.sci_md.ops import gather, lengths, scatter_sum
from oarlock.sci_md.potentials.base import Potential
from oarlock.sci_md.potentials.radial import RadialBasis, RadialConfig
from oarlock.sci_md.potentials.registry import register

#: Å² or whatever a vector feature is in, under the root of its length, which stays smooth at zero.
EPSILON = 1e-8


@dataclass(frozen=True, kw_only=True, slots=True)
class PaiNNConfig(RadialConfig):
    """Args:
    features: how many scalars and how many vectors each atom has.
    layers: rounds of messages.
    """

    model: ClassVar[str] = "painn"

    features: int = 128
    layers: int = 3


@register(PaiNNConfig)
class PaiNN(Potential):
    def __init__(self, config: PaiNNConfig) -> None:
        super().__init__(config)
        width = config.features
        self.reach = config.layers
        self.radial = RadialBasis(config)
        self.embedding = self.create_parameter(
            [len(config.elements), width], default_initializer=nn.initializer.Normal()
        )
        self.messages = nn.LayerList(_Message(config) for _ in range(config.layers))
        self.updates = nn.LayerList(_Update(width) for _ in range(config.layers))
        self.readout = nn.LayerList([nn.Linear(width, width // 2), nn.Linear(width // 2, 1)])

    def interaction_energies(self, graph: Graph) -> Tensor:
        distances = lengths(graph.vectors)
        directions = (graph.vectors / distances.unsqueeze(-1)).unsqueeze(-1)  # [E, 3, 1]
        basis, cut = self.radial(distances)
        kinds = F.one_hot(graph.species, len(self.elements)).astype(self.config.dtype)
        scalars = paddle.matmul(kinds, self.embedding)  # [N, F]
        vectors = None  # [N, 3, F], zero until the first messages
        for message, update in zip(self.messages, self.updates):
            scalars, vectors = message(scalars, vectors, basis, cut, directions, graph)
            scalars, vectors = update(scalars, vectors)
        return self.readout[1](F.silu(self.readout[0](scalars))).squeeze(-1)


class _Message(nn.Layer):
    """s_i += Σ_j φ_s(s_j) ∘ w_s(r_ij) and v_i += Σ_j v_j ∘ φ_v ∘ w_v + r̂_ij φ_r ∘ w_r."""

    def __init__(self, config: PaiNNConfig) -> None:
        super().__init__()
        width = config.features
        self.context = nn.LayerList([nn.Linear(width, width), nn.Linear(width, 3 * width)])
        self.filter = nn.Linear(config.radial, 3 * width)

    def forward(
        self,
        scalars: Tensor,
        vectors: Tensor | None,
        basis: Tensor,
        cut: Tensor,
        directions: Tensor,
        graph: Graph,
    ) -> tuple[Tensor, Tensor]:
        context = self.context[1](F.silu(self.context[0](scalars)))
        weighted = gather(context, graph.neighbours) * (self.filter(basis) * cut)
        plain, along, carried = paddle.split(weighted, 3, axis=-1)  # [E, F] each
        moved = along.unsqueeze(-2) * directions  # [E, 3, F]
        if vectors is not None:
            moved = moved + carried.unsqueeze(-2) * gather(vectors, graph.neighbours)
        scalars = scalars + scatter_sum(plain, graph.centers, graph.atoms)
        summed = scatter_sum(moved, graph.centers, graph.atoms)
        return scalars, summed if vectors is None else vectors + summed


class _Update(nn.Layer):
    """s += a_ss + a_sv ⟨U v, V v⟩ and v += a_vv U v, with a(s, |V v|) a network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, 2 * width, bias_attr=False)
        self.context = nn.LayerList([nn.Linear(2 * width, width), nn.Linear(width, 3 * width)])

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        left, right = paddle.split(self.mix(vectors), 2, axis=-1)  # [N, 3, F]
        size = paddle.sqrt(paddle.square(left).sum(axis=-2) + EPSILON)  # [N, F]
        inputs = paddle.concat([scalars, size], axis=-1)
        factors = self.context[1](F.silu(self.context[0](inputs)))
        plain, turned, crossed = paddle.split(factors, 3, axis=-1)
        scalars = scalars + plain + crossed * (left * right).sum(axis=-2)
        return scalars, vectors + turned.unsqueeze(-2) * right
