"""SchNet: continuous-filter convolutions. Source: Schütt et al., 1706.08566."""

from dataclasses import dataclass
from typing import ClassVar

import paddle
from paddle import Tensor, nn

from oarlock.sci_md.graph import Graph
from oarlock.sci_md.ops import activation, convolve, gather, lengths, silu
from oarlock.sci_md.potentials.base import Potential
from oarlock.sci_md.potentials.radial import RadialBasis, RadialConfig
from oarlock.sci_md.potentials.registry import register


@dataclass(frozen=True, kw_only=True, slots=True)
class SchNetConfig(RadialConfig):
    """Args:
    features: width of the atoms' features and of the filters.
    layers: interactions.
    """

    model: ClassVar[str] = "schnet"

    features: int = 128
    layers: int = 3


@register(SchNetConfig)
class SchNet(Potential):
    def __init__(self, config: SchNetConfig) -> None:
        super().__init__(config)
        self.reach = config.layers
        self.radial = RadialBasis(config)
        self.embedding = self.create_parameter(
            [len(config.elements), config.features],
            default_initializer=nn.initializer.Normal(),
        )
        self.interactions = nn.LayerList(_Interaction(config) for _ in range(config.layers))
        self.readout = nn.LayerList(
            [nn.Linear(config.features, config.features // 2), nn.Linear(config.features // 2, 1)]
        )

    def interaction_energies(self, graph: Graph) -> Tensor:
        pairs = graph.pairs  # filters depend on lengths only: both directions share them
        vectors = graph.vectors if pairs.edges is None else gather(graph.vectors, pairs.edges)
        distances = lengths(vectors)
        features = gather(self.embedding, graph.species)
        for interaction in self.interactions:
            inner = convolve(
                interaction.into(features),
                self.radial.filters(distances, _layers(interaction.filter)),
                pairs.first,
                pairs.second,
                count=graph.atoms,
                both=pairs.both,
            )
            features = features + interaction.out[1](_hidden(interaction.out[0], inner))
        return self.readout[1](silu(self.readout[0](features))).squeeze(-1)


class _Interaction(nn.Layer):
    """x_i ← W₃ ssp(W₂ Σ_j (W₁ x_j) ∘ w(r_ij))."""

    def __init__(self, config: SchNetConfig) -> None:
        super().__init__()
        width = config.features
        self.filter = nn.LayerList([nn.Linear(config.radial, width), nn.Linear(width, width)])
        self.into = nn.Linear(width, width, bias_attr=False)
        self.out = nn.LayerList([nn.Linear(width, width), nn.Linear(width, width)])


def _layers(layers: nn.LayerList) -> list[tuple[Tensor, Tensor]]:
    return [(layer.weight, layer.bias) for layer in layers]


def _hidden(layer: nn.Linear, x: Tensor) -> Tensor:
    return activation(paddle.matmul(x, layer.weight), "shifted_softplus", layer.bias)
