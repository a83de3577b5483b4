"""What labels structures: a quantum-mechanical method, or any calculator of ASE."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from ase.calculators.calculator import Calculator, CalculatorError, PropertyNotImplementedError

from oarlock.sci_md.labels import LabelMethod, generate
from oarlock.sci_md.structure import Structure

#: Gives structures with energies and forces; those that cannot be labelled may be left out.
Oracle: TypeAlias = Callable[[Sequence[Structure]], Sequence[Structure]]


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodOracle:
    """A method of `labels`.

    Args:
        cache: folder of what was computed.
        workers: processes.
    """

    method: LabelMethod
    cache: Path
    workers: int = 1

    def __call__(self, structures: Sequence[Structure]) -> Sequence[Structure]:
        return generate(
            structures, self.method, cache=self.cache, workers=self.workers, progress=False
        ).structures


@dataclass(frozen=True, kw_only=True, slots=True)
class CalculatorOracle:
    """A calculator of ASE, made anew for each structure.

    Structures for which it raises ASE's errors are left out.
    """

    make: Callable[[], Calculator]

    def __call__(self, structures: Sequence[Structure]) -> Sequence[Structure]:
        labelled = []
        for one in structures:
            atoms = replace(one, energy=None, forces=None, virial=None).to_ase()
            atoms.calc = self.make()
            try:
                atoms.get_potential_energy()
                atoms.get_forces()
                if one.pbc.all():
                    atoms.get_stress()
            except PropertyNotImplementedError:
                pass  # of the stress: the label has none
            except CalculatorError:
                continue
            labelled.append(Structure.from_ase(atoms, name=one.name))
        return labelled
