"""What a reference calculation is: a structure in, the same structure with its labels out."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from oarlock.sci_md.structure import Array, Structure


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelMethod:
    """Base of the methods; each is a frozen dataclass of what decides the labels.

    Attributes:
        kind: the name in files.
    """

    kind: ClassVar[str] = ""

    def label(self, structure: Structure) -> Structure:
        """The structure with energy (eV), forces (eV/Å) and virial (eV).

        Raises:
            ValueError: the method cannot do this structure, or did not converge.
        """
        raise NotImplementedError

    def version(self) -> str:
        """Of the program that computes: labels of two versions are told apart."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        return {"kind": self.kind, **dataclasses.asdict(self)}

    def describe(self) -> str:
        """One line of JSON, the same for equal methods."""
        return json.dumps({**self.settings(), "version": self.version()}, sort_keys=True)


def molecular_virial(structure: Structure, forces: Array) -> Array:
    """Σ r ⊗ F = −∂E/∂ε of atoms that do not repeat, [3, 3] eV; exact where forces sum to zero."""
    centered = structure.positions - structure.positions.mean(axis=0)
    virial = centered.T @ forces
    return 0.5 * (virial + virial.T)


class LabelCalculator(Calculator):
    """A label method as ASE's calculator: relaxations and dynamics on the reference itself."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, method: LabelMethod) -> None:
        super().__init__()
        self.method = method

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        bare = self.atoms.copy()
        labelled = self.method.label(Structure.from_ase(bare))
        assert labelled.energy is not None and labelled.forces is not None
        self.results = {
            "energy": labelled.energy,
            "free_energy": labelled.energy,
            "forces": np.array(labelled.forces),
        }
        if labelled.virial is not None and labelled.pbc.all():
            self.results["stress"] = full_3x3_to_voigt_6_stress(labelled.stress)
