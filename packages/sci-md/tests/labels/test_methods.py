"""Reference calculations: forces and virial are the slopes of the energy; refusals."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.md.verlet import VelocityVerlet
from ase.units import fs

from oarlock.sci_md.labels import LabelCalculator, QuantumChemistry, TightBinding, deformed
from oarlock.sci_md.labels.method import molecular_virial
from oarlock.sci_md.structure import Structure

METHODS = {
    "gfn2": TightBinding(accuracy=0.01),
    "gfn1": TightBinding(method="GFN1-xTB", accuracy=0.01),
    "hf": QuantumChemistry(functional="HF", basis="sto-3g", density_fitting=False),
    "uhf": QuantumChemistry(functional="HF", basis="sto-3g", density_fitting=False, unpaired=1),
    "pbe": QuantumChemistry(functional="PBE", basis="sto-3g", grid=1),
}


def rattled_molecule(formula):
    atoms = molecule(formula)
    atoms.rattle(0.1, seed=1)
    return Structure.from_ase(atoms, name=formula)


def water():
    return rattled_molecule("H2O")


def salt():
    atoms = bulk("NaCl", "rocksalt", 5.6)
    atoms.rattle(0.1, seed=1)
    return Structure.from_ase(atoms, name="salt")


@pytest.mark.parametrize(
    ("method", "structure"),
    [
        ("gfn2", water()),
        ("gfn1", water()),
        ("hf", water()),
        ("uhf", rattled_molecule("OH")),
        ("pbe", rattled_molecule("HF")),
        ("gfn2", salt()),
        ("gfn1", salt()),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_forces_and_virial_are_the_slopes_of_the_energy(method, structure):
    method = METHODS[method]
    labelled = method.label(structure)
    step = 2e-3
    random = np.random.default_rng(0)
    direction = random.normal(size=(len(structure), 3))
    direction /= np.linalg.norm(direction)
    strain = random.normal(size=(3, 3))
    strain = (strain + strain.T) / np.linalg.norm(strain + strain.T)

    def energy(by):
        moved = replace(structure, positions=structure.positions + by * direction)
        return method.label(deformed(moved, by * strain)).energy

    slope = (energy(step) - energy(-step)) / (2 * step)
    expected = -(labelled.forces * direction).sum() - (labelled.virial * strain).sum()
    # Periodic tblite: 0.5 meV remain, whatever the step and the accuracy.
    assert slope == pytest.approx(expected, abs=2e-3 if structure.pbc.any() else 2e-4)
    assert np.abs(labelled.forces.sum(axis=0)).max() < 1e-5


def test_the_virial_of_a_molecule_follows_from_its_forces():
    labelled = METHODS["gfn2"].label(water())
    expected = molecular_virial(labelled, labelled.forces)
    assert np.allclose(labelled.virial, expected, atol=1e-9)


def test_known_energies():
    """H2O at GFN2, and helium near the Hartree–Fock limit of its basis."""
    atoms = molecule("H2O")
    energy = TightBinding().label(Structure.from_ase(atoms)).energy
    assert energy == pytest.approx(-137.97, abs=0.02)
    helium = Structure(
        numbers=[2], positions=[[0.0, 0.0, 0.0]], cell=np.zeros((3, 3)), pbc=[False] * 3
    )
    method = QuantumChemistry(functional="HF", basis="def2-qzvp", density_fitting=False)
    assert method.label(helium).energy / 27.211386 == pytest.approx(-2.8617, abs=1e-4)


def test_dynamics_on_the_reference_conserve_energy():
    atoms = water().to_ase()
    atoms.calc = LabelCalculator(TightBinding())
    atoms.set_distance(0, 1, 1.1, fix=0)
    dynamics = VelocityVerlet(atoms, 0.25 * fs)
    start = atoms.get_total_energy()
    dynamics.run(13)
    assert atoms.get_kinetic_energy() > 0.1
    assert atoms.get_total_energy() == pytest.approx(start, abs=5e-3)


@pytest.mark.parametrize(
    ("method", "change", "message"),
    [
        (TightBinding(charge=1), {}, "9 electrons"),
        (TightBinding(), {"pbc": [True, True, False], "cell": np.eye(3) * 9}, "2 directions"),
        (QuantumChemistry(), {"pbc": [True] * 3, "cell": np.eye(3) * 9}, "does molecules"),
        (QuantumChemistry(functional="nonsense"), {}, "functional='nonsense'"),
        (QuantumChemistry(basis="nonsense"), {}, "nonsense for H2O"),
        (QuantumChemistry(unpaired=1), {}, "H2O"),
        (QuantumChemistry(functional="HF", basis="sto-3g", iterations=1), {}, "did not converge"),
        (TightBinding(iterations=1), {}, "failed"),
    ],
)
def test_what_cannot_be_computed_is_said(method, change, message):
    with pytest.raises(ValueError, match=message):
        method.label(replace(water(), **change))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (TightBinding, {"method": "GFN3"}, "method='GFN3'"),
        (TightBinding, {"accuracy": 0.0}, "accuracy=0.0"),
        (TightBinding, {"unpaired": -1}, "unpaired=-1"),
        (QuantumChemistry, {"grid": 10}, "grid=10"),
        (QuantumChemistry, {"iterations": 0}, "iterations=0"),
        (QuantumChemistry, {"unpaired": -1}, "unpaired=-1"),
    ],
)
def test_bad_settings_are_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options)
