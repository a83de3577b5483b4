"""Systems that all libraries compute, with one list of neighbours, as .npz files."""

from pathlib import Path

import numpy as np


def copper(atoms: int, cutoff: float, path: Path, *, seed: int) -> Path:
    """Rattled fcc copper: numbers, positions, cell, offsets, centers, neighbours and shifts.

    Args:
        atoms: 4 n³ or a multiple of 4 that boxes of whole cells have; the box is made as near to a cube
            as they allow.
        cutoff: Å, of the list.
        path: where the file goes.
    """
    from ase.build import bulk

    from oarlock.sci_md.neighbours import find_neighbours
    from oarlock.sci_md.structure import Structure

    crystal = bulk("Cu", cubic=True).repeat(_cells(atoms))
    crystal.rattle(0.05, seed=seed)
    structure = Structure.from_ase(crystal)
    found = find_neighbours(structure, ("Cu",), cutoff)
    shifts = np.zeros([len(found.neighbours), 3]) if found.shifts is None else found.shifts
    np.savez(
        path,
        numbers=structure.numbers,
        positions=structure.positions,
        cell=structure.cell,
        offsets=found.offsets,
        centers=found.centers,
        neighbours=found.neighbours,
        shifts=shifts,
        shortest=np.sqrt(np.square(found.vectors()).sum(1).min()),
    )
    return path


def _cells(atoms: int) -> tuple[int, int, int]:
    """Numbers of cubic cells whose product is atoms / 4, with the least surface."""
    cells, rest = divmod(atoms, 4)
    if rest or cells < 1:
        raise ValueError(f"atoms={atoms} has to be a multiple of 4: a cubic cell of fcc has 4")
    shapes = [
        (i, j, cells // i // j)
        for i in range(1, cells + 1)
        if cells % i == 0
        for j in range(1, cells // i + 1)
        if cells // i % j == 0
    ]
    return min(shapes, key=lambda one: one[0] * one[1] + one[1] * one[2] + one[0] * one[2])
