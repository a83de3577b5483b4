"""Atoms in a box, with the labels of a reference calculation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import ase
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Structure:
    """Atoms, their box and, where known, their energy, forces and virial (units: `keys`).

    Args:
        numbers: [N] int64, atomic numbers.
        positions: [N, 3] float64, Å.
        cell: [3, 3] float64, Å, rows are lattice vectors; zeros where nothing repeats.
        pbc: [3] bool.
        energy: eV.
        forces: [N, 3], eV/Å.
        virial: [3, 3], eV, −∂E/∂ε.
        name: where it comes from; messages say it.

    Raises:
        ValueError: a shape does not fit, a number is not finite, an atomic number is unknown, or a
            direction is periodic without a lattice vector.
    """

    numbers: NDArray[np.int64]
    positions: Array
    cell: Array
    pbc: NDArray[np.bool_]
    energy: float | None = None
    forces: Array | None = None
    virial: Array | None = None
    name: str = ""

    def __post_init__(self) -> None:
        atoms = len(self.numbers)
        self._convert("numbers", np.int64, (atoms,))
        self._convert("positions", np.float64, (atoms, 3))
        self._convert("cell", np.float64, (3, 3))
        self._convert("pbc", np.bool_, (3,))
        if self.energy is not None:
            object.__setattr__(self, "energy", float(self.energy))
            if not np.isfinite(self.energy):
                raise ValueError(
                    f"{self._said('energy')} is {self.energy}: leave it out or mend it"
                )
        if self.forces is not None:
            self._convert("forces", np.float64, (atoms, 3))
        if self.virial is not None:
            self._convert("virial", np.float64, (3, 3))
        if atoms and not 1 <= self.numbers.min() <= self.numbers.max() < len(chemical_symbols):
            raise ValueError(f"{self._said('numbers')} holds numbers that no element has")
        rank = np.linalg.matrix_rank(self.cell[self.pbc]) if self.pbc.any() else 0
        if rank < self.pbc.sum():
            raise ValueError(
                f"{self._said('cell')} has no independent lattice vector along each periodic "
                "direction: give the box, or pbc=False"
            )

    def _said(self, field: str) -> str:
        return f"{field} of {self.name}" if self.name else field

    def _convert(self, field: str, dtype: type, shape: tuple[int, ...]) -> None:
        values: NDArray[Any] = np.array(getattr(self, field), dtype=dtype, order="C")
        if values.shape != shape:
            raise ValueError(
                f"{self._said(field)} has the shape {list(values.shape)}, not {list(shape)}"
            )
        if dtype is np.float64 and not np.isfinite(values).all():
            bad = np.argwhere(~np.isfinite(values))[0].tolist()
            raise ValueError(f"{self._said(field)} is not finite at {bad}")
        values.flags.writeable = False
        object.__setattr__(self, field, values)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def volume(self) -> float:
        """Å³, of a box that repeats in all directions."""
        if not self.pbc.all():
            raise ValueError("a volume needs pbc=True in all three directions")
        return float(abs(np.linalg.det(self.cell)))

    @property
    def symbols(self) -> list[str]:
        return [chemical_symbols[number] for number in self.numbers]

    @property
    def stress(self) -> Array | None:
        """[3, 3], eV/Å³, positive under tension."""
        return None if self.virial is None else -self.virial / self.volume

    @classmethod
    def from_ase(cls, atoms: ase.Atoms, *, name: str = "") -> Self:
        """The atoms, with the results that their calculator already holds (nothing is computed)."""
        results = {} if atoms.calc is None else dict(atoms.calc.results)
        stress = results.get("stress")
        virial = None
        if stress is not None and atoms.pbc.all():
            full = np.asarray(stress, dtype=np.float64)
            if full.shape == (6,):
                xx, yy, zz, yz, xz, xy = full
                full = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
            virial = -full * atoms.get_volume()
        return cls(
            numbers=atoms.numbers,
            positions=atoms.positions,
            cell=atoms.cell.array,
            pbc=atoms.pbc,
            energy=results.get("energy", results.get("free_energy")),
            forces=results.get("forces"),
            virial=virial,
            name=name,
        )

    def to_ase(self) -> ase.Atoms:
        """As ASE's atoms, the labels in a `SinglePointCalculator`."""
        atoms = ase.Atoms(
            numbers=self.numbers, positions=self.positions, cell=self.cell, pbc=self.pbc
        )
        results: dict[str, object] = {}
        if self.energy is not None:
            results["energy"] = self.energy
        if self.forces is not None:
            results["forces"] = self.forces
        if self.virial is not None and self.pbc.all():
            results["stress"] = full_3x3_to_voigt_6_stress(self.stress)
        if results:
            atoms.calc = SinglePointCalculator(atoms, **results)
        return atoms


def elements_of(structures: Sequence[Structure]) -> tuple[str, ...]:
    """The elements that occur, by atomic number."""
    numbers = sorted({int(number) for one in structures for number in np.unique(one.numbers)})
    return tuple(chemical_symbols[number] for number in numbers)
