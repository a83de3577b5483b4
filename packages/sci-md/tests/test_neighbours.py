"""Neighbourhoods of structures, and lists that are searched anew only when they may have changed."""

from dataclasses import replace

import ase.build
import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from oarlock.sci_md.evaluate.eager import within
from oarlock.sci_md.neighbours import VerletList, find_neighbours
from oarlock.sci_md.structure import Structure


def copper(repeat=2, rattle=0.1):
    atoms = ase.build.bulk("Cu", cubic=True) * ((repeat,) * 3)
    atoms.rattle(rattle, seed=1)
    return Structure.from_ase(atoms)


def edges(neighbourhood):
    """Centre, neighbour and length of each edge, sorted."""
    lengths = np.linalg.norm(neighbourhood.vectors(), axis=1).round(9)
    rows = np.column_stack([neighbourhood.centers, neighbourhood.neighbours, lengths])
    return rows[np.lexsort(rows.T[::-1])]


@pytest.mark.parametrize("repeat", [1, 3])
@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, False), (False,) * 3])
def test_neighbours_are_those_of_ase(repeat, pbc):
    structure = replace(copper(repeat), pbc=np.array(pbc))
    found = find_neighbours(structure, ("Cu",), 4.3)
    i, j, d = neighbor_list("ijd", structure.to_ase(), 4.3)
    wanted = np.column_stack([i, j, d.round(9)])
    np.testing.assert_array_equal(edges(found), wanted[np.lexsort(wanted.T[::-1])])
    np.testing.assert_array_equal(found.vectors()[found.reverse], -found.vectors())


def test_edges_beyond_the_cut_off_are_left_out_from_both_ends():
    structure = copper()
    long = find_neighbours(structure, ("Cu",), 5.2)
    short, wanted = within(long, 4.1), find_neighbours(structure, ("Cu",), 4.1)
    np.testing.assert_array_equal(edges(short), edges(wanted))
    np.testing.assert_array_equal(short.vectors()[short.reverse], -short.vectors())


def test_verlet_list_is_right_at_every_step_and_rarely_searched():
    structure, rng = copper(), np.random.default_rng(0)
    lists = VerletList(("Cu",), 4.0, skin=0.6)
    for _ in range(40):
        step = rng.normal(0, 0.02, structure.positions.shape)
        structure = replace(structure, positions=structure.positions + step)
        found = within(lists.update(structure), 4.0)
        np.testing.assert_array_equal(edges(found), edges(find_neighbours(structure, ("Cu",), 4.0)))
    assert 1 < lists.searches < 14


@pytest.mark.parametrize(
    "change",
    [
        lambda s: replace(s, positions=s.positions + np.eye(1, 3) * (np.arange(32) == 3)[:, None] * 0.31),
        lambda s: replace(s, cell=s.cell * 1.001),
        lambda s: replace(s, pbc=np.array([True, True, False])),
        lambda s: replace(s, numbers=np.where(np.arange(32) == 5, 47, s.numbers)),
        lambda s: replace(s, numbers=s.numbers[1:], positions=s.positions[1:]),
    ],
)
def test_verlet_list_notices(change):
    lists = VerletList(("Cu", "Ag"), 4.0, skin=0.6)
    structure = copper()
    lists.update(structure)
    lists.update(structure)
    assert lists.searches == 1
    changed = change(structure)
    found = lists.update(changed)
    assert lists.searches == 2
    np.testing.assert_array_equal(
        edges(within(found, 4.0)), edges(find_neighbours(changed, ("Cu", "Ag"), 4.0))
    )
    np.testing.assert_array_equal(found.species, (changed.numbers == 47).astype(int))


def test_bad_arguments_are_refused():
    structure = copper()
    with pytest.raises(ValueError, match="cutoff=0 has to be a positive length"):
        find_neighbours(structure, ("Cu",), 0)
    with pytest.raises(ValueError, match="holds Cu, but the potential knows Ag"):
        find_neighbours(structure, ("Ag",), 3.0)
    with pytest.raises(ValueError, match="skin=-1 has to be a length"):
        VerletList(("Cu",), 3.0, skin=-1)
    twice = replace(structure, positions=structure.positions * 0, name="a heap")
    with pytest.raises(ValueError, match=r"atoms \d+ and \d+ of a heap are 0 Å apart"):
        find_neighbours(twice, ("Cu",), 3.0)
