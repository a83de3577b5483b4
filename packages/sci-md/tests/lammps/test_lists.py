"""The atoms that a potential gets, out of LAMMPS' atoms and ghosts."""

import numpy as np
from oarlock.sci_md.lammps.lists import Lists, select


def lists(rows, *, atoms, owned, owned_rows=None):
    """From {centre: [neighbours]}."""
    centers = np.array(list(rows), dtype=np.int32)
    offsets = np.cumsum([0, *[len(found) for found in rows.values()]])
    neighbours = np.array([j for found in rows.values() for j in found], dtype=np.int32)
    return Lists(
        centers=centers,
        offsets=offsets.astype(np.int64),
        neighbours=neighbours,
        atoms=atoms,
        owned=owned,
        owned_rows=len(centers) if owned_rows is None else owned_rows,
    )


def edges(selection):
    """Pairs of LAMMPS' indices: the atom of each list, and what stands for its neighbour."""
    centers = np.repeat(np.arange(len(selection.offsets) - 1), np.diff(selection.offsets))
    return list(zip(selection.atoms[centers], selection.atoms[selection.neighbours], strict=True))


def test_own_images_are_the_atoms_themselves():
    # A ring of three: 0 1 2, with the images 3 (of 2) and 4 (of 0).
    given = lists({0: [3, 1], 1: [0, 2], 2: [1, 4]}, atoms=5, owned=3)
    chosen = select(given, 3, np.array([10, 11, 12, 12, 10], dtype=np.int32))
    assert chosen.atoms.tolist() == [0, 1, 2]
    assert edges(chosen) == [(0, 2), (0, 1), (1, 0), (1, 2), (2, 1), (2, 0)]
    assert chosen.images.tolist() == [3, 1, 0, 2, 1, 4]
    assert chosen.owned == 3


def test_ghosts_of_other_ranks_have_lists_as_far_as_they_matter():
    # A chain 0 – 1 – 2 – 3 – 4, of which 0 is owned.
    rows = {0: [1], 1: [0, 2], 2: [1, 3], 3: [2, 4], 4: [3]}
    given = lists(rows, atoms=5, owned=1, owned_rows=1)
    tags = np.arange(5, dtype=np.int32)
    for reach, expected in ((1, [0, 1]), (2, [0, 1, 2]), (3, [0, 1, 2, 3])):
        chosen = select(given, reach, tags)
        assert chosen.atoms.tolist() == expected
        assert len(chosen.offsets) - 1 == reach
        assert chosen.owned == 1


def test_of_two_images_the_nearer_stands_for_both():
    # 1 and 2 are images of one atom of another rank; 2 lies at the rim and its list is not whole.
    rows = {0: [1], 1: [0, 3], 3: [1, 2], 2: [3]}
    given = lists(rows, atoms=4, owned=1, owned_rows=1)
    chosen = select(given, 3, np.array([0, 1, 1, 2], dtype=np.int32))
    assert chosen.atoms.tolist() == [0, 1, 3]
    assert edges(chosen) == [(0, 1), (1, 0), (1, 3), (3, 1), (3, 1)]
    assert chosen.images.tolist() == [1, 0, 3, 1, 2]


def test_lists_in_another_order_and_of_some_atoms_only():
    given = lists({2: [4], 0: [2, 3]}, atoms=5, owned=3)
    assert not given.plain
    chosen = select(given, 1)
    assert chosen.atoms.tolist() == [2, 0, 3, 4]
    assert edges(chosen) == [(2, 4), (0, 2), (0, 3)]


def test_plain_lists():
    assert lists({0: [1], 1: [2]}, atoms=3, owned=2).plain
    assert not lists({0: [1], 1: [2], 2: [1]}, atoms=3, owned=2, owned_rows=2).plain
    assert not lists({0: [1]}, atoms=3, owned=2).plain
