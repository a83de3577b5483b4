"""Structures with their neighbour lists, as batches for training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor

from oarlock.sci_md.data.joining import join_graphs
from oarlock.sci_md.graph import Graph, to_graph
from oarlock.sci_md.neighbours import find_neighbours
from oarlock.sci_md.structure import Structure

#: Bytes of tensors that a dataset keeps, about.
KEPT = 2**29


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """Some structures at once; labels that a structure lacks are zero and its mask is 0.

    Args:
        indices: of the structures in the dataset.
        graph: atoms and edges.
        atoms: [count] float64, atoms of each structure.
        energy: [count] float64, eV; mask `energy_known` [count] float64.
        forces: [N, 3] in the potential's dtype, eV/Å; mask `forces_known` [N, 1], None for all.
        virial: [count, 3, 3] in the potential's dtype, eV; mask `virial_known` [count, 1, 1].
    """

    indices: NDArray[np.int64]
    graph: Graph
    atoms: Tensor
    energy: Tensor
    energy_known: Tensor
    forces: Tensor
    forces_known: Tensor | None
    virial: Tensor
    virial_known: Tensor


class Dataset:
    """Structures and their neighbours within a cut-off, which are found once.

    Args:
        structures: at least one.
        elements: of the potential, in its order.
        cutoff: Å.
        progress: is called after each structure whose neighbours were found.

    Attributes:
        neighbourhoods: the list of each structure.
        atoms, edges: [structures] int64, the size of each.

    Raises:
        ValueError: no structures, an element that is not among `elements`, overlapping atoms.
    """

    def __init__(
        self,
        structures: Sequence[Structure],
        *,
        elements: Sequence[str],
        cutoff: float,
        threads: int = 1,
        progress: Callable[[], None] | None = None,
    ) -> None:
        if not structures:
            raise ValueError("structures is empty: give at least one")
        self.structures = tuple(structures)
        self.elements = tuple(elements)
        self.cutoff = cutoff
        found = []
        for one in self.structures:
            if not len(one):
                raise ValueError(f"{one.name or 'a structure'} has no atoms: leave it out")
            found.append(find_neighbours(one, elements, cutoff, threads=threads))
            if progress is not None:
                progress()
        self.neighbourhoods = tuple(found)
        self.atoms = np.array([len(one) for one in self.structures], dtype=np.int64)
        self.edges = np.array([len(one.neighbours) for one in found], dtype=np.int64)
        self._kept: dict[tuple[int, str], Batch] = {}
        self._room = KEPT

    def __len__(self) -> int:
        return len(self.structures)

    def batch(self, indices: Sequence[int] | NDArray[np.int64], dtype: str = "float32") -> Batch:
        """These structures as tensors.

        Args:
            dtype: of the potential.
        """
        parts = [self._one(int(index), dtype) for index in indices]
        return parts[0] if len(parts) == 1 else join_batches(parts)

    def _one(self, index: int, dtype: str) -> Batch:
        """The batch of one structure, which is the same each time, and kept while there is room."""
        kept = self._kept.get((index, dtype))
        if kept is None:
            kept = self._made(index, dtype)
            size = 80 * int(self.edges[index]) + 100 * int(self.atoms[index])
            if size <= self._room:
                self._room -= size
                self._kept[index, dtype] = kept
        return kept

    def _made(self, index: int, dtype: str) -> Batch:
        one = self.structures[index]
        forces = np.zeros((len(one), 3)) if one.forces is None else one.forces
        virial = np.zeros((3, 3)) if one.virial is None else one.virial
        unknown = None if one.forces is not None else _tensor(np.zeros((len(one), 1)), dtype)
        return Batch(
            indices=np.array([index], dtype=np.int64),
            graph=to_graph([self.neighbourhoods[index]], dtype),
            atoms=_tensor(self.atoms[index : index + 1], "float64"),
            energy=_tensor(np.array([one.energy or 0.0]), "float64"),
            energy_known=_tensor(np.array([one.energy is not None]), "float64"),
            forces=_tensor(forces, dtype),
            forces_known=unknown,
            virial=_tensor(virial[None], dtype),
            virial_known=_tensor(np.array([[[one.virial is not None]]]), dtype),
        )


def join_batches(parts: Sequence[Batch]) -> Batch:
    """Several as one, in this order."""
    known = None
    if any(one.forces_known is not None for one in parts):
        rows = [
            paddle.ones_like(one.forces[:, :1]) if one.forces_known is None else one.forces_known
            for one in parts
        ]
        known = paddle.concat(rows)
    return Batch(
        indices=np.concatenate([one.indices for one in parts]),
        graph=join_graphs([one.graph for one in parts]),
        atoms=paddle.concat([one.atoms for one in parts]),
        energy=paddle.concat([one.energy for one in parts]),
        energy_known=paddle.concat([one.energy_known for one in parts]),
        forces=paddle.concat([one.forces for one in parts]),
        forces_known=known,
        virial=paddle.concat([one.virial for one in parts]),
        virial_known=paddle.concat([one.virial_known for one in parts]),
    )


def _tensor(values: np.ndarray, dtype: str) -> Tensor:
    return paddle.to_tensor(values.astype(dtype))
