"""The native engine computes what the potential computes."""

import dataclasses

import numpy as np
import paddle
import pytest
from ase.build import bulk
from oarlock.native import cuda
from oarlock.native import deep_potential as native
from oarlock.native import deep_potential_cuda

from oarlock.sci_md.evaluate import AtomicVirials, EagerEvaluator, NativeDeepPotential
from oarlock.sci_md.neighbours import find_neighbours, moved
from oarlock.sci_md.potentials import DeepPotential, DeepPotentialConfig, build
from oarlock.sci_md.structure import Structure


def crystal() -> Structure:
    atoms = bulk("Cu", cubic=True).repeat((2, 2, 2))
    atoms.rattle(0.1, seed=1)
    atoms.numbers[::3] = 8
    return Structure.from_ase(atoms)


def potential_of(**changes) -> DeepPotential:
    paddle.seed(4)
    fields = {
        "cutoff": 4.0,
        "smooth": 1.0,
        "embedding": (5, 10, 20),
        "axis": 4,
        "fitting": (12, 12),
    }
    config = DeepPotentialConfig(elements=("Cu", "O"), sel=(40, 30), **{**fields, **changes})
    potential = build(config)
    potential.fit_statistics([find_neighbours(crystal(), config.elements, config.cutoff)])
    potential.set_reference([-1.0, -2.0], 0.5)
    return potential


@pytest.mark.parametrize("one_side", [True, False])
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 2e-6)])
@pytest.mark.parametrize("compressed", [False, True])
def test_equals_the_potential(one_side, dtype, tolerance, compressed):
    potential = potential_of(one_side=one_side, dtype=dtype)
    engine = NativeDeepPotential(potential, compressed=compressed)
    # Lists with a skin: what is beyond the cut-off is left out.
    atoms = find_neighbours(crystal(), potential.elements, potential.cutoff + 0.5)
    expected, found = EagerEvaluator(potential).evaluate(atoms), engine.evaluate(atoms)
    if compressed and dtype == "float64":
        tolerance = 1e-8
        assert max(table.slope_error for table in engine.tables) < 1e-9
    np.testing.assert_allclose(found.atomic_energies, expected.atomic_energies, atol=tolerance)
    np.testing.assert_allclose(found.forces, expected.forces, atol=tolerance)
    np.testing.assert_allclose(found.virial, expected.virial, atol=20 * tolerance)


def test_ghosts_get_forces_and_no_energy():
    potential = potential_of(dtype="float64")
    atoms = find_neighbours(crystal(), potential.elements, potential.cutoff)
    part = type(atoms)(
        positions=atoms.positions,
        species=atoms.species,
        offsets=atoms.offsets[:11],
        neighbours=atoms.neighbours[: atoms.offsets[10]],
        shifts=atoms.shifts[: atoms.offsets[10]],
        owned=10,
    )
    found = NativeDeepPotential(potential).evaluate(part)
    whole = EagerEvaluator(potential).evaluate(atoms)
    np.testing.assert_allclose(found.atomic_energies, whole.atomic_energies[:10], atol=1e-12)
    np.testing.assert_allclose(found.forces.sum(axis=0), 0.0, atol=1e-12)
    assert np.abs(found.forces[10:]).max() > 1e-6


def test_the_repulsion_of_nuclei_is_added():
    potential = potential_of(dtype="float64", zbl=True)
    squeezed = crystal().to_ase()
    squeezed.set_cell(squeezed.cell.array * 0.8, scale_atoms=True)
    atoms = find_neighbours(Structure.from_ase(squeezed), potential.elements, potential.cutoff)
    expected = EagerEvaluator(potential).evaluate(atoms)
    found = NativeDeepPotential(potential).evaluate(atoms)
    without = NativeDeepPotential(potential_of(dtype="float64")).evaluate(atoms)
    assert expected.energy > without.energy + 0.1
    np.testing.assert_allclose(found.atomic_energies, expected.atomic_energies, atol=1e-11)
    np.testing.assert_allclose(found.forces, expected.forces, atol=1e-11)
    np.testing.assert_allclose(found.virial, expected.virial, atol=1e-10)


def test_virials_of_atoms_sum_to_the_virial():
    potential = potential_of(dtype="float64")
    atoms = find_neighbours(crystal(), potential.elements, potential.cutoff)
    engine = NativeDeepPotential(potential)
    assert isinstance(engine, AtomicVirials)
    virial = engine.evaluate(atoms).virial
    np.testing.assert_allclose(engine.atomic_virials(atoms).sum(axis=0), virial, atol=1e-12)


def test_refuses():
    potential = potential_of()
    pair = Structure(
        numbers=[29, 8], positions=[[0, 0, 0], [0.5, 0, 0]], cell=np.zeros((3, 3)), pbc=[False] * 3
    )
    atoms = find_neighbours(pair, potential.elements, potential.cutoff)
    NativeDeepPotential(potential).evaluate(atoms)
    with pytest.raises(ValueError, match="closer than the tables reach"):
        NativeDeepPotential(potential, compressed=True).evaluate(atoms)
    with pytest.raises(ValueError, match="closest"):
        NativeDeepPotential(potential, compressed=True, closest=7.0)


class Recorded:
    """In place of the engine of a GPU: the CPU's, and how often lists came."""

    def __init__(self, model, *, precision, tables):
        self._engine = native.DeepPotential(model, precision=precision, tables=tables)
        self.lists = 0

    def set_lists(self, *lists, **options):
        self.lists += 1
        self._given = lists, options

    def evaluate(self, positions, *, virials):
        lists, options = self._given
        return self._engine.evaluate(positions, *lists, **options, virials=virials)


def test_lists_go_to_a_gpu_when_they_change(monkeypatch):
    monkeypatch.setattr(cuda, "why_not", lambda: None)
    monkeypatch.setattr(deep_potential_cuda, "DeepPotential", Recorded)
    potential = potential_of(dtype="float64")
    known = NativeDeepPotential(potential, compressed=True)
    found = NativeDeepPotential(potential, compressed=True, device="gpu")
    atoms = find_neighbours(crystal(), potential.elements, potential.cutoff)
    fewer = dataclasses.replace(atoms, owned=5)
    others = dataclasses.replace(atoms, species=atoms.species[::-1].copy())
    pushed = moved(atoms, atoms.positions + 0.01)
    for number, given in ((1, atoms), (1, pushed), (2, fewer), (3, others), (4, atoms)):
        expected = known.evaluate(given)
        np.testing.assert_array_equal(found.evaluate(given).forces, expected.forces)
        assert found._native._engine.lists == number


def test_a_gpu_is_refused_with_the_reason(monkeypatch):
    potential = potential_of(dtype="float64")
    monkeypatch.setattr(cuda, "why_not", lambda: "there is none")
    with pytest.raises(ValueError, match="device='gpu': there is none"):
        NativeDeepPotential(potential, compressed=True, device="gpu")
    with pytest.raises(ValueError, match="pass compressed=True"):
        NativeDeepPotential(potential, device="gpu")
    with pytest.raises(ValueError, match="device='tpu'"):
        NativeDeepPotential(potential, device="tpu")
