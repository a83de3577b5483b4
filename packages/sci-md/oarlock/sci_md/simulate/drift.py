"""How well a run conserved its energy."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from oarlock.sci_md.simulate.figures import draw
from oarlock.sci_md.simulate.statistics import Estimate, block_slope
from oarlock.sci_md.structure import Array


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EnergyDrift:
    """Args:
    slope: eV/atom/ps, by least squares, with its error.
    fluctuation: eV/atom, standard deviation about the line.
    times: [T], ps.
    energies: [T], eV/atom, relative to their mean.
    """

    slope: Estimate
    fluctuation: float
    times: Array
    energies: Array

    def plot(self, path: str | Path | None = None) -> Figure:
        def paint(axes: Axes) -> None:
            axes.plot(self.times, 1e3 * self.energies, linewidth=0.7)
            line = self.slope.value * (self.times - self.times.mean())
            label = f"{1e3 * self.slope.value:.2g} ± {1e3 * self.slope.error:.1g} meV/atom/ps"
            axes.plot(self.times, 1e3 * line, "--", label=label)

        return draw(paint, x="t / ps", y="E − ⟨E⟩ / meV per atom", path=path)


def energy_drift(times: Array, energies: Array, *, atoms: int, blocks: int = 10) -> EnergyDrift:
    """The slope of a conserved energy.

    Args:
        times: [T], fs.
        energies: [T], eV, such as a log's ``conserved_eV``.
        atoms: how many.
        blocks: the error is of the line through the means of so many parts.

    Raises:
        ValueError: unequal lengths, values that are not finite, fewer than two for each block.
    """
    times, energies = np.asarray(times, dtype=np.float64), np.asarray(energies, dtype=np.float64)
    if times.shape != energies.shape or times.ndim != 1 or len(times) < 2 * blocks:
        raise ValueError(
            f"times {list(times.shape)} and energies {list(energies.shape)} have to be equally long, "
            f"{2 * blocks} or more"
        )
    if not (np.isfinite(times).all() and np.isfinite(energies).all()):
        raise ValueError("times and energies have to be finite: take a quantity that is conserved")
    if atoms < 1:
        raise ValueError(f"atoms={atoms} has to be 1 or more")
    picoseconds = 1e-3 * times
    relative = (energies - energies.mean()) / atoms
    slope = block_slope(picoseconds, relative, blocks=blocks)
    residual = relative - slope.value * (picoseconds - picoseconds.mean())
    return EnergyDrift(
        slope=slope,
        fluctuation=float(residual.std()),
        times=picoseconds,
        energies=relative,
    )
