"""The list that is kept: it never misses a pair, and is not found more often than needed."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st

from oarlock.sci_md.evaluate.eager import within
from oarlock.sci_md.neighbours import find_neighbours
from oarlock.sci_md.simulate.verlet_list import VerletList
from oarlock.sci_md.structure import Structure

CUTOFF = 3.0


def pairs(listed):
    kept = within(listed, CUTOFF)
    edges = np.column_stack([kept.centers, kept.neighbours, np.round(kept.vectors(), 7)])
    return edges[np.lexsort(edges.T)]


@pytest.fixture(scope="module")
def copper():
    return Structure.from_ase(bulk("Cu", cubic=True) * 2)


@given(
    seed=st.integers(0, 1000),
    step=st.floats(0.0, 0.15),
    strain=st.floats(0.0, 0.02),
    skin=st.floats(0.0, 1.0),
)
@settings(max_examples=25, deadline=None)
def test_no_pair_is_missed(copper, seed, step, strain, skin):
    random = np.random.default_rng(seed)
    kept = VerletList(("Cu",), CUTOFF, skin=skin)
    structure = copper
    for _ in range(4):
        shape = np.eye(3) + random.uniform(-strain, strain, (3, 3))
        structure = replace(
            structure,
            positions=structure.positions @ shape + random.normal(0, step, (len(copper), 3)),
            cell=structure.cell @ shape,
        )
        fresh = find_neighbours(structure, ("Cu",), CUTOFF)
        assert np.allclose(pairs(kept.update(structure)), pairs(fresh), atol=1e-6)


def test_it_is_kept_while_atoms_move_little(copper):
    kept = VerletList(("Cu",), CUTOFF, skin=0.5)
    kept.update(copper)
    shifted = np.array(copper.positions)
    shifted[3] += [0.24, 0.0, 0.0]
    kept.update(replace(copper, positions=shifted))
    kept.update(replace(copper, cell=copper.cell * 1.01, positions=copper.positions * 1.01))
    assert kept.searches == 1
    shifted[3] += [0.02, 0.0, 0.0]
    kept.update(replace(copper, positions=shifted))
    assert kept.searches == 2
    kept.update(replace(copper, pbc=[True, True, False], positions=shifted))
    assert kept.searches == 3


def test_without_a_box(copper):
    kept = VerletList(("Cu",), CUTOFF, skin=0.5)
    free = replace(copper, pbc=[False] * 3)
    kept.update(free)
    moved = replace(free, positions=free.positions + 0.1)
    fresh = find_neighbours(moved, ("Cu",), CUTOFF)
    assert np.allclose(pairs(kept.update(moved)), pairs(fresh))
    assert kept.searches == 1


def test_thin_boxes_and_bad_skins_are_refused(copper):
    thin = np.array(copper.cell)
    thin[1] = thin[0] + [0.0, 0.3, 0.0]
    with pytest.raises(ValueError, match=r"0\.3 Å thin along lattice vector"):
        VerletList(("Cu",), CUTOFF).update(replace(copper, cell=thin))
    for skin in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="skin="):
            VerletList(("Cu",), CUTOFF, skin=skin)
