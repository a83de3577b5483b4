"""A potential with known answers, as an evaluator: Lennard-Jones, shifted to 0 at the cut-off."""

import numpy as np
import pytest

from oarlock.sci_md.evaluate import Evaluation
from oarlock.sci_md.evaluate.eager import check_finite, within


class LennardJones:
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


@pytest.fixture
def lennard_jones():
    return LennardJones
