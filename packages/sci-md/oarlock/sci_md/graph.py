"""What potentials compute on: the edges of one or many structures as Paddle tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import paddle
from paddle import Tensor

from oarlock.sci_md.neighbours import Neighbourhood


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Graph:
    """Atoms and edges of a batch of structures.

    The positions of atoms are not among it: a potential sees geometry through `vectors` only, so
    that forces and virial follow from the derivative by the vectors (`potentials.base`).

    Args:
        species: [N] int64, indices into the potential's elements.
        centers: [E] int64, rising: the atom at which each edge begins.
        neighbours: [E] int64, the atom at which it ends.
        offsets: [N + 1] int64, the edges of atom i are offsets[i] … offsets[i + 1].
        vectors: [E, 3], Å, from centre to neighbour, in the dtype that the potential computes in.
        structures: [N] int64, rising: the structure that each atom belongs to; −1 for atoms whose
            energies do not count (ghosts).
        count: how many structures there are.
    """

    species: Tensor
    centers: Tensor
    neighbours: Tensor
    offsets: Tensor
    vectors: Tensor
    structures: Tensor
    count: int

    @property
    def atoms(self) -> int:
        return int(self.species.shape[0])

    @property
    def edges(self) -> int:
        return int(self.centers.shape[0])


def to_graph(neighbourhoods: Sequence[Neighbourhood], dtype: str = "float32") -> Graph:
    """One graph of several structures, atoms and edges one after the other.

    Args:
        dtype: "float32" or "float64", of the vectors; differences are taken in float64.
    """
    if not neighbourhoods:
        raise ValueError("neighbourhoods is empty: give at least one structure")
    starts = np.cumsum([0, *[len(one.species) for one in neighbourhoods]])
    counts = [np.zeros(len(one.species), dtype=np.int64) for one in neighbourhoods]
    structures = []
    for index, (one, count) in enumerate(zip(neighbourhoods, counts, strict=True)):
        count[: one.rows] = np.diff(one.offsets)
        belongs = np.full(len(one.species), -1, dtype=np.int64)
        belongs[: one.owned] = index
        structures.append(belongs)
    pairs = list(zip(neighbourhoods, starts[:-1], strict=True))
    return Graph(
        species=_tensor(np.concatenate([one.species for one in neighbourhoods]), "int64"),
        centers=_tensor(np.concatenate([one.centers + start for one, start in pairs]), "int64"),
        neighbours=_tensor(
            np.concatenate([one.neighbours + start for one, start in pairs]), "int64"
        ),
        offsets=_tensor(np.cumsum(np.concatenate([[0], *counts])), "int64"),
        vectors=_tensor(np.concatenate([one.vectors() for one in neighbourhoods]), dtype),
        structures=_tensor(np.concatenate(structures), "int64"),
        count=len(neighbourhoods),
    )


def _tensor(values: np.ndarray, dtype: str) -> Tensor:
    return paddle.to_tensor(values.astype(dtype))
