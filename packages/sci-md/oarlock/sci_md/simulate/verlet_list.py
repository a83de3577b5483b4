"""A neighbour list that is kept while atoms move less than its skin allows."""

from dataclasses import replace

import numpy as np

from oarlock.sci_md.neighbours import Neighbourhood, find_neighbours
from oarlock.sci_md.structure import Array, Structure

#: Å; a box thinner than this is a mistake in the input (and has thousands of images in reach).
THINNEST = 0.5


class VerletList:
    """Neighbours within cut-off + skin, found anew only when a pair could have been missed.

    Atoms at r₀ in a box h₀ are later at r = r₀ F + u, with F = h₀⁻¹ h the change of the box (rows are
    vectors). A pair that is now closer than the cut-off was closer than ‖F⁻¹‖ (cutoff + 2 max |u|), so
    the list is whole while that is at most cutoff + skin: also in boxes that change every step.

    Args:
        elements: chemical symbols, what species are counted by.
        cutoff: Å.
        skin: Å, 0 or more.
        threads: for finding neighbours.

    Attributes:
        searches: how often the list was found.
    """

    def __init__(
        self, elements: tuple[str, ...], cutoff: float, *, skin: float = 0.5, threads: int = 1
    ) -> None:
        if not (np.isfinite(skin) and skin >= 0):
            raise ValueError(f"skin={skin} has to be a length in Å, 0 or more")
        self.elements = elements
        self.cutoff = cutoff
        self.skin = skin
        self.threads = threads
        self.searches = 0
        self._structure: Structure | None = None
        self._list: Neighbourhood | None = None
        self._lattice: Array | None = None  # [E, 3], shifts in whole lattice vectors

    def update(self, structure: Structure) -> Neighbourhood:
        """The neighbours of the structure; edges may be longer than the cut-off.

        Raises:
            ValueError: an unknown element, overlapping atoms, a box too thin.
        """
        if self._list is None or not self._still_whole(structure):
            return self._build(structure)
        if self._lattice is None or self._same_cell(structure):
            return replace(self._list, positions=structure.positions)
        shifts = self._lattice @ structure.cell
        return replace(self._list, positions=structure.positions, shifts=shifts)

    def _still_whole(self, structure: Structure) -> bool:
        before = self._structure
        assert before is not None
        if not np.array_equal(before.numbers, structure.numbers):
            return False
        if not np.array_equal(before.pbc, structure.pbc):
            return False
        if self._same_cell(structure):
            carried, stretch = before.positions, 1.0
        elif before.pbc.all():
            change = np.linalg.solve(before.cell, structure.cell)
            carried = before.positions @ change
            stretch = 1.0 / float(np.linalg.svd(change, compute_uv=False)[-1])
        else:
            return False
        squares = np.square(structure.positions - carried).sum(axis=1)
        moved = float(np.sqrt(squares.max(initial=0.0)))
        return stretch * (self.cutoff + 2.0 * moved) <= self.cutoff + self.skin

    def _same_cell(self, structure: Structure) -> bool:
        assert self._structure is not None
        return np.array_equal(self._structure.cell, structure.cell)

    def _build(self, structure: Structure) -> Neighbourhood:
        _check_thickness(structure)
        found = find_neighbours(
            structure, self.elements, self.cutoff + self.skin, threads=self.threads
        )
        self._lattice = None
        if found.shifts is not None and structure.pbc.all():
            whole = np.linalg.solve(structure.cell.T, found.shifts.T).T
            self._lattice = np.round(whole).astype(np.float64)
        self._structure, self._list = structure, found
        self.searches += 1
        return found


def _check_thickness(structure: Structure) -> None:
    if not structure.pbc.all():
        return
    heights = 1.0 / np.linalg.norm(np.linalg.inv(structure.cell), axis=0)
    if heights.min() < THINNEST:
        raise ValueError(
            f"the box of {structure.name or 'the structure'} is {heights.min():.2g} Å thin along "
            f"lattice vector {int(heights.argmin())}: mend cell (in Å), it has to be {THINNEST} or more"
        )
