"""Of every potential: what may not change its answer."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from oarlock.sci_md import keys
from oarlock.sci_md.structure import Structure

CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def moved(structure, turn, shift=0.0):
    return replace(
        structure,
        positions=structure.positions @ turn.T + shift,
        cell=structure.cell @ turn.T,
    )


@pytest.mark.on("cluster", "crystal")
def test_a_shift_changes_nothing(case, kind, structure, potential_of, predict):
    potential = potential_of(case)
    before = predict(potential, structure)
    after = predict(potential, moved(structure, np.eye(3), shift=np.array([11.3, -4.7, 2.9])))
    for key in before:
        assert np.allclose(after[key], before[key], **CLOSE), key
    assert np.allclose(before[keys.FORCES].sum(axis=0), 0.0, atol=1e-10)


@pytest.mark.on("cluster", "crystal")
def test_forces_and_virial_turn_with_the_structure(case, kind, structure, potential_of, predict):
    potential = potential_of(case)
    turn = Rotation.from_rotvec([0.4, -1.1, 0.7]).as_matrix()
    before, after = predict(potential, structure), predict(potential, moved(structure, turn))
    assert np.allclose(after[keys.ATOMIC_ENERGIES], before[keys.ATOMIC_ENERGIES], **CLOSE)
    assert np.allclose(after[keys.FORCES], before[keys.FORCES] @ turn.T, **CLOSE)
    assert np.allclose(after[keys.VIRIAL], turn @ before[keys.VIRIAL] @ turn.T, **CLOSE)


def test_a_mirror_image_has_the_same_energy_where_promised(case, potential_of, predict, cluster):
    potential = potential_of(case)
    before, after = predict(potential, cluster), predict(potential, moved(cluster, -np.eye(3)))
    same = np.allclose(after[keys.ENERGY], before[keys.ENERGY], **CLOSE)
    assert same == case.inversion
    if case.inversion:
        assert np.allclose(after[keys.FORCES], -before[keys.FORCES], **CLOSE)


def test_the_order_of_atoms_does_not_matter(case, potential_of, predict, crystal):
    potential = potential_of(case)
    order = np.array([3, 0, 4, 1, 2])
    shuffled = replace(crystal, numbers=crystal.numbers[order], positions=crystal.positions[order])
    before, after = predict(potential, crystal), predict(potential, shuffled)
    assert np.allclose(after[keys.ENERGY], before[keys.ENERGY], **CLOSE)
    assert np.allclose(after[keys.ATOMIC_ENERGIES], before[keys.ATOMIC_ENERGIES][order], **CLOSE)
    assert np.allclose(after[keys.FORCES], before[keys.FORCES][order], **CLOSE)


@pytest.mark.on("crystal", "tight")
def test_a_repeated_box_has_so_many_times_the_energy(case, kind, structure, potential_of, predict):
    """Images and atoms are the same, in boxes narrower than the cut-off too."""
    potential = potential_of(case)
    repeats = (2, 1, 2) if kind == "crystal" else (2, 3, 2)
    copies = int(np.prod(repeats))
    large = Structure.from_ase(structure.to_ase().repeat(repeats))
    once, often = predict(potential, structure), predict(potential, large)
    assert np.allclose(often[keys.ENERGY], copies * once[keys.ENERGY], **CLOSE)
    assert np.allclose(often[keys.FORCES], np.tile(once[keys.FORCES], (copies, 1)), **CLOSE)
    assert np.allclose(often[keys.VIRIAL], copies * once[keys.VIRIAL], **CLOSE)


def test_clusters_out_of_reach_do_not_know_of_each_other(case, potential_of, predict, cluster):
    potential = potential_of(case)
    other = moved(cluster, Rotation.from_rotvec([0.1, 0.9, 0.3]).as_matrix(), shift=50.0)
    both = Structure(
        numbers=np.concatenate([cluster.numbers, other.numbers]),
        positions=np.concatenate([cluster.positions, other.positions]),
        cell=cluster.cell,
        pbc=cluster.pbc,
    )
    one, two, together = (predict(potential, item) for item in (cluster, other, both))
    assert np.allclose(together[keys.ENERGY], one[keys.ENERGY] + two[keys.ENERGY], **CLOSE)
    forces = np.concatenate([one[keys.FORCES], two[keys.FORCES]])
    assert np.allclose(together[keys.FORCES], forces, **CLOSE)


def test_a_batch_is_its_structures(case, potential_of, predict, cluster, crystal, scattered):
    potential = potential_of(case)
    structures = (cluster, scattered(4, box=3.0 * np.eye(3), pbc=False, seed=9), crystal)
    batch = predict(potential, *structures)
    singles = [predict(potential, one) for one in structures]
    for key in batch:
        expected = np.concatenate([single[key] for single in singles])
        assert np.allclose(batch[key], expected, **CLOSE), key


@pytest.mark.parametrize("training", [False, True])
def test_an_atom_alone_has_its_energy_and_no_force(case, training, potential_of, predict):
    def atoms(places):
        return Structure(
            numbers=np.full(len(places), 8),
            positions=np.array(places),
            cell=np.zeros((3, 3)),
            pbc=np.zeros(3, dtype=bool),
        )

    potential = potential_of(case, training=training)
    alone = predict(potential, atoms([[0.0, 0.0, 0.0]]))
    apart = predict(potential, atoms([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]]))
    near = predict(potential, atoms([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
    assert np.isfinite(alone[keys.ENERGY]).all()
    assert alone[keys.FORCES].shape == (1, 3) and alone[keys.VIRIAL].shape == (1, 3, 3)
    assert not alone[keys.FORCES].any() and not alone[keys.VIRIAL].any()
    assert np.allclose(apart[keys.ENERGY], 2.0 * alone[keys.ENERGY], **CLOSE)
    assert not np.allclose(near[keys.ENERGY], 2.0 * alone[keys.ENERGY], atol=1e-4)
