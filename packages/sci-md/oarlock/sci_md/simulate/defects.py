"""What it costs to take an atom away."""

from dataclasses import dataclass

import numpy as np
from ase import Atoms

from oarlock.sci_md.simulate.relaxation import relaxed


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Vacancy:
    """Args:
    energy: eV, of formation, atoms around it at rest.
    unrelaxed: eV, of formation, with the others where they were.
    atoms: the crystal with the vacancy, at rest.
    """

    energy: float
    unrelaxed: float
    atoms: Atoms


def vacancy_formation(
    atoms: Atoms,
    *,
    index: int = 0,
    chemical_potential: float | None = None,
    force: float = 1e-3,
) -> Vacancy:
    """E_f = E(without the atom) + μ − E(crystal), in the crystal's box.

    Args:
        atoms: a supercell at rest, so large that vacancies do not see each other.
        index: of the atom that goes.
        chemical_potential: μ of that atom, eV; None takes the energy of an atom of the crystal, which has
            to be of one element.
        force: eV/Å, that may be left.

    Raises:
        ValueError: no calculator, no such atom, or a compound without a chemical potential.
    """
    if atoms.calc is None:
        raise ValueError("atoms have no calculator: set atoms.calc first")
    if not 0 <= index < len(atoms):
        raise ValueError(f"index={index} has to be from 0 to {len(atoms) - 1}")
    whole = atoms.get_potential_energy()
    if chemical_potential is None:
        if len(np.unique(atoms.numbers)) > 1:
            raise ValueError(
                "chemical_potential has to be given for a crystal of several elements: the energy of "
                f"an atom of {atoms.symbols[index]} where it goes"
            )
        chemical_potential = whole / len(atoms)
    holed = atoms.copy()
    del holed[index]
    holed.calc = atoms.calc
    before = holed.get_potential_energy() + chemical_potential - whole
    at_rest = relaxed(holed, force=force)
    return Vacancy(
        energy=float(at_rest.get_potential_energy() + chemical_potential - whole),
        unrelaxed=float(before),
        atoms=at_rest,
    )
