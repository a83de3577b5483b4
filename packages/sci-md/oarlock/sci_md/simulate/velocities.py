"""Velocities to begin with."""

import numpy as np
from ase import Atoms

from oarlock.sci_md.units import BOLTZMANN


def thermal_velocities(atoms: Atoms, temperature: float, *, seed: int) -> None:
    """Draws velocities from Maxwell–Boltzmann, without a drift of the whole, at exactly this
    temperature (K): ½ Σ m v² = ½ (3 N − 3) k T, or ½ k T for each degree of freedom that constraints leave.

    Raises:
        ValueError: a temperature that is not positive, or fewer than two atoms.
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} has to be positive, in K")
    if len(atoms) < 2:
        raise ValueError("thermal velocities without drift need two atoms at least")
    masses = atoms.get_masses()[:, None]
    momenta = np.random.default_rng(seed).normal(size=(len(atoms), 3)) * np.sqrt(masses)
    degrees = int(atoms.get_number_of_degrees_of_freedom())
    if not atoms.constraints:  # which hold the drift already, or make it meaningless
        momenta -= masses * momenta.sum(axis=0) / masses.sum()
        degrees -= 3
    atoms.set_momenta(momenta)  # constraints take their part away
    kinetic = float(atoms.get_kinetic_energy())
    atoms.set_momenta(
        atoms.get_momenta() * np.sqrt(0.5 * degrees * BOLTZMANN * temperature / kinetic)
    )
