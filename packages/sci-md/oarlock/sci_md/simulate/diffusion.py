"""Mean squared displacements and the diffusion coefficient."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from oarlock.sci_md.simulate.figures import draw
from oarlock.sci_md.simulate.statistics import Estimate
from oarlock.sci_md.simulate.trajectory import Trajectory
from oarlock.sci_md.structure import Array
from oarlock.sci_md.units import factor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MeanSquaredDisplacement:
    """Args:
    times: [L], fs.
    values: [L], Å², over atoms and all origins of time.
    """

    times: Array
    values: Array

    def plot(self, path: str | Path | None = None) -> Figure:
        def paint(axes: Axes) -> None:
            axes.plot(self.times / 1e3, self.values)

        return draw(paint, x="t / ps", y="⟨|r(t) − r(0)|²⟩ / Å²", path=path)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Diffusion:
    """Args:
    coefficient: Å²/fs.
    displacement: what it was fitted to.
    fit: fs, from where to where.
    """

    coefficient: Estimate
    displacement: MeanSquaredDisplacement
    fit: tuple[float, float]

    @property
    def in_cm2_per_s(self) -> Estimate:
        by = factor("Å^2/fs", "cm^2/s")
        return Estimate(value=by * self.coefficient.value, error=by * self.coefficient.error)

    def plot(self, path: str | Path | None = None) -> Figure:
        def paint(axes: Axes) -> None:
            times, values = self.displacement.times, self.displacement.values
            axes.plot(times / 1e3, values, label="measured")
            inside = (times >= self.fit[0]) & (times <= self.fit[1])
            slope = 6.0 * self.coefficient.value
            offset = (values[inside] - slope * times[inside]).mean()
            label = f"D = {self.in_cm2_per_s} cm²/s"
            axes.plot(times[inside] / 1e3, offset + slope * times[inside], "--", label=label)

        return draw(paint, x="t / ps", y="⟨|r(t) − r(0)|²⟩ / Å²", path=path)


def mean_squared_displacement(
    trajectory: Trajectory, *, element: str | None = None, without_drift: bool = True
) -> MeanSquaredDisplacement:
    """⟨|r(t₀ + t) − r(t₀)|²⟩ over atoms and origins t₀, for t up to half of the trajectory.

    Args:
        element: whose atoms; None for all.
        without_drift: relative to the centre of mass of all atoms.

    Positions have to be unwrapped (`Trajectory.unwrapped`).
    """
    positions = trajectory.positions
    if without_drift:
        weights = trajectory.masses / trajectory.masses.sum()
        positions = positions - np.einsum("tnd,n->td", positions, weights)[:, None]
    chosen = positions[:, trajectory.atoms_of(element)]
    frames = len(trajectory)
    if frames < 4:
        raise ValueError(f"a mean squared displacement needs 4 frames or more, not {frames}")
    # Σ |r(i+m) − r(i)|² = Σ |r(i+m)|² + |r(i)|² − 2 r(i+m)·r(i), the last by a transform.
    chosen = chosen - chosen.mean(axis=0)
    squares = np.square(chosen).sum(axis=(1, 2))
    spectrum = np.fft.rfft(chosen, n=2 * frames, axis=0)
    products = np.fft.irfft(np.square(np.abs(spectrum)).sum(axis=(1, 2)), n=2 * frames)[:frames]
    rising = np.concatenate([[0.0], np.cumsum(squares)])
    lags = np.arange(frames // 2 + 1)
    sums = (rising[frames] - rising[lags]) + rising[frames - lags] - 2.0 * products[lags]
    values = np.maximum(sums, 0.0) / (frames - lags) / chosen.shape[1]
    return MeanSquaredDisplacement(times=lags * trajectory.interval, values=values)


def diffusion_coefficient(
    trajectory: Trajectory,
    *,
    element: str | None = None,
    fit: tuple[float, float] | None = None,
    blocks: int = 4,
    without_drift: bool = True,
) -> Diffusion:
    """D = slope / 6 of the mean squared displacement (Einstein), its error from blocks of time.

    Args:
        fit: fs, where displacements are proportional to time; None for 20 % to 50 % of a block.
        blocks: parts of the trajectory, each fitted alone; the value is of the whole.

    Raises:
        ValueError: a fit that reaches beyond half of a block, or too short a trajectory.
    """
    length = len(trajectory) // blocks if blocks >= 2 else 0
    if length < 8:
        raise ValueError(
            f"blocks={blocks} of {len(trajectory)} frames: 2 blocks or more, of 8 frames or more"
        )
    reach = (length // 2) * trajectory.interval
    fit = (0.4 * reach, reach) if fit is None else fit
    if not 0 <= fit[0] < fit[1] <= reach * (1 + 1e-9):
        raise ValueError(f"fit={fit} has to rise and end at {reach:g} fs, half of a block, at most")

    def measured(part: Trajectory) -> MeanSquaredDisplacement:
        return mean_squared_displacement(part, element=element, without_drift=without_drift)

    starts = range(0, blocks * length, length)
    parts = [_slope(measured(trajectory[start : start + length]), fit) for start in starts]
    whole = measured(trajectory)
    return Diffusion(
        coefficient=Estimate(
            value=_slope(whole, fit) / 6.0,
            error=float(np.std(parts, ddof=1) / np.sqrt(blocks) / 6.0),
        ),
        displacement=whole,
        fit=fit,
    )


def _slope(displacement: MeanSquaredDisplacement, fit: tuple[float, float]) -> float:
    inside = (displacement.times >= fit[0] * (1 - 1e-9)) & (
        displacement.times <= fit[1] * (1 + 1e-9)
    )
    if inside.sum() < 2:
        raise ValueError(f"fit={fit} holds fewer than two frames: widen it")
    return float(np.polyfit(displacement.times[inside], displacement.values[inside], 1)[0])
