"""The ASE calculator: equal to ASE's own for a potential both have, and ASE's tools run on it."""

import numpy as np
import paddle
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.lj import LennardJones as AseLennardJones
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.io import Trajectory, read
from ase.md.nose_hoover_chain import IsotropicMTKNPT
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.phonons import Phonons
from ase.units import fs

from oarlock.sci_md.calculator import OarlockCalculator
from oarlock.sci_md.neighbours import find_neighbours
from oarlock.sci_md.potentials import SchNetConfig, build, save
from oarlock.sci_md.simulate.velocities import thermal_velocities
from oarlock.sci_md.structure import Structure


def argon(rattle=0.1, **options):
    atoms = bulk("Ar", "fcc", 5.3, **options)
    atoms.rattle(rattle, seed=1)
    return atoms


def ase_calculator():
    return AseLennardJones(epsilon=0.0104, sigma=3.4, rc=6.0, smooth=False)


@pytest.fixture
def calculator(lennard_jones):
    return OarlockCalculator(lennard_jones())


@pytest.fixture
def schnet():
    paddle.seed(3)
    config = SchNetConfig(
        elements=("Ar", "Kr"), cutoff=5.0, features=16, layers=2, radial=8, dtype="float64"
    )
    return build(config)


STRUCTURES = {
    "crystal": lambda: argon(cubic=True) * 2,
    "primitive": lambda: argon(),
    "slab": lambda: fcc111("Ar", (2, 2, 3), a=5.3, vacuum=6.0),
    "cluster": lambda: Atoms("Ar3", [[0, 0, 0], [3.5, 0, 0], [1.0, 3.6, 0.3]]),
    "alone": lambda: Atoms("Ar"),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_equal_to_the_calculator_of_ase(calculator, name):
    ours, theirs = STRUCTURES[name](), STRUCTURES[name]()
    ours.calc, theirs.calc = calculator, ase_calculator()
    assert ours.get_potential_energy() == pytest.approx(theirs.get_potential_energy(), abs=1e-12)
    assert np.allclose(ours.get_forces(), theirs.get_forces(), atol=1e-12)
    assert np.allclose(ours.get_potential_energies(), theirs.get_potential_energies(), atol=1e-12)
    if ours.pbc.any():
        assert np.allclose(ours.get_stress(), theirs.get_stress(), atol=1e-12)
    else:
        with pytest.raises(NotImplementedError):
            ours.get_stress()


def test_dynamics_are_those_of_ase_with_few_searches(calculator):
    ends = []
    for calc in (calculator, ase_calculator()):
        atoms = argon(cubic=True)
        atoms.calc = calc
        thermal_velocities(atoms, 80.0, seed=2)
        VelocityVerlet(atoms, 4 * fs).run(60)
        ends.append(atoms.positions)
    assert np.allclose(*ends, atol=1e-9)
    assert 1 <= calculator.neighbours.searches < 20


def test_boxes_that_change_every_step(calculator):
    volumes = []
    for calc in (calculator, ase_calculator()):
        atoms = argon(cubic=True)
        atoms.calc = calc
        thermal_velocities(atoms, 80.0, seed=2)
        IsotropicMTKNPT(
            atoms, 4 * fs, temperature_K=80.0, pressure_au=0.0, tdamp=400 * fs, pdamp=400 * fs
        ).run(50)
        volumes.append(atoms.get_volume())
    assert volumes[0] == pytest.approx(volumes[1], rel=1e-9)
    assert abs(volumes[0] / 5.3**3 - 1.0) > 1e-3
    assert calculator.neighbours.searches < 10


def test_relaxation_phonons_and_equation_of_state(calculator, tmp_path):
    atoms = argon(rattle=0.05)
    atoms.calc = calculator
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-5, steps=100)
    assert np.abs(atoms.get_stress()).max() < 1e-5
    volume = atoms.get_volume()
    scales = np.linspace(0.98, 1.02, 5)
    energies, volumes = [], []
    for scale in scales:
        scaled = atoms.copy()
        scaled.set_cell(atoms.cell * scale, scale_atoms=True)
        scaled.calc = calculator
        energies.append(scaled.get_potential_energy())
        volumes.append(scaled.get_volume())
    at_rest, _, bulk_modulus = EquationOfState(volumes, energies, eos="birchmurnaghan").fit()
    assert at_rest == pytest.approx(volume, rel=2e-3)
    assert bulk_modulus > 0
    phonons = Phonons(atoms, calculator, supercell=(2, 2, 2), delta=0.02, name=str(tmp_path / "ph"))
    phonons.run()
    phonons.read(acoustic=True)
    frequencies = phonons.band_structure([[0, 0, 0], [0.5, 0.5, 0.5]])
    assert np.abs(frequencies[0]).max() < 1e-5
    assert frequencies[1].min() > 1e-3


def test_committees(lennard_jones, tmp_path):
    strengths = [0.010, 0.011, 0.012]
    members = [lennard_jones(epsilon=strength) for strength in strengths]
    members[1].elements = ("Kr", "Ar")
    members[2].cutoff = 5.5
    atoms = argon(cubic=True)
    atoms.calc = OarlockCalculator(members)
    energies, forces = [], []
    for member in members:
        alone = argon(cubic=True)
        alone.calc = OarlockCalculator(member)
        energies.append(alone.get_potential_energy())
        forces.append(alone.get_forces())
    assert atoms.get_potential_energy() == pytest.approx(np.mean(energies))
    assert np.allclose(atoms.get_forces(), np.mean(forces, axis=0))
    assert atoms.calc.results["energy_deviation"] == pytest.approx(np.std(energies))
    spread = np.linalg.norm(np.std(forces, axis=0), axis=1)
    assert np.allclose(atoms.calc.get_property("forces_deviation", atoms), spread)
    with Trajectory(tmp_path / "committee.traj", "w") as trajectory:
        trajectory.write(atoms)
    assert read(tmp_path / "committee.traj").get_potential_energy() == atoms.get_potential_energy()


def test_potentials_files_and_their_committees(schnet, tmp_path):
    save(schnet, tmp_path / "one.safetensors")
    atoms = argon(cubic=True)
    atoms.symbols[1] = "Kr"
    listed = find_neighbours(Structure.from_ase(atoms), schnet.elements, schnet.cutoff)
    atoms.calc = OarlockCalculator(schnet)
    expected = atoms.calc.members[0].evaluate(listed)
    for source in (schnet, tmp_path / "one.safetensors", [schnet, tmp_path / "one.safetensors"]):
        atoms.calc = OarlockCalculator(source, skin=1.0)
        assert atoms.get_potential_energy() == pytest.approx(expected.energy, abs=1e-10)
        assert np.allclose(atoms.get_forces(), expected.forces, atol=1e-10)
        assert np.allclose(
            atoms.get_stress(voigt=False), -expected.virial / atoms.get_volume(), atol=1e-12
        )


def test_what_cannot_be_computed_is_said(calculator, lennard_jones, tmp_path):
    for atoms, message in (
        (Atoms("Xe"), "holds Xe, but the potential knows Ar"),
        (Atoms("Ar2", [[0, 0, 0], [0, 0, 1e-5]]), "Å apart"),
        (Atoms("Ar", cell=[1.0, 9.0, 0.1], pbc=True), "Å thin along lattice vector 2"),
        (Atoms("Ar", cell=[1.0, 9.0, 0.0], pbc=True), "no independent lattice vector"),
        (Atoms("Ar2", [[0, 0, 0], [0, np.nan, 3]]), r"positions is not finite at \[1, 1\]"),
    ):
        atoms.calc = calculator
        with pytest.raises(ValueError, match=message):
            atoms.get_potential_energy()
    for source, message in (
        ([], "source is empty"),
        (3, "source is a int"),
        ([lennard_jones(), lennard_jones(elements=("Kr",))], "no element in common"),
        (tmp_path / "none.safetensors", "does not exist"),
    ):
        with pytest.raises(ValueError, match=message):
            OarlockCalculator(source)
