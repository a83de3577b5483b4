"""Extended tight binding (GFN1, GFN2) through tblite: molecules and periodic boxes."""

from dataclasses import dataclass, replace
from importlib import metadata
from typing import ClassVar

import numpy as np
from ase.units import Bohr, Hartree

from oarlock.sci_md.labels.method import LabelMethod
from oarlock.sci_md.structure import Structure
from oarlock.sci_md.units import BOLTZMANN

METHODS = ("GFN2-xTB", "GFN1-xTB", "IPEA1-xTB")


@dataclass(frozen=True, kw_only=True, slots=True)
class TightBinding(LabelMethod):
    """Args:
    method: one of METHODS.
    charge: of the whole structure, e.
    unpaired: unpaired electrons.
    accuracy: tblite's factor on all thresholds; smaller is tighter.
    electronic_temperature: K; the energy is the free energy, to which the forces belong.
    iterations: at most, of the self-consistent charges.

    Boxes are computed at the Γ point: choose them so large that this is enough.

    Raises:
        ValueError: a method that is not known, a value that is not positive.

    Source: Bannwarth, Ehlert, Grimme 2019 (10.1021/acs.jctc.8b01176).
    """

    kind: ClassVar[str] = "tight_binding"

    method: str = "GFN2-xTB"
    charge: int = 0
    unpaired: int = 0
    accuracy: float = 0.1
    electronic_temperature: float = 300.0
    iterations: int = 250

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method={self.method!r} has to be one of {', '.join(METHODS)}")
        for name in ("accuracy", "electronic_temperature", "iterations"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} has to be positive")
        if self.unpaired < 0:
            raise ValueError(f"unpaired={self.unpaired} has to be 0 or more")

    def version(self) -> str:
        try:
            return f"tblite {metadata.version('tblite')}"
        except metadata.PackageNotFoundError as error:
            raise ValueError(
                "tblite is not installed: pip install 'oarlock-sci-md[labels]'"
            ) from error

    def label(self, structure: Structure) -> Structure:
        self.version()
        from tblite.exceptions import TBLiteRuntimeError, TBLiteValueError
        from tblite.interface import Calculator

        where = structure.name or "the structure"
        if structure.pbc.any() and not structure.pbc.all():
            raise ValueError(
                f"{where} repeats along {int(structure.pbc.sum())} directions: "
                "tight binding does molecules and boxes that repeat along all three"
            )
        electrons = int(structure.numbers.sum()) - self.charge
        if (electrons - self.unpaired) % 2:
            raise ValueError(
                f"{where} has {electrons} electrons, of which unpaired={self.unpaired} cannot be "
                "unpaired: mend charge or unpaired"
            )
        try:
            calculator = Calculator(
                self.method,
                structure.numbers,
                structure.positions / Bohr,
                charge=float(self.charge),
                uhf=self.unpaired,
                lattice=structure.cell / Bohr if structure.pbc.any() else None,
                periodic=structure.pbc if structure.pbc.any() else None,
            )
            calculator.set("verbosity", 0)
            calculator.set("accuracy", self.accuracy)
            calculator.set("temperature", self.electronic_temperature * BOLTZMANN / Hartree)
            calculator.set("max-iter", self.iterations)
            result = calculator.singlepoint()
        except (TBLiteRuntimeError, TBLiteValueError) as error:
            raise ValueError(f"{self.method} of {where} failed: {error}") from error
        virial = -np.asarray(result.get("virial")) * Hartree
        return replace(
            structure,
            energy=float(result.get("energy")) * Hartree,
            forces=-np.asarray(result.get("gradient")) * (Hartree / Bohr),
            virial=0.5 * (virial + virial.T),
        )
