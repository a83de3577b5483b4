"""PaiNN: messages of scalars and vectors. Source: Schütt, Unke, Gastegger, 2102.03150."""

from dataclasses import dataclass
from typing import ClassVar

import paddle
from paddle import Tensor, nn

from oarlock.sci_md.graph import Graph
from oarlock.sci_md.ops import activation, convolve, gather, lengths
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
        pairs = graph.pairs  # filters depend on lengths only: both directions share them
        vectors = graph.vectors if pairs.edges is None else gather(graph.vectors, pairs.edges)
        distances = lengths(vectors)
        directions = vectors / distances.unsqueeze(-1)
        scalars = gather(self.embedding, graph.species)  # [N, F]
        moments = None  # [N, 3, F], the atoms' vectors: zero until the first messages
        for message, update in zip(self.messages, self.updates):
            filters = message.filters(distances, self.radial)
            scalars, moments = message(scalars, moments, filters, directions, graph)
            scalars, moments = update(scalars, moments)
        return _two_layers(self.readout, scalars).squeeze(-1)


class _Message(nn.Layer):
    """s_i += Σ_j φ_s(s_j) ∘ w_s(r_ij) and v_i += Σ_j v_j ∘ φ_v ∘ w_v + r̂_ij φ_r ∘ w_r."""

    def __init__(self, config: PaiNNConfig) -> None:
        super().__init__()
        width = config.features
        self.context = nn.LayerList([nn.Linear(width, width), nn.Linear(width, 3 * width)])
        self.filter = nn.Linear(config.radial, 3 * width)

    def filters(self, distances: Tensor, radial: RadialBasis) -> list[Tensor]:
        """w_s, w_r and w_v of each pair, [P, F] each."""
        weights = paddle.split(self.filter.weight, 3, axis=-1)
        biases = paddle.split(self.filter.bias, 3, axis=-1)
        return [radial.filters(distances, [layer]) for layer in zip(weights, biases)]

    def forward(
        self,
        scalars: Tensor,
        moments: Tensor | None,
        filters: list[Tensor],
        directions: Tensor,
        graph: Graph,
    ) -> tuple[Tensor, Tensor]:
        pairs, count = graph.pairs, graph.atoms
        first, second, both = pairs.first, pairs.second, pairs.both
        plain, along, carried = paddle.split(_two_layers(self.context, scalars), 3, axis=-1)
        summed = convolve(plain, filters[0], first, second, count=count, both=both)  # [N, F]

        # r̂ w_r changes its sign with the direction of the edge. As a product of matrices: Paddle's
        # products of numbers that are repeated are four times slower to differentiate twice.
        turned = paddle.matmul(directions.unsqueeze(-1), filters[1].unsqueeze(1))  # [P, 3, F]
        turned = turned.reshape([-1, 3 * along.shape[-1]])
        thrice = paddle.tile(along, [1, 3])
        moved = convolve(thrice, turned, first, second, count=count)
        if both:
            back, there = second[:both], first[:both]
            moved = moved - convolve(thrice, turned[:both], back, there, count=count)
        moved = moved.reshape([-1, 3, along.shape[-1]])  # [N, 3, F]
        if moments is not None:
            inner = carried.unsqueeze(1) * moments
            carried = convolve(inner, filters[2], first, second, count=count, both=both)
            moved = moments + moved + carried
        return scalars + summed, moved


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
        plain, turned, crossed = paddle.split(_two_layers(self.context, inputs), 3, axis=-1)
        scalars = scalars + plain + crossed * (left * right).sum(axis=-2)
        return scalars, vectors + turned.unsqueeze(-2) * right


def _two_layers(layers: nn.LayerList, x: Tensor) -> Tensor:
    return layers[1](activation(paddle.matmul(x, layers[0].weight), "silu", layers[0].bias))
