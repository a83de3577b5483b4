"""Structures with the energies, forces and stress of ASE's EMT."""

import ase.build
import numpy as np
import pytest
from ase.calculators.emt import EMT

from oarlock.sci_md.structure import Structure


def _emt(count, *, size=2, shake=0.08, seed=0, symbols=("Cu", "Au")):
    rng = np.random.default_rng(seed)
    structures = []
    for index in range(count):
        atoms = ase.build.bulk("Cu", cubic=True).repeat(size)
        atoms.numbers[rng.random(len(atoms)) < 0.3] = ase.data.atomic_numbers[symbols[1]]
        strain = np.eye(3) + rng.normal(scale=0.01, size=(3, 3))
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        atoms.rattle(shake, seed=seed * 1000 + index)
        atoms.calc = EMT()
        atoms.get_forces(), atoms.get_stress()
        structures.append(Structure.from_ase(atoms, name=f"emt:{index}"))
    return structures


@pytest.fixture(scope="session")
def emt():
    """A function: so many structures, the same for the same arguments."""
    return _emt
