"""The elemental sets of mlearn with their published splits, for us and as .npz files for peers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from oarlock.accept import data
from oarlock.sci_md.data import read
from oarlock.sci_md.neighbours import find_neighbours
from oarlock.sci_md.structure import Structure


def structures(element: str, part: str) -> list[Structure]:
    """All structures of "training" or "test" of an element, energies in eV and forces in eV/Å."""
    archive = data.path("md/mlearn", "mlearn.zip")
    return read(archive / "data" / element / f"{part}.json", need=("energy", "forces"))


def one_batch(element: str, count: int) -> list[Structure]:
    """So many training structures, evenly from first to last."""
    found = structures(element, "training")
    return [found[index] for index in np.linspace(0, len(found) - 1, count).astype(int)]


def for_peers(given: Sequence[Structure], cutoff: float, path: Path) -> Path:
    """Structures one after the other, with one list of neighbours.

    Arrays: numbers, positions, forces, cells, energies, atoms (of each structure), and of edges centers,
    neighbours (both counted within the structure), shifts and edges (of each structure).
    """
    lists = [find_neighbours(one, tuple(sorted(set(one.symbols))), cutoff) for one in given]
    np.savez(
        path,
        numbers=np.concatenate([one.numbers for one in given]),
        positions=np.concatenate([one.positions for one in given]),
        forces=np.concatenate([one.forces for one in given]),
        cells=np.stack([one.cell for one in given]),
        energies=np.array([one.energy for one in given]),
        atoms=np.array([len(one) for one in given]),
        centers=np.concatenate([one.centers for one in lists]),
        neighbours=np.concatenate([one.neighbours for one in lists]),
        shifts=np.concatenate(
            [
                np.zeros([len(one.neighbours), 3]) if one.shifts is None else one.shifts
                for one in lists
            ]
        ),
        edges=np.array([len(one.neighbours) for one in lists]),
    )
    return path
