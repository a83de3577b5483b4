"""Elastic constants from the stress of strained crystals."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from oarlock.sci_md.simulate.figures import draw
from oarlock.sci_md.simulate.relaxation import relaxed
from oarlock.sci_md.structure import Array
from oarlock.sci_md.units import GIGAPASCAL

_NAMES = ("xx", "yy", "zz", "yz", "xz", "xy")
_PLACES = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ElasticConstants:
    """Args:
    matrix: [6, 6], GPa, in Voigt's order (xx, yy, zz, yz, xz, xy), made symmetric.
    asymmetry: GPa, the largest difference between a constant and its mirror before that: a measure of
        the error.
    residual_stress: [6], GPa, of the crystal itself; constants belong to this state.
    strain: that was applied.
    """

    matrix: Array
    asymmetry: float
    residual_stress: Array
    strain: float

    @property
    def stable(self) -> bool:
        """Whether every small strain costs energy (Born)."""
        return bool(np.linalg.eigvalsh(self.matrix).min() > 0)

    @property
    def bulk_modulus(self) -> float:
        """GPa, of a polycrystal: the mean of Voigt's and Reuss' bounds (Hill)."""
        return 0.5 * sum(self.bounds("bulk"))

    @property
    def shear_modulus(self) -> float:
        """GPa, of a polycrystal: the mean of Voigt's and Reuss' bounds (Hill)."""
        return 0.5 * sum(self.bounds("shear"))

    @property
    def young_modulus(self) -> float:
        """GPa, of a polycrystal."""
        k, g = self.bulk_modulus, self.shear_modulus
        return 9.0 * k * g / (3.0 * k + g)

    @property
    def poisson_ratio(self) -> float:
        k, g = self.bulk_modulus, self.shear_modulus
        return (3.0 * k - 2.0 * g) / (2.0 * (3.0 * k + g))

    def bounds(self, modulus: str) -> tuple[float, float]:
        """Reuss' (equal stress) and Voigt's (equal strain) value of the "bulk" or "shear" modulus, GPa.

        Raises:
            ValueError: another name, or a crystal that is not stable, which has no compliance.
        """
        if modulus not in ("bulk", "shear"):
            raise ValueError(f"modulus={modulus!r} has to be 'bulk' or 'shear'")
        if not self.stable:
            raise ValueError("the crystal is not stable: some strain lowers its energy")
        c, s = self.matrix, np.linalg.inv(self.matrix)
        (c_ends, c_sides, c_shears), (s_ends, s_sides, s_shears) = (
            (m[:3, :3].trace(), m[0, 1] + m[0, 2] + m[1, 2], m[3:, 3:].trace()) for m in (c, s)
        )
        if modulus == "bulk":
            return float(1.0 / (s_ends + 2.0 * s_sides)), float((c_ends + 2.0 * c_sides) / 9.0)
        return (
            float(15.0 / (4.0 * s_ends - 4.0 * s_sides + 3.0 * s_shears)),
            float((c_ends - c_sides + 3.0 * c_shears) / 15.0),
        )

    def __str__(self) -> str:
        rows = "\n".join("  ".join(f"{value:8.2f}" for value in row) for row in self.matrix)
        return f"{rows}\nGPa, ± {self.asymmetry:.2g} by asymmetry"

    def plot(self, path: str | Path | None = None) -> Figure:
        def paint(axes: Axes) -> None:
            most = float(np.abs(self.matrix).max())
            axes.imshow(self.matrix, cmap="RdBu", vmin=-most, vmax=most)
            axes.set_xticks(range(6), _NAMES)
            axes.set_yticks(range(6), _NAMES)
            for (row, column), value in np.ndenumerate(self.matrix):
                shade = "white" if abs(value) > 0.6 * most else "black"
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=shade)

        return draw(paint, x="strain", y="stress", path=path)


def elastic_constants(
    atoms: Atoms,
    *,
    strain: float = 5e-3,
    relax: bool = True,
    force: float = 1e-4,
) -> ElasticConstants:
    """C_ij = ∂σ_i / ∂γ_j by central differences, γ the engineering strain (twice the tensor's shears).

    Args:
        atoms: a crystal at rest (`relaxed(atoms, box=True)`), with a calculator that gives stress.
        strain: how far each way.
        relax: let atoms come to rest in the strained box; not needed where each is a centre of symmetry.
        force: eV/Å, that may be left then.

    Raises:
        ValueError: no box, no calculator, a strain that is not between 0 and 0.1.
    """
    if atoms.calc is None:
        raise ValueError("atoms have no calculator: set atoms.calc first")
    if not atoms.pbc.all():
        raise ValueError("elastic constants need a box that repeats along all three directions")
    if not 0 < strain < 0.1:
        raise ValueError(f"strain={strain} has to be between 0 and 0.1")
    matrix = np.zeros((6, 6))
    for column, (i, j) in enumerate(_PLACES):
        shape = np.zeros((3, 3))
        shape[i, j] += 0.5 * strain
        shape[j, i] += 0.5 * strain
        difference = _stress(atoms, shape, relax, force) - _stress(atoms, -shape, relax, force)
        matrix[:, column] = difference / (2.0 * strain)
    residual = _stress(atoms, np.zeros((3, 3)), False, force)
    return ElasticConstants(
        matrix=0.5 * (matrix + matrix.T) / GIGAPASCAL,
        asymmetry=float(np.abs(matrix - matrix.T).max()) / GIGAPASCAL,
        residual_stress=residual / GIGAPASCAL,
        strain=strain,
    )


def _stress(atoms: Atoms, shape: Array, relax: bool, force: float) -> Array:
    strained = atoms.copy()
    strained.calc = atoms.calc
    strained.set_cell(atoms.cell.array @ (np.eye(3) + shape), scale_atoms=True)
    if relax:
        strained = relaxed(strained, force=force)
    return np.asarray(strained.get_stress(), dtype=np.float64)
