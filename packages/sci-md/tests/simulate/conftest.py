"""Potentials with known answers: Lennard-Jones as an evaluator, and atoms on springs."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from oarlock.sci_md.evaluate import Evaluation
from oarlock.sci_md.evaluate.eager import check_finite, within


class LennardJones:
    """Shifted to 0 at the cut-off."""

    reach = 1

    def __init__(self, elements=("Ar",), epsilon=0.0104, sigma=3.4, cutoff=6.0):
        self.elements = elements
        self.epsilon, self.sigma, self.cutoff = epsilon, sigma, cutoff

    def evaluate(self, atoms):
        atoms = within(atoms, self.cutoff)
        vectors = atoms.vectors()
        squares = np.square(vectors).sum(axis=1)
        sixth = (self.sigma**2 / squares) ** 3
        edge = (self.sigma / self.cutoff) ** 6
        shift = 4.0 * self.epsilon * (edge**2 - edge)
        energies = 0.5 * (4.0 * self.epsilon * (sixth**2 - sixth) - shift)
        slopes = (-12.0 * self.epsilon * (2.0 * sixth**2 - sixth) / squares)[:, None] * vectors
        forces = np.zeros_like(atoms.positions)
        np.add.at(forces, atoms.centers, slopes)
        np.subtract.at(forces, atoms.neighbours, slopes)
        of_atoms = np.bincount(atoms.centers, energies, minlength=atoms.rows)[: atoms.owned]
        evaluation = Evaluation(
            energy=float(of_atoms.sum()),
            atomic_energies=of_atoms,
            forces=forces,
            virial=-slopes.T @ vectors,
        )
        check_finite(evaluation)
        return evaluation


@pytest.fixture(scope="session")
def lennard_jones():
    return LennardJones


class Springs(Calculator):
    """Atoms held near lattice sites that move with their centre of mass and with the box.

    E = Σ (k/2 d² + q/4 d⁴) + B/2 V₀ (V/V₀ − 1)², d the displacements less their mean: translations
    cost nothing, as in matter, and a step costs little.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]
    stiffness, quartic, bulk_modulus = 0.65, 40.0, 0.02  # eV/Å², eV/Å⁴, eV/Å³

    def __init__(self, atoms):
        super().__init__()
        self.sites = atoms.get_scaled_positions()
        self.volume = atoms.get_volume()

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        shift = self.atoms.positions - self.sites @ self.atoms.cell.array
        shift = shift - shift.mean(axis=0)
        squares = np.square(shift).sum(axis=1, keepdims=True)
        slope = self.stiffness * shift + self.quartic * squares * shift
        slope -= slope.mean(axis=0)
        volume = self.atoms.get_volume()
        swollen = volume / self.volume - 1.0
        stress = slope.T @ shift / volume + self.bulk_modulus * swollen * np.eye(3)
        energy = (0.5 * self.stiffness * squares + 0.25 * self.quartic * squares**2).sum()
        energy += 0.5 * self.bulk_modulus * self.volume * swollen**2
        self.results = {
            "energy": float(energy),
            "free_energy": float(energy),
            "forces": -slope,
            "stress": full_3x3_to_voigt_6_stress(0.5 * (stress + stress.T)),
        }


@pytest.fixture
def crystal():
    """Four atoms on springs."""

    def make():
        atoms = bulk("Ar", "fcc", 5.3, cubic=True)
        atoms.calc = Springs(atoms)
        return atoms

    return make
