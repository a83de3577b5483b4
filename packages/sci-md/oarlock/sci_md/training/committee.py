"""Several potentials of the same data: where they differ, the data were too few."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from oarlock.sci_md.evaluate import EagerEvaluator, Evaluator
from oarlock.sci_md.neighbours import find_neighbours
from oarlock.sci_md.potentials import Potential
from oarlock.sci_md.structure import Array, Structure


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Deviation:
    """How far the members of a committee are from each other.

    Args:
        atoms: [N], eV/Å, √⟨|F_m − ⟨F⟩|²⟩ over the members m.
        energy: eV/atom, standard deviation over the members.
    """

    atoms: Array
    energy: float

    @property
    def largest(self) -> float:
        """eV/Å, of the atom that is the least sure."""
        return float(self.atoms.max(initial=0.0))


class Committee:
    """Args:
    members: two or more, with the same elements and cut-off.

    Raises:
        ValueError: fewer, or they differ.
    """

    def __init__(self, members: Sequence[Evaluator | Potential]) -> None:
        if len(members) < 2:
            raise ValueError(f"members: {len(members)}, but a deviation needs two at least")
        self.members: list[Evaluator] = [
            EagerEvaluator(one) if isinstance(one, Potential) else one for one in members
        ]
        first = self.members[0]
        for one in self.members:
            if one.elements != first.elements or one.cutoff != first.cutoff:
                raise ValueError("members have different elements or cut-offs: train them alike")
        self.elements, self.cutoff, self.reach = first.elements, first.cutoff, first.reach

    def deviation(self, structure: Structure) -> Deviation:
        atoms = find_neighbours(structure, self.elements, self.cutoff)
        said = [one.evaluate(atoms) for one in self.members]
        forces = np.stack([one.forces for one in said])
        spread = np.square(forces - forces.mean(axis=0)).sum(axis=2).mean(axis=0)
        energies = np.array([one.energy for one in said])
        return Deviation(
            atoms=np.sqrt(spread), energy=float(energies.std() / max(len(structure), 1))
        )
