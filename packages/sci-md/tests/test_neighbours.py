"""Neighbourhoods of structures, and lists that are searched anew only when they may have changed."""

from dataclasses import replace

import ase.build
import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from oarlock.sci_md.evaluate.eager import within
from oarlock.sci_md.neighbours import find_neighbours
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


def test_bad_arguments_are_refused():
    structure = copper()
    with pytest.raises(ValueError, match="cutoff=0 has to be a positive length"):
        find_neighbours(structure, ("Cu",), 0)
    with pytest.raises(ValueError, match="holds Cu, but the potential knows Ag"):
        find_neighbours(structure, ("Ag",), 3.0)
    twice = replace(structure, positions=structure.positions * 0, name="a heap")
    with pytest.raises(ValueError, match=r"atoms \d+ and \d+ of a heap are 0 Å apart"):
        find_neighbours(twice, ("Cu",), 3.0)
