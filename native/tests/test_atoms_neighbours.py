"""Lists of neighbours: boxes of every shape, against every pair of atoms, ASE and vesin."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from oarlock import native
from oarlock.native import atoms
from oarlock.native.reference.atoms import neighbours as reference

PATHS = native.info().paths


def rows(found):
    centers = np.repeat(np.arange(len(found.offsets) - 1), np.diff(found.offsets))
    table = np.column_stack([centers, found.neighbours, found.shifts])
    return table[np.lexsort(table.T[::-1])]


def box(kind, size):
    skewed = [[1, 0, 0], [0.6, 0.9, 0], [-0.4, 0.7, 0.8]]
    left_handed = [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    flat = [[1, 0, 0], [0.98, 0.2, 0], [0, 0, 1.5]]
    return size * np.array(
        {"cube": np.eye(3), "skewed": skewed, "left": left_handed, "flat": flat}[kind]
    )


@settings(max_examples=50, deadline=None)
@given(
    kind=st.sampled_from(["cube", "skewed", "left", "flat"]),
    size=st.floats(0.8, 9),
    periodic=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    count=st.integers(0, 25),
    spread=st.sampled_from([0.0, 1.0, 3.0]),
    cutoff=st.floats(0.5, 4),
    path=st.sampled_from(PATHS),
    seed=st.integers(0, 10**6),
)
def test_neighbours_are_those_of_all_pairs(kind, size, periodic, count, spread, cutoff, path, seed):
    cell = box(kind, size)
    fractions = np.random.default_rng(seed).random((count, 3)) * max(spread, 1e-3) - 0.3 * spread
    positions = fractions @ cell
    if cutoff / size > 2:  # too many images for the oracle
        cutoff = 2 * size
    wanted = reference.edges(positions, cell, periodic, cutoff=cutoff * (1 + 1e-9))
    # Pairs that are the cut-off apart but for rounding are on either side of it.
    assume(
        len(reference.edges(positions, cell, periodic, cutoff=cutoff * (1 - 1e-9))) == len(wanted)
    )
    with native.forced_path(path):
        found = atoms.neighbour_list(positions, cell, periodic, cutoff=cutoff, threads=1)
        half = atoms.neighbour_list(positions, cell, periodic, cutoff=cutoff, half=True, threads=2)
    np.testing.assert_array_equal(rows(found), wanted)
    assert found.offsets[0] == 0 and found.offsets[-1] == len(found.neighbours)
    check_reverse(found)
    once = rows(half)
    back = once[:, [1, 0, 2, 3, 4]] * [1, 1, -1, -1, -1]
    both = np.concatenate([once, back])
    np.testing.assert_array_equal(both[np.lexsort(both.T[::-1])], wanted)


def check_reverse(found):
    centers = np.repeat(np.arange(len(found.offsets) - 1), np.diff(found.offsets))
    back = found.reverse
    np.testing.assert_array_equal(back[back], np.arange(len(back)))
    np.testing.assert_array_equal(centers[back], found.neighbours)
    np.testing.assert_array_equal(found.shifts[back], -found.shifts)


@pytest.mark.parametrize("periodic", [(True, True, True), (True, False, True), (False,) * 3])
def test_any_number_of_threads_and_path_gives_the_same_list(periodic):
    positions = np.random.default_rng(0).random((500, 3)) * 14
    lists = []
    for path in PATHS:
        for threads in (1, 2, 5):
            with native.forced_path(path):
                lists.append(
                    atoms.neighbour_list(
                        positions, 14 * np.eye(3), periodic, cutoff=3.7, threads=threads
                    )
                )
    for one in lists[1:]:
        for field in ("offsets", "neighbours", "shifts", "reverse"):
            assert getattr(one, field).tobytes() == getattr(lists[0], field).tobytes()


@pytest.mark.parametrize("periodic", [(True, True, True), (False, True, False), (False,) * 3])
def test_neighbours_are_those_of_ase_and_vesin(periodic):
    neighborlist = pytest.importorskip("ase.neighborlist")
    vesin = pytest.importorskip("vesin")
    cell = box("skewed", 12.0)
    positions = np.random.default_rng(1).random((300, 3)) @ cell * 1.3
    ours = rows(atoms.neighbour_list(positions, cell, periodic, cutoff=4.0))
    i, j, shifts = neighborlist.primitive_neighbor_list("ijS", periodic, cell, positions, 4.0)
    wanted = np.column_stack([i, j, shifts])
    np.testing.assert_array_equal(ours, wanted[np.lexsort(wanted.T[::-1])])
    search = vesin.NeighborList(cutoff=4.0, full_list=True)
    i, j, shifts = search.compute(positions, cell, list(periodic), "ijS")
    wanted = np.column_stack([i, j, shifts]).astype(int)
    np.testing.assert_array_equal(ours, wanted[np.lexsort(wanted.T[::-1])])


def test_atoms_far_apart_and_far_outside():
    positions = np.array([[0, 0, 0], [1e7, 0, 0], [1e7 + 1, 0, 0], [-1e6, 3e6, 5e6]], dtype=float)
    found = atoms.neighbour_list(positions, np.zeros((3, 3)), (False,) * 3, cutoff=2.0)
    assert rows(found)[:, :2].tolist() == [[1, 2], [2, 1]]
    moved = np.array([[0.1, 0, 0], [5000.3, -7000.0, 0]])
    found = atoms.neighbour_list(moved, 5 * np.eye(3), (True,) * 3, cutoff=1.0)
    assert rows(found).tolist() == [[0, 1, -1000, 1400, 0], [1, 0, 1000, -1400, 0]]


def test_neighbours_of_paddle_s_tensors():
    paddle = pytest.importorskip("paddle")
    positions = np.random.default_rng(2).random((20, 3)) * 4
    wanted = atoms.neighbour_list(positions, 4 * np.eye(3), (True,) * 3, cutoff=2.5)
    given_tensor = paddle.to_tensor(positions)
    found = atoms.neighbour_list(given_tensor, 4 * np.eye(3), (True,) * 3, cutoff=2.5)
    np.testing.assert_array_equal(rows(found), rows(wanted))


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"positions": np.zeros((3, 2))},
            r"positions has shape \[3, 2\], but must have \[any, 3\]",
        ),
        ({"positions": np.zeros((3, 3), np.float32)}, "positions"),
        ({"positions": np.array([[0, np.nan, 0]])}, "positions is not finite at atom 0"),
        ({"positions": np.array([[1e12, 0, 0]])}, "wrap it into the box"),
        ({"cell": np.ones((3, 3))}, "cell has no independent lattice vector"),
        ({"cell": np.eye(3, dtype=np.float32)}, "cell"),
        ({"cell": np.full((3, 3), np.nan)}, "cell has no independent lattice vector"),
        ({"cell": np.full((3, 3), np.inf)}, "cell has no independent lattice vector"),
        ({"cell": np.zeros((3, 3))}, "cell has no independent lattice vector"),
        (
            {"cell": np.diag([1.0, 0.0, 1.0]), "periodic": (False, True, False)},
            "cell has no independent lattice vector",
        ),
        ({"periodic": (True, True)}, "periodic must be three times True or False"),
        ({"cutoff": 0.0}, "cutoff must be a positive length"),
        ({"cutoff": float("nan")}, "cutoff must be a positive length"),
        ({"cutoff": 1e8}, "cutoff reaches over"),
        ({"half": 1}, "half must be True or False"),
        ({"threads": 0}, "threads"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    arguments = {"positions": np.zeros((1, 3)), "cell": np.eye(3), "periodic": (True,) * 3}
    arguments |= {"cutoff": 1.5} | change
    positions, cell, periodic = (arguments.pop(name) for name in ("positions", "cell", "periodic"))
    with pytest.raises(ValueError, match=message):
        atoms.neighbour_list(positions, cell, periodic, **arguments)


@pytest.mark.parametrize("shifted", [False, True])
def test_edge_vectors(shifted):
    rng = np.random.default_rng(4)
    positions = rng.random((700, 3)) * 16
    cell = box("skewed", 16.0)
    found = atoms.neighbour_list(positions, cell, (shifted,) * 3, cutoff=3.0)
    shifts = found.shifts @ cell if shifted else None
    centers = np.repeat(np.arange(700), np.diff(found.offsets))
    wanted = positions[found.neighbours] - positions[centers]
    wanted = wanted + shifts if shifted else wanted
    for threads in (1, 3):
        vectors, squares = atoms.edge_vectors(
            positions, found.offsets, found.neighbours, shifts, threads=threads
        )
        np.testing.assert_array_equal(vectors, wanted)
        np.testing.assert_array_equal(vectors[found.reverse], -wanted)
        np.testing.assert_allclose(squares, np.square(wanted).sum(1), rtol=1e-15)
        np.testing.assert_array_equal(squares[found.reverse], squares)
    # Rows of the first atoms only, as of a program with ghosts.
    rows = found.offsets[:301]
    some, _ = atoms.edge_vectors(positions, rows, found.neighbours[: rows[-1]])
    assert some.shape == (rows[-1], 3)


@pytest.mark.parametrize(
    "offsets, neighbours, message",
    [
        ([0, 1, 1], [2], r"neighbours holds 2 at 0, but must be in \[0, 2\)"),
        ([0, 1, 1], [-1], "neighbours holds -1 at 0"),
        ([0, 2, 1], [1], "offsets falls from 2 to 1"),
        ([0, 1, 2], [1], "offsets must go from 0 to the 1 of neighbours"),
        ([0, 1, 1, 1], [1], "for 2 atoms at most"),
    ],
)
def test_edge_vectors_of_wrong_lists_are_refused(offsets, neighbours, message):
    with pytest.raises(ValueError, match=message):
        atoms.edge_vectors(
            np.zeros((2, 3)), np.array(offsets), np.array(neighbours, dtype=np.int32)
        )
