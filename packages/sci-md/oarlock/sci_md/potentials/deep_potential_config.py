"""What a Deep Potential is configured by."""

import math
from dataclasses import dataclass
from typing import ClassVar

from oarlock.sci_md.potentials.config import PotentialConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepPotentialConfig(PotentialConfig):
    """Args:
    cutoff: Å; ``rcut`` in DeePMD-kit.
    smooth: Å, from where on neighbours fade; ``rcut_smth``.
    embedding: widths of the networks that see one edge each; ``descriptor.neuron``.
    axis: how many of their features the second factor of the descriptor has; ``axis_neuron``.
    fitting: widths of the networks that see an atom's descriptor; ``fitting_net.neuron``.
    one_side: an edge's network depends on its neighbour's element only, not also on the centre's;
        ``type_one_side``.
    sel: neighbours of each element that an atom is expected to have. Sums over neighbours are divided
        by their total; it is no limit, every neighbour counts. Empty for a guess from the cut-off.
    fitting_timestep: shortcuts of the fitting networks have learned weights; ``resnet_dt``.
    embedding_timestep: the same of the embedding networks.

    Raises:
        ValueError: a width or count that cannot be, `smooth` not below the cut-off, `axis` above the
            features.
    """

    model: ClassVar[str] = "deep_potential"

    cutoff: float = 6.0
    smooth: float = 0.5
    embedding: tuple[int, ...] = (25, 50, 100)
    axis: int = 16
    fitting: tuple[int, ...] = (240, 240, 240)
    one_side: bool = True
    sel: tuple[int, ...] = ()
    fitting_timestep: bool = True
    embedding_timestep: bool = False

    def __post_init__(self) -> None:
        PotentialConfig.__post_init__(self)
        for name in ("embedding", "fitting", "sel"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not 0 <= self.smooth < self.cutoff:
            raise ValueError(
                f"smooth={self.smooth} has to lie between 0 and cutoff={self.cutoff}, both in Å"
            )
        for name in ("embedding", "fitting"):
            widths = getattr(self, name)
            if not widths or min(widths) < 1:
                raise ValueError(f"{name}={widths} has to be at least one positive width")
        if not 1 <= self.axis <= self.embedding[-1]:
            raise ValueError(
                f"axis={self.axis} has to be 1 to {self.embedding[-1]}, the last of embedding"
            )
        if not self.sel:
            object.__setattr__(self, "sel", self._expected())
        if len(self.sel) != len(self.elements) or min(self.sel) < 0 or not sum(self.sel):
            raise ValueError(
                f"sel={self.sel} has to be a count for each of {', '.join(self.elements)}"
            )

    def _expected(self) -> tuple[int, ...]:
        """At 0.1 atoms per Å³, which is dense, elements alike."""
        atoms = 0.1 * 4.0 / 3.0 * math.pi * self.cutoff**3
        return (math.ceil(atoms / len(self.elements)),) * len(self.elements)
