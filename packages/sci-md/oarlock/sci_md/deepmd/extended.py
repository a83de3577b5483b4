"""Lists of neighbours as DeePMD-kit takes them: images are atoms, and lists have equal lengths."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oarlock.sci_md.neighbours import Neighbourhood
from oarlock.sci_md.structure import Array


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Extended:
    """Args:
    positions: [A, 3], Å, atoms and then images.
    species: [A] int64.
    lists: [owned, K] int64, −1 where there is no neighbour.
    parents: [A] int64, the atom that each is an image of.
    """

    positions: Array
    species: NDArray[np.int64]
    lists: NDArray[np.int64]
    parents: NDArray[np.int64]


def extended(atoms: Neighbourhood, least: int) -> Extended:
    """Lists of at least `least` places.

    An image is an atom of its own wherever an edge has another shift. Shifts are told apart to 1e-6 Å.
    """
    edges = int(atoms.offsets[atoms.owned])
    counts = np.diff(atoms.offsets[: atoms.owned + 1])
    ends = atoms.neighbours[:edges].astype(np.int64)
    parents = np.arange(len(atoms.positions), dtype=np.int64)
    positions = atoms.positions
    if atoms.shifts is not None:
        steps = np.rint(atoms.shifts[:edges] * 1e6).astype(np.int64)
        away = np.flatnonzero(steps.any(axis=1))
        keys = np.concatenate([ends[away, None], steps[away]], axis=1)
        _, first, of_edge = np.unique(_as_rows(keys), return_index=True, return_inverse=True)
        ends[away] = len(parents) + of_edge.ravel()
        images = away[first]
        from_atoms = atoms.neighbours[images].astype(np.int64)
        positions = np.concatenate([positions, positions[from_atoms] + atoms.shifts[images]])
        parents = np.concatenate([parents, from_atoms])
    most = max(least, int(counts.max(initial=0)))
    lists = np.full((atoms.owned, most), -1, dtype=np.int64)
    centers = np.repeat(np.arange(atoms.owned), counts)
    lists[centers, np.arange(edges) - np.repeat(atoms.offsets[: atoms.owned], counts)] = ends
    return Extended(
        positions=np.ascontiguousarray(positions),
        species=atoms.species[parents].astype(np.int64),
        lists=lists,
        parents=parents,
    )


def _as_rows(keys: NDArray[np.int64]) -> NDArray[np.void]:
    """Rows as single values, which NumPy sorts fast."""
    whole = np.ascontiguousarray(keys)
    return whole.view(np.dtype((np.void, whole.dtype.itemsize * whole.shape[1]))).ravel()
