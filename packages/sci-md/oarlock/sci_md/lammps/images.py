"""Where edges lead to an image of an atom: what is added to their vectors, and which edge leads back."""

import numpy as np
from numpy.typing import NDArray

from oarlock.sci_md.lammps.lists import Selection
from oarlock.sci_md.structure import Array

#: Å; images that are the same number of boxes away agree to rounding.
SAME = 1e-6


class Images:
    """The images of one set of lists.

    An image is a whole lattice vector away from the atom that stands for it. There are few such vectors;
    which of them an edge crosses holds as long as the lists, and their lengths change with the box.

    Args:
        chosen: the lists.
        positions: [atoms, 3], Å, of LAMMPS' atoms and ghosts.
    """

    def __init__(self, chosen: Selection, positions: Array) -> None:
        stands = chosen.atoms[chosen.neighbours]
        moved = np.flatnonzero(stands != chosen.images)
        images, first, place = np.unique(
            chosen.images[moved], return_index=True, return_inverse=True
        )
        vectors, of_image = _distinct(positions[images] - positions[stands[moved[first]]])
        #: [E], the vector that each edge crosses; −1 for none
        self.crossed = np.full(len(stands), -1, dtype=np.int64)
        self.crossed[moved] = of_image[place]
        example = np.zeros(len(vectors), dtype=np.int64)
        example[of_image] = np.arange(len(images))
        self._from = stands[moved[first]][example]
        self._to = images[example]
        self._opposite = _opposite(vectors)
        self._vectors: Array | None = None
        self._shifts: Array | None = None
        self.reverse = self._find_reverse(chosen)

    def shifts(self, positions: Array) -> Array | None:
        """[E, 3], Å, for these positions; None where no edge crosses the box."""
        if not len(self._to):
            return None
        vectors = positions[self._to] - positions[self._from]
        # There and back exactly the same, so that both edges are as long to the last digit.
        known = self._opposite >= 0
        later = known & (self._opposite < np.arange(len(vectors)))
        vectors[later] = -vectors[self._opposite[later]]
        if self._vectors is None or np.abs(vectors - self._vectors).max() > 1e-10:
            self._vectors = vectors
            self._shifts = np.concatenate([vectors, np.zeros((1, 3))])[self.crossed]
        return self._shifts

    def _find_reverse(self, chosen: Selection) -> NDArray[np.int32] | None:
        """[E], the edge that leads back; None where some atoms have no lists."""
        atoms, boxes = len(chosen.atoms), len(self._opposite)
        if len(chosen.offsets) - 1 != atoms or (self._opposite < 0).any():
            return None
        centers = np.repeat(np.arange(atoms), np.diff(chosen.offsets))
        neighbours = chosen.neighbours.astype(np.int64)
        # The last of `opposite` is for −1, edges that stay in the box.
        opposite = np.concatenate([self._opposite, [-1]])
        there = (centers * atoms + neighbours) * (boxes + 1) + self.crossed + 1
        back = (neighbours * atoms + centers) * (boxes + 1) + opposite[self.crossed] + 1
        order = np.argsort(there)
        place = np.minimum(np.searchsorted(there, back, sorter=order), len(order) - 1)
        reverse = order[place] if len(order) else order
        if not (there[reverse] == back).all():
            return None
        return reverse.astype(np.int32)


def _distinct(vectors: Array) -> tuple[Array, NDArray[np.int64]]:
    """The vectors that differ, and which of them each one is."""
    found: list[Array] = []
    which = np.full(len(vectors), -1, dtype=np.int64)
    while (which < 0).any():
        one = vectors[int(np.argmax(which < 0))]
        which[np.abs(vectors - one).max(axis=1) < SAME] = len(found)
        found.append(one)
    return np.array(found).reshape(-1, 3), which


def _opposite(vectors: Array) -> NDArray[np.int64]:
    """For each vector, the one that leads back; −1 for none."""
    if not len(vectors):
        return np.zeros(0, dtype=np.int64)
    sums = np.abs(vectors[:, None] + vectors[None, :]).max(axis=2)
    return np.where((sums < SAME).any(axis=1), (sums < SAME).argmax(axis=1), -1)
