"""What potentials compute on: the edges of one or many structures as Paddle tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import paddle
from paddle import Tensor

from oarlock.sci_md.neighbours import Neighbourhood


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pairs:
    """Edges, those that lead there and back taken together.

    Args:
        first: [P] int64, the atom at which each begins.
        second: [P] int64, the atom at which it ends.
        both: the first so many pairs are edges in either direction, of the same length.
        edges: [P] int64, which of the graph's edges each pair is; None if it is that of the same number.
    """

    first: Tensor
    second: Tensor
    both: int
    edges: Tensor | None


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
        paired: the edges by pairs, where it is known which edge leads back; see `pairs`.
        edge_structures: [E] int64, the structure that each edge belongs to, those of ghosts too; may be
            None where there is one structure.
    """

    species: Tensor
    centers: Tensor
    neighbours: Tensor
    offsets: Tensor
    vectors: Tensor
    structures: Tensor
    count: int
    paired: Pairs | None = None
    edge_structures: Tensor | None = None

    @property
    def atoms(self) -> int:
        return int(self.species.shape[0])

    @property
    def edges(self) -> int:
        return int(self.centers.shape[0])

    @property
    def pairs(self) -> Pairs:
        """For what depends on lengths only: half as many rows as edges, where `paired` is known."""
        if self.paired is not None:
            return self.paired
        return Pairs(first=self.centers, second=self.neighbours, both=0, edges=None)


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
    centers = np.concatenate([one.centers.astype(np.int64) + start for one, start in pairs])
    neighbours = np.concatenate([one.neighbours.astype(np.int64) + start for one, start in pairs])
    edges = [len(one.neighbours) for one in neighbourhoods]
    return Graph(
        species=_tensor(np.concatenate([one.species for one in neighbourhoods]), "int64"),
        centers=_tensor(centers, "int64"),
        neighbours=_tensor(neighbours, "int64"),
        offsets=_tensor(np.cumsum(np.concatenate([[0], *counts])), "int64"),
        vectors=_tensor(np.concatenate([one.vectors() for one in neighbourhoods]), dtype),
        structures=_tensor(np.concatenate(structures), "int64"),
        count=len(neighbourhoods),
        paired=_paired(neighbourhoods, centers, neighbours),
        edge_structures=_tensor(np.repeat(np.arange(len(edges)), edges), "int64"),
    )


def _paired(
    neighbourhoods: Sequence[Neighbourhood], centers: np.ndarray, neighbours: np.ndarray
) -> Pairs | None:
    starts = np.cumsum([0, *[len(one.neighbours) for one in neighbourhoods]])
    found = []
    for one, start in zip(neighbourhoods, starts[:-1], strict=True):
        if one.reverse is None:
            return None
        found.append(np.flatnonzero(one.reverse > np.arange(len(one.reverse))) + start)
    edges = np.concatenate(found)
    return Pairs(
        first=_tensor(centers[edges], "int64"),
        second=_tensor(neighbours[edges], "int64"),
        both=len(edges),
        edges=_tensor(edges, "int64"),
    )


def _tensor(values: np.ndarray, dtype: str) -> Tensor:
    return paddle.to_tensor(values.astype(dtype, copy=False))
