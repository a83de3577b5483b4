"""Barriers between two states, by nudged elastic bands."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.mep import NEB
from ase.optimize import FIRE
from ase.utils.forcecurve import fit_images
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from oarlock.sci_md.simulate.figures import draw
from oarlock.sci_md.structure import Array


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EnergyPath:
    """A path of lowest energy.

    Args:
        distances: [images], Å, along the path.
        energies: [images], eV, relative to the first.
        images: structures; the saddle is the highest.
        force: eV/Å, the largest that was left across the path.
        curve: [2, points], distances and energies between the images, smooth by the forces.
    """

    distances: Array
    energies: Array
    images: tuple[Atoms, ...]
    force: float
    curve: Array

    @property
    def barrier(self) -> float:
        """eV, from the first state to the saddle."""
        return float(self.energies.max())

    @property
    def reverse_barrier(self) -> float:
        """eV, from the last state to the saddle."""
        return float(self.energies.max() - self.energies[-1])

    def plot(self, path: str | Path | None = None) -> Figure:
        def paint(axes: Axes) -> None:
            axes.plot(*self.curve, label=f"barrier {self.barrier:.3f} eV")
            axes.plot(self.distances, self.energies, "o")

        return draw(paint, x="distance along the path / Å", y="E / eV", path=path)


def minimum_energy_path(
    start: Atoms,
    end: Atoms,
    *,
    images: int = 7,
    force: float = 0.02,
    spring: float = 0.1,
    steps: int = 500,
) -> EnergyPath:
    """A nudged elastic band whose highest image climbs to the saddle.

    Args:
        start, end: relaxed states of the same atoms in the same order, `start` with a calculator.
        images: in all, the two states among them.
        force: eV/Å, that may be left across the path.
        spring: eV/Å², between images.
        steps: at most.

    Raises:
        ValueError: states that do not fit, too few images, or a path that did not converge.

    Source: Henkelman, Uberuaga, Jónsson 2000 (10.1063/1.1329672); ASE.
    """
    if start.calc is None:
        raise ValueError("start has no calculator: set start.calc first")
    if not np.array_equal(start.numbers, end.numbers):
        raise ValueError("start and end have to hold the same atoms in the same order")
    if not np.allclose(start.cell, end.cell):
        raise ValueError("start and end have to have the same box")
    if images < 3:
        raise ValueError(f"images={images} have to be 3 or more")
    band = [start.copy() for _ in range(images - 1)] + [end.copy()]
    for image in band:
        image.calc = start.calc
    nudged = NEB(
        band, k=spring, climb=False, method="improvedtangent", allow_shared_calculator=True
    )
    nudged.interpolate(mic=bool(start.pbc.any()))
    mover = FIRE(nudged, logfile=None)
    mover.run(fmax=5.0 * force, steps=steps)  # near, before the highest climbs
    nudged.climb = True
    if not mover.run(fmax=force, steps=steps):
        raise ValueError(
            f"forces across the path are {nudged.get_residual():.3g} eV/Å after {steps} steps, above "
            f"force={force}: allow more steps or images"
        )
    fit = fit_images(band)
    return EnergyPath(
        distances=np.asarray(fit.path, dtype=np.float64),
        energies=np.asarray(fit.energies, dtype=np.float64),
        images=tuple(band),
        force=float(nudged.get_residual()),
        curve=np.array([fit.fit_path, fit.fit_energies], dtype=np.float64),
    )
