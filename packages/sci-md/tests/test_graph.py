"""Graphs of one and of several structures."""

import ase.build
import numpy as np
import pytest

from oarlock.sci_md.graph import to_graph
from oarlock.sci_md.neighbours import find_neighbours
from oarlock.sci_md.structure import Structure


def lists(*repeats):
    found = []
    for repeat in repeats:
        atoms = ase.build.bulk("Cu", cubic=True) * repeat
        atoms.rattle(0.1, seed=1)
        found.append(find_neighbours(Structure.from_ase(atoms), ("Cu",), 4.0))
    return found


@pytest.mark.parametrize("repeats", [((2, 2, 2),), ((1, 1, 1), (2, 1, 1), (1, 1, 1))])
def test_pairs_hold_each_edge_once(repeats):
    graph = to_graph(lists(*repeats), "float64")
    pairs = graph.pairs
    assert pairs.both == len(pairs.first) == graph.edges // 2
    at = pairs.edges.numpy()
    centers, neighbours = graph.centers.numpy(), graph.neighbours.numpy()
    np.testing.assert_array_equal(pairs.first.numpy(), centers[at])
    np.testing.assert_array_equal(pairs.second.numpy(), neighbours[at])
    vectors = graph.vectors.numpy()
    there = np.column_stack([centers[at], neighbours[at], vectors[at]])
    back = np.column_stack([neighbours[at], centers[at], -vectors[at]])
    rows = np.concatenate([there, back])
    wanted = np.column_stack([centers, neighbours, vectors])
    np.testing.assert_array_equal(
        rows[np.lexsort(rows.T[::-1])], wanted[np.lexsort(wanted.T[::-1])]
    )
    structures = graph.structures.numpy()
    np.testing.assert_array_equal(graph.edge_structures.numpy(), structures[centers])


def test_without_known_ways_back_pairs_are_the_edges():
    from dataclasses import replace

    (one,) = lists((2, 1, 1))
    graph = to_graph([replace(one, reverse=None)])
    assert graph.paired is None and graph.pairs.both == 0 and graph.pairs.edges is None
    np.testing.assert_array_equal(graph.pairs.first.numpy(), graph.centers.numpy())


def test_no_structure_is_refused():
    with pytest.raises(ValueError, match="at least one structure"):
        to_graph([])
