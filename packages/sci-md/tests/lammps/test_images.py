"""Edges to images: lattice vectors, and the edges that lead back."""

import numpy as np
import pytest
from oarlock.sci_md.lammps.images import Images
from oarlock.sci_md.lammps.lists import Lists, Selection, select


def ring(box=10.0):
    """Three atoms in a row that repeats, with an image at each end."""
    positions = np.array(
        [[1.0, 0, 0], [4.0, 0, 0], [8.0, 0, 0], [8.0 - box, 0, 0], [1.0 + box, 0, 0]]
    )
    lists = Lists(
        centers=np.arange(3, dtype=np.int32),
        offsets=np.array([0, 2, 4, 6]),
        neighbours=np.array([3, 1, 0, 2, 1, 4], dtype=np.int32),
        atoms=5,
        owned=3,
        owned_rows=3,
    )
    return positions, select(lists, 2, np.array([7, 8, 9, 9, 7], dtype=np.int32))


def test_shifts_and_edges_back():
    positions, chosen = ring()
    images = Images(chosen, positions)
    expected = [-10, 0, 0, 0, 0, 10]
    assert images.shifts(positions)[:, 0].tolist() == expected
    assert images.reverse.tolist() == [5, 2, 1, 4, 3, 0]


def test_shifts_follow_the_box_and_stay_where_it_stays():
    positions, chosen = ring()
    images = Images(chosen, positions)
    first = images.shifts(positions)
    assert images.shifts(positions + 0.25) is first
    wider, _ = ring(10.5)
    assert images.shifts(wider)[:, 0].tolist() == [-10.5, 0, 0, 0, 0, 10.5]


def test_without_all_lists_no_edge_leads_back():
    positions, chosen = ring()
    cut = Selection(
        atoms=chosen.atoms,
        owned=2,
        offsets=chosen.offsets[:3],
        neighbours=chosen.neighbours[:4],
        images=chosen.images[:4],
    )
    assert Images(cut, positions).reverse is None


@pytest.mark.parametrize("edge", [3.3, 5.3])
def test_both_ways_are_equally_long(edge):
    """A small box, in which atoms see several images of others and of themselves."""
    generator = np.random.default_rng(0)
    inside = generator.uniform(0, edge, (3, 3))
    cells = np.stack(np.meshgrid(*[[0, -1, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    # LAMMPS makes ghosts in several steps: equal images differ in the last digits.
    positions = np.concatenate([inside + edge * cell + 1e-14 * i for i, cell in enumerate(cells)])
    lengths = np.linalg.norm(positions[:, None] - inside[None], axis=2)
    found = [np.flatnonzero((lengths[:, i] < 3.9) & (lengths[:, i] > 0.1)) for i in range(3)]
    lists = Lists(
        centers=np.arange(3, dtype=np.int32),
        offsets=np.cumsum([0, *map(len, found)]),
        neighbours=np.concatenate(found).astype(np.int32),
        atoms=len(positions),
        owned=3,
        owned_rows=3,
    )
    chosen = select(lists, 2, np.tile(np.arange(3, dtype=np.int32), 27))
    images = Images(chosen, positions)
    centers = np.repeat(np.arange(3), np.diff(chosen.offsets))
    vectors = inside[chosen.neighbours] - inside[centers] + images.shifts(positions)
    assert len(vectors) >= 6
    assert (chosen.neighbours[images.reverse] == centers).all()
    assert (images.reverse[images.reverse] == np.arange(len(vectors))).all()
    np.testing.assert_array_equal(vectors[images.reverse], -vectors)
