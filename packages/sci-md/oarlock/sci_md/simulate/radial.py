"""Radial distribution functions."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from oarlock.sci_md.neighbours import find_neighbours
from oarlock.sci_md.simulate.figures import draw
from oarlock.sci_md.simulate.statistics import block_means
from oarlock.sci_md.simulate.trajectory import Trajectory
from oarlock.sci_md.structure import Array, Structure, elements_of


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RadialDistribution:
    """Args:
    distances: [bins], Å, the middles of the shells.
    values: [bins], g(r); 1 where places are independent.
    errors: [bins], standard errors from blocks of frames.
    coordination: [bins], how many neighbours an atom of the first kind has up to the shell's end.
    pair: the elements, None for all atoms.
    """

    distances: Array
    values: Array
    errors: Array
    coordination: Array
    pair: tuple[str, str] | None

    def plot(self, path: str | Path | None = None) -> Figure:
        def paint(axes: Axes) -> None:
            label = "all" if self.pair is None else "–".join(self.pair)
            axes.plot(self.distances, self.values, label=label)
            low, high = self.values - self.errors, self.values + self.errors
            axes.fill_between(self.distances, low, high, alpha=0.3)
            axes.axhline(1.0, color="grey", linewidth=0.5)

        return draw(paint, x="r / Å", y="g(r)", path=path)


def radial_distribution(
    trajectory: Trajectory,
    *,
    pair: tuple[str, str] | None = None,
    cutoff: float,
    bins: int = 200,
    blocks: int = 5,
) -> RadialDistribution:
    """g(r) = V ⟨n(r, r + Δ)⟩ / (N_A N_B′ · 4π/3 ((r + Δ)³ − r³)), N_B′ the atoms of the second kind other
    than the first one itself.

    Args:
        pair: two elements; None for all atoms alike.
        cutoff: Å, at most half of the box's thickness.
        blocks: of frames, for the errors.

    Raises:
        ValueError: no periodic box, a cut-off beyond half of it, an element that does not occur, or
            fewer frames than blocks.
    """
    if not trajectory.pbc.all():
        raise ValueError("g(r) needs a density: a box that repeats along all three directions")
    if not cutoff > 0 or bins < 1:
        raise ValueError(f"cutoff={cutoff} and bins={bins} have to be positive")
    thickness = 1.0 / np.linalg.norm(np.linalg.inv(trajectory.cells), axis=1).max()
    if cutoff > 0.5 * thickness:
        raise ValueError(
            f"cutoff={cutoff} is beyond half of the box's thickness, {0.5 * thickness:.3f} Å"
        )
    first = trajectory.atoms_of(pair[0] if pair else None)
    second = trajectory.atoms_of(pair[1] if pair else None)
    is_first, is_second = (
        np.isin(np.arange(len(trajectory.numbers)), of) for of in (first, second)
    )
    others = len(second) - len(np.intersect1d(first, second)) / len(first)
    edges = np.linspace(0.0, cutoff, bins + 1)
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    counts = np.zeros((len(trajectory), bins))
    for frame, (positions, cell) in enumerate(
        zip(trajectory.positions, trajectory.cells, strict=True)
    ):
        structure = Structure(
            numbers=trajectory.numbers, positions=positions, cell=cell, pbc=trajectory.pbc
        )
        near = find_neighbours(structure, elements_of([structure]), cutoff)
        keep = is_first[near.centers] & is_second[near.neighbours]
        counts[frame] = np.histogram(np.linalg.norm(near.vectors()[keep], axis=1), edges)[0]
    counts /= len(first)
    ratios = counts * trajectory.volumes[:, None] / (others * shells)
    scatter = block_means(ratios, blocks=blocks).std(axis=0, ddof=1) / np.sqrt(blocks)
    return RadialDistribution(
        distances=0.5 * (edges[1:] + edges[:-1]),
        values=ratios.mean(axis=0),
        errors=scatter,
        coordination=np.cumsum(counts.mean(axis=0)),
        pair=pair,
    )
