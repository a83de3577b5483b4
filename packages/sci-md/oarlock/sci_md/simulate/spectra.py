"""Velocity autocorrelation, the density of vibrations, and diffusion by Green and Kubo."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.integrate import trapezoid

from oarlock.sci_md.simulate.figures import draw
from oarlock.sci_md.simulate.trajectory import Trajectory
from oarlock.sci_md.structure import Array
from oarlock.sci_md.units import WAVENUMBER


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class VelocityAutocorrelation:
    """Args:
    times: [L], fs.
    values: [L], ⟨v(t)·v(0)⟩ in Å²/fs², over atoms and origins of time.
    """

    times: Array
    values: Array

    @property
    def diffusion(self) -> float:
        """⅓ ∫ ⟨v(t)·v(0)⟩ dt over the times there are, Å²/fs. Source: Green 1954, Kubo 1957."""
        return float(trapezoid(self.values, self.times) / 3.0)

    def plot(self, path: str | Path | None = None) -> Figure:
        def paint(axes: Axes) -> None:
            axes.plot(self.times, self.values / self.values[0])
            axes.axhline(0.0, color="grey", linewidth=0.5)

        return draw(paint, x="t / fs", y="⟨v(t)·v(0)⟩ / ⟨v²⟩", path=path)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Spectrum:
    """Args:
    wavenumbers: [W], cm⁻¹.
    density: [W], of vibrations, per cm⁻¹; its integral is 1.
    """

    wavenumbers: Array
    density: Array

    def plot(self, path: str | Path | None = None) -> Figure:
        def paint(axes: Axes) -> None:
            axes.plot(self.wavenumbers, self.density)

        return draw(paint, x="wavenumber / cm⁻¹", y="density of vibrations / cm", path=path)


def velocity_autocorrelation(
    trajectory: Trajectory,
    *,
    element: str | None = None,
    longest: float | None = None,
    by_mass: bool = False,
) -> VelocityAutocorrelation:
    """⟨v(t₀ + t)·v(t₀)⟩ over atoms and origins.

    Args:
        element: whose atoms; None for all.
        longest: fs; None for half of the trajectory.
        by_mass: weigh atoms by their masses over the mean mass, as vibrations need.

    Raises:
        ValueError: no velocities, or a time beyond half of the trajectory.
    """
    if trajectory.velocities is None:
        raise ValueError("the trajectory has no velocities: write frames with momenta")
    frames = len(trajectory)
    most = frames // 2
    if longest is not None:
        if not trajectory.interval <= longest <= most * trajectory.interval * (1 + 1e-9):
            raise ValueError(
                f"longest={longest} has to be from {trajectory.interval:g} to "
                f"{most * trajectory.interval:g} fs, half of the trajectory"
            )
        most = round(longest / trajectory.interval)
    atoms = trajectory.atoms_of(element)
    velocities = trajectory.velocities[:, atoms]
    if by_mass:
        masses = trajectory.masses[atoms]
        velocities = velocities * np.sqrt(masses / masses.mean())[:, None]
    spectrum = np.fft.rfft(velocities, n=2 * frames, axis=0)
    products = np.fft.irfft(np.square(np.abs(spectrum)).sum(axis=(1, 2)), n=2 * frames)
    lags = np.arange(most + 1)
    values = products[lags] / (frames - lags) / len(atoms)
    return VelocityAutocorrelation(times=lags * trajectory.interval, values=values)


def vibrations(
    trajectory: Trajectory, *, element: str | None = None, longest: float | None = None
) -> Spectrum:
    """The density of vibrations: the cosine transform of the velocity autocorrelation, weighed by mass.

    Args:
        longest: fs of autocorrelation; its inverse is the resolution (1 ps: 33 cm⁻¹). A Hann window takes
            it to zero.

    Frames have to be closer in time than half of the fastest period (O–H: 4 fs).
    """
    correlation = velocity_autocorrelation(
        trajectory, element=element, longest=longest, by_mass=True
    )
    count = len(correlation.values)
    window = 0.5 * (1.0 + np.cos(np.pi * np.arange(count) / (count - 1)))
    tapered = correlation.values * window
    padded = np.zeros(8 * count)
    padded[:count] = tapered
    padded[-count + 1 :] = tapered[:0:-1]  # even in time: the transform is real
    density = np.maximum(np.fft.rfft(padded).real, 0.0)
    wavenumbers = np.fft.rfftfreq(len(padded), trajectory.interval) / WAVENUMBER
    width = wavenumbers[1]
    return Spectrum(wavenumbers=wavenumbers, density=density / (density.sum() * width))
