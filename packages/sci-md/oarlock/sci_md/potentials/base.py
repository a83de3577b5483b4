"""From the energy of each atom to the energy, forces and virial of a structure.

A potential is E = Σᵢ Eᵢ({r_ij}) with r_ij the vectors of the edges. With g_ij = ∂E/∂r_ij, which
automatic differentiation gives, the forces are F_i = Σ_j (g_ij − g_ji) and the virial is
−∂E/∂ε = −Σ_ij g_ij ⊗ r_ij: exact for periodic boxes of any shape, with no need of positions.
"""

from collections.abc import Callable, Sequence
from contextlib import contextmanager

import numpy as np
import paddle
from ase.data import atomic_numbers
from paddle import Tensor, nn

from oarlock.sci_md import keys
from oarlock.sci_md.graph import Graph
from oarlock.sci_md.ops import gather, scatter_sum, without_weights
from oarlock.sci_md.potentials.config import PotentialConfig


class Potential(nn.Layer):
    """Base of all potentials; a subclass defines `interaction_energies`.

    Energies are scaled by `scale` and moved by one reference energy for each element, both of which
    training sets from its data (`set_reference`); they are part of the model's files.

    Attributes:
        config: what it was built from.
        reach: how many cut-offs away an atom can be and still act on another's energy: 1 for local
            descriptors, the number of layers for message passing.
    """

    reach: int = 1

    def __init__(self, config: PotentialConfig) -> None:
        super().__init__()
        self.config = config
        kinds = len(config.elements)
        numbers = [atomic_numbers[symbol] for symbol in config.elements]
        self.register_buffer("numbers", paddle.to_tensor(numbers, dtype="int64"))
        self.register_buffer("reference_energies", paddle.zeros([kinds], dtype="float64"))
        self.register_buffer("scale", paddle.ones([], dtype="float64"))
        self._repulsion: Callable[[Graph], Tensor] | None = None
        if config.zbl:
            from oarlock.sci_md.potentials.zbl import NuclearRepulsion

            self._repulsion = NuclearRepulsion(config)

    @property
    def elements(self) -> tuple[str, ...]:
        return self.config.elements

    @property
    def cutoff(self) -> float:
        """Å."""
        return self.config.cutoff

    def interaction_energies(self, graph: Graph) -> Tensor:
        """[N], without scale and reference: what a kind of potential is. Differentiable by
        ``graph.vectors`` twice."""
        raise NotImplementedError

    def set_reference(self, energies: Sequence[float], scale: float = 1.0) -> None:
        """Energy of an atom of each element (eV), and the factor of what the network gives (eV)."""
        given = np.asarray(energies, dtype=np.float64)
        if given.shape != (len(self.elements),):
            raise ValueError(
                f"energies has {given.size} values for {len(self.elements)} elements "
                f"({', '.join(self.elements)})"
            )
        if not np.isfinite(given).all() or not (np.isfinite(scale) and scale > 0):
            raise ValueError(f"energies={given.tolist()} and scale={scale} have to be finite")
        self.reference_energies.set_value(paddle.to_tensor(given))
        self.scale.set_value(paddle.to_tensor(scale, dtype="float64"))

    def atomic_energies(self, graph: Graph) -> Tensor:
        """[N] float64 eV; sums of many atoms lose digits in float32."""
        energies = self.interaction_energies(graph).astype("float64") * self.scale
        if self._repulsion is not None:
            energies = energies + self._repulsion(graph).astype("float64")
        return energies + gather(self.reference_energies, graph.species)

    def forward(self, graph: Graph, *, forces: bool = True) -> dict[str, Tensor]:
        """What the potential says of each structure.

        Args:
            forces: also the forces and the virial. In training mode they can be differentiated by the
                parameters.

        Returns:
            By `keys`: energy [count] and atomic_energies [N] in float64; forces [N, 3] and virial
            [count, 3, 3] in the potential's dtype.
        """
        if not forces:
            energies = self.atomic_energies(graph)
            return {
                keys.ENERGY: _of_structures(energies, graph),
                keys.ATOMIC_ENERGIES: energies,
            }
        graph.vectors.stop_gradient = False
        energies = self.atomic_energies(graph)
        energy = _of_structures(energies, graph)
        with without_weights():
            (slopes,) = paddle.grad([energy.sum()], [graph.vectors], create_graph=self.training)
        force, virial = edge_forces(slopes, graph)
        return {
            keys.ENERGY: energy,
            keys.ATOMIC_ENERGIES: energies,
            keys.FORCES: force,
            keys.VIRIAL: virial,
        }


def edge_forces(slopes: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
    """Forces [N, 3] and virials [count, 3, 3] from ∂E/∂r of the edges, [E, 3].

    Edges at ghosts count for the virial: energies depend on them through messages.
    """
    forces = scatter_sum(slopes, graph.centers, graph.atoms) - scatter_sum(
        slopes, graph.neighbours, graph.atoms
    )
    if graph.count == 1:  # edges of ghosts count: messages pass along them
        virial = -paddle.matmul(slopes, graph.vectors, transpose_x=True)
        return forces, virial.unsqueeze(0)
    if graph.edge_structures is None:
        raise ValueError("graph.edge_structures is None, but there are several structures: give it")
    outer = (slopes.unsqueeze(-1) * graph.vectors.unsqueeze(-2)).reshape([-1, 9])
    virials = -scatter_sum(outer, graph.edge_structures, graph.count)
    return forces, virials.reshape([graph.count, 3, 3])


def _of_structures(energies: Tensor, graph: Graph) -> Tensor:
    """Sums over the atoms of each structure; ghosts (−1) go into a row that is dropped.

    energies: [N] → [count].
    """
    index = paddle.where(
        graph.structures < 0, paddle.full_like(graph.structures, graph.count), graph.structures
    )
    return scatter_sum(energies, index, graph.count + 1)[: graph.count]


@contextmanager
def default_dtype(dtype: str):  # type: ignore[no-untyped-def]
    """Layers that are built inside have parameters of this dtype."""
    before = paddle.get_default_dtype()
    paddle.set_default_dtype(dtype)  # type: ignore[arg-type]
    try:
        yield
    finally:
        paddle.set_default_dtype(before)
