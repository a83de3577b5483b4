"""From LAMMPS' lists, over atoms and ghosts, to the atoms and edges that a potential needs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Lists:
    """LAMMPS' full lists.

    Args:
        centers: [rows] int32, the atom of each list; those that the rank owns come first.
        offsets: [rows + 1] int64.
        neighbours: [E] int32, atoms or ghosts.
        atoms: how many atoms and ghosts there are.
        owned: how many atoms belong to the rank (they come before the ghosts).
        owned_rows: how many of the lists are of such atoms.
    """

    centers: Indices
    offsets: NDArray[np.int64]
    neighbours: Indices
    atoms: int
    owned: int
    owned_rows: int

    @property
    def plain(self) -> bool:
        """Whether each owned atom has a list, in order, and no ghost has one."""
        rows = len(self.centers)
        return (
            rows == self.owned_rows == self.owned
            and rows > 0
            and bool((self.centers == np.arange(rows, dtype=np.int32)).all())
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Selection:
    """The atoms that a potential sees, and its lists, where LAMMPS' own do not serve.

    Args:
        atoms: [M] int32, LAMMPS' index of each; those whose energies count come first.
        owned: how many those are.
        offsets: [rows + 1] int64; atoms behind the rows pass no messages on.
        neighbours: [E] int32, into `atoms`.
        images: [E] int32, LAMMPS' index of the image of the neighbour that the edge leads to.
    """

    atoms: Indices
    owned: int
    offsets: NDArray[np.int64]
    neighbours: Indices
    images: Indices


def select(lists: Lists, reach: int, tags: Indices | None = None) -> Selection:
    """The atoms within `reach` edges of those with energies; images of one atom become one.

    A message-passing potential needs what its neighbours' neighbours are. Where all ghosts are images
    of atoms of this rank, those are the atoms themselves and nothing is computed twice; where other
    ranks own some, the lists of their ghosts serve, once for each atom however many images it has.
    An atom is stood for by the image that the fewest edges lead to, since the lists of images at the
    rim of the halo are not whole.

    Args:
        reach: edges from an atom to the furthest that acts on its energy.
        tags: [atoms], the same for all images of an atom; None where each ghost stays itself.
    """
    same = np.arange(lists.atoms) if tags is None else _first_of_each(tags)
    row_of = np.full(lists.atoms, -1, dtype=np.int64)  # by image
    row_of[lists.centers] = np.arange(len(lists.centers))
    node_of = np.full(lists.atoms, -1, dtype=np.int64)  # by `same`
    chosen = [lists.centers[: lists.owned_rows]]
    node_of[same[chosen[0]]] = np.arange(lists.owned_rows)
    count, rows = lists.owned_rows, [np.arange(lists.owned_rows)]
    for depth in range(1, reach + 1):
        reached = lists.neighbours[_entries(lists.offsets, rows[-1])]
        reached = reached[node_of[same[reached]] < 0]
        _, first = np.unique(same[reached], return_index=True)
        fresh = reached[first]
        if not len(fresh):
            break
        node_of[same[fresh]] = count + np.arange(len(fresh))
        count += len(fresh)
        chosen.append(fresh)
        if depth < reach:
            rows.append(row_of[fresh])
            if (rows[-1] < 0).any():
                raise ValueError("an atom of the halo has no list of neighbours")
    used = np.concatenate(rows)
    entries = _entries(lists.offsets, used)
    images = lists.neighbours[entries]
    lengths = np.diff(lists.offsets)[used]
    return Selection(
        atoms=np.concatenate(chosen).astype(np.int32),
        owned=lists.owned_rows,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        neighbours=node_of[same[images]].astype(np.int32),
        images=images,
    )


def _first_of_each(tags: Indices) -> NDArray[np.int64]:
    """For each image, the first index that has the same tag: owned atoms come first."""
    _, first, inverse = np.unique(tags, return_index=True, return_inverse=True)
    return first[inverse]


def _entries(offsets: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the entries of some rows are, one row after the other."""
    starts, lengths = offsets[rows], offsets[rows + 1] - offsets[rows]
    before = np.concatenate([[0], np.cumsum(lengths)])
    return np.arange(before[-1]) - np.repeat(before[:-1] - starts, lengths)
