"""Energy against volume."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.eos import EquationOfState as AseEquation
from ase.eos import birchmurnaghan
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from oarlock.sci_md.simulate.figures import draw
from oarlock.sci_md.simulate.relaxation import relaxed
from oarlock.sci_md.structure import Array
from oarlock.sci_md.units import GIGAPASCAL


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EquationOfState:
    """Birch and Murnaghan's curve through computed energies.

    Args:
        volume: Å³ an atom, at rest.
        energy: eV an atom, at rest.
        bulk_modulus: GPa.
        derivative: of the bulk modulus by pressure.
        residual: eV an atom, root mean square distance from the curve.
        volumes: [V], Å³ an atom.
        energies: [V], eV an atom.
    """

    volume: float
    energy: float
    bulk_modulus: float
    derivative: float
    residual: float
    volumes: Array
    energies: Array

    def at(self, volumes: Array) -> Array:
        """eV an atom, of the curve."""
        stiffness = self.bulk_modulus * GIGAPASCAL
        return birchmurnaghan(volumes, self.energy, stiffness, self.derivative, self.volume)

    def plot(self, path: str | Path | None = None) -> Figure:
        def paint(axes: Axes) -> None:
            axes.plot(self.volumes, self.energies, "o", label="computed")
            dense = np.linspace(self.volumes.min(), self.volumes.max(), 200)
            axes.plot(dense, self.at(dense), label=f"B = {self.bulk_modulus:.1f} GPa")

        return draw(paint, x="V / Å³ per atom", y="E / eV per atom", path=path)


def equation_of_state(
    atoms: Atoms,
    *,
    volumes: Sequence[float] = (0.92, 0.94, 0.96, 0.98, 1.0, 1.02, 1.04, 1.06, 1.08),
    relax: bool = False,
    force: float = 1e-3,
) -> EquationOfState:
    """The energy of the crystal at scaled volumes.

    Args:
        volumes: relative to that of `atoms`; five or more.
        relax: let atoms come to rest in each box; not needed where symmetry holds them.
        force: eV/Å, that may be left then.

    Raises:
        ValueError: no box, no calculator, too few volumes, or no minimum among them.
    """
    if atoms.calc is None:
        raise ValueError("atoms have no calculator: set atoms.calc first")
    if not atoms.pbc.all():
        raise ValueError("an equation of state needs a box that repeats along all three directions")
    if len(volumes) < 5 or min(volumes) <= 0:
        raise ValueError(f"volumes={tuple(volumes)} have to be five or more, all positive")
    energies = []
    for volume in volumes:
        scaled = atoms.copy()
        scaled.calc = atoms.calc
        scaled.set_cell(atoms.cell * volume ** (1 / 3), scale_atoms=True)
        if relax:
            scaled = relaxed(scaled, force=force)
        energies.append(scaled.get_potential_energy() / len(atoms))
    energy = np.array(energies)
    if 0 < energy.argmin() < len(energy) - 1:
        absolute = np.asarray(volumes) * atoms.get_volume() / len(atoms)
        fit = AseEquation(absolute, energy, eos="birchmurnaghan")
        volume, lowest, bulk_modulus = fit.fit(warn=False)
        derivative = float(fit.eos_parameters[2])
        curve = birchmurnaghan(absolute, lowest, bulk_modulus, derivative, volume)
        return EquationOfState(
            volume=float(volume),
            energy=float(lowest),
            bulk_modulus=float(bulk_modulus) / GIGAPASCAL,
            derivative=derivative,
            residual=float(np.sqrt(np.square(curve - energy).mean())),
            volumes=absolute,
            energies=energy,
        )
    raise ValueError(
        f"the lowest energy is at an end of volumes={tuple(volumes)}: shift them, or relax the box first"
    )
