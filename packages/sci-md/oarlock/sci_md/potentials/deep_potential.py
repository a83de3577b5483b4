"""DeepPot-SE: energies from rotation-invariant descriptors of all neighbours. Source: 1805.09003.

The same function as DeePMD-kit's ``se_e2_a`` with ``tanh`` networks; `deepmd.convert` takes parameters
over in both directions.
"""

from collections.abc import Sequence

import numpy as np
import paddle
from paddle import Tensor, nn

from oarlock.sci_md.graph import Graph, to_graph
from oarlock.sci_md.neighbours import Neighbourhood
from oarlock.sci_md.ops import gather
from oarlock.sci_md.potentials.base import Potential
from oarlock.sci_md.potentials.deep_potential_config import DeepPotentialConfig
from oarlock.sci_md.potentials.deep_potential_descriptor import (
    Descriptor,
    atoms_of,
    environment,
)
from oarlock.sci_md.potentials.deep_potential_layers import FittingNet
from oarlock.sci_md.potentials.registry import register

#: The least deviation that environment rows are divided by, and that of elements without data.
LEAST_DEVIATION, UNKNOWN_DEVIATION = 1e-2, 1e-1


@register(DeepPotentialConfig)
class DeepPotential(Potential):
    config: DeepPotentialConfig

    def __init__(self, config: DeepPotentialConfig) -> None:
        super().__init__(config)
        self.descriptor = Descriptor(config)
        self.fittings = nn.LayerList(
            FittingNet(
                config.embedding[-1] * config.axis, config.fitting, timestep=config.fitting_timestep
            )
            for _ in config.elements
        )

    def interaction_energies(self, graph: Graph) -> Tensor:
        descriptors = self.descriptor(graph)
        atoms = [atoms_of(graph.species, kind) for kind in range(len(self.elements))]
        energies = [self._energies(descriptors, kind, atoms[kind]) for kind in range(len(atoms))]
        back = paddle.argsort(paddle.concat(atoms))
        return gather(paddle.concat(energies), back)

    def _energies(self, descriptors: Tensor, kind: int, atoms: Tensor) -> Tensor:
        energies: Tensor = self.fittings[kind](gather(descriptors, atoms))
        return energies

    def fit_statistics(self, neighbourhoods: Sequence[Neighbourhood]) -> None:
        """Mean and deviation of environment rows, from the structures that it will be trained on.

        As DeePMD-kit takes them: over Σ sel rows an atom, those of nothing among them; the mean of the
        radial number only, and one deviation of the other three.

        Raises:
            ValueError: there are no structures.
        """
        if not neighbourhoods:
            raise ValueError("neighbourhoods is empty: give the structures of the training set")
        kinds, width = len(self.elements), float(sum(self.config.sel))
        counts, sums, squares = np.zeros(kinds), np.zeros((kinds, 4)), np.zeros((kinds, 4))
        for one in neighbourhoods:
            graph = to_graph([one], "float64")
            rows = environment(graph.vectors, self.config.smooth, self.cutoff).numpy()
            counts += np.bincount(one.species[: one.rows], minlength=kinds) * width
            of_edges = one.species[one.centers]
            np.add.at(sums, of_edges, rows)
            np.add.at(squares, of_edges, np.square(rows))
        mean, deviation = np.zeros((kinds, 4)), np.full((kinds, 4), UNKNOWN_DEVIATION)
        for kind in np.flatnonzero(counts):
            mean[kind, 0] = sums[kind, 0] / counts[kind]
            radial = squares[kind, 0] / counts[kind] - mean[kind, 0] ** 2
            across = squares[kind, 1:].sum() / (3 * counts[kind])
            across -= (sums[kind, 1:].sum() / (3 * counts[kind])) ** 2
            deviation[kind] = np.sqrt(np.maximum([radial, across, across, across], 0.0))
        deviation = np.maximum(deviation, LEAST_DEVIATION)
        self.descriptor.mean.set_value(paddle.to_tensor(mean, dtype=self.descriptor.mean.dtype))
        self.descriptor.deviation.set_value(
            paddle.to_tensor(deviation, dtype=self.descriptor.mean.dtype)
        )
