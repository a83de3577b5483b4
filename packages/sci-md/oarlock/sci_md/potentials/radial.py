"""Functions of a distance that messages are weighted by, each zero from the cut-off on."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import paddle
from paddle import Tensor, nn

from oarlock.sci_md.ops import Radial, radial_filters
from oarlock.sci_md.potentials.config import PotentialConfig

BASES = ("gaussian", "bessel")
ENVELOPES = ("cosine", "polynomial")


@dataclass(frozen=True, kw_only=True, slots=True)
class RadialConfig(PotentialConfig):
    """Args:
    radial: how many functions of the distance.
    basis: "gaussian" (SchNet) or "bessel" (DimeNet), which needs fewer functions.
    envelope: "cosine" has one continuous derivative at the cut-off, so that forces are continuous;
        "polynomial" has two, so that forces are smooth and integrators conserve energy better.
    """

    radial: int = 20
    basis: str = "gaussian"
    envelope: str = "cosine"

    def __post_init__(self) -> None:
        PotentialConfig.__post_init__(self)
        if self.radial < 2:
            raise ValueError(f"radial={self.radial} has to be at least 2 functions of the distance")
        if self.basis not in BASES:
            raise ValueError(f"basis={self.basis!r} has to be one of {', '.join(BASES)}")
        if self.envelope not in ENVELOPES:
            raise ValueError(f"envelope={self.envelope!r} has to be one of {', '.join(ENVELOPES)}")


class RadialBasis(nn.Layer):
    """Functions of the distance, an envelope that falls from 1 to 0 at the cut-off, and networks."""

    def __init__(self, config: RadialConfig) -> None:
        super().__init__()
        self.config = config
        if config.basis == "gaussian":
            values = np.linspace(0.0, config.cutoff, config.radial)
        else:
            values = np.pi / config.cutoff * np.arange(1, config.radial + 1)
        self.register_buffer("values", paddle.to_tensor(values, dtype=config.dtype))
        self._kind = Radial(
            cutoff=config.cutoff,
            basis=config.basis,
            width=config.cutoff / (config.radial - 1),
            envelope=config.envelope,
        )

    def filters(self, distances: Tensor, layers: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """A network of the functions, times the envelope; between its layers shifted softplus.

        Args:
            distances: [E], Å.
            layers: weight and bias of one or two layers.

        Returns:
            [E, width of the last layer].
        """
        return radial_filters(distances, self._kind, self.values, list(layers))
