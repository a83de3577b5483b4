"""Embedding networks as tables: polynomials of degree 5 between evenly spaced numbers.

They meet value, slope and curvature of the network at both ends, so that forces are smooth. The
spacing is halved until both value and slope are right to a tolerance. Source: DP Compress, 2107.02103.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from oarlock.native._deep_potential_model import Array, Layer, Model, embed

#: Intervals of a table at most; finer ones would not stay in a cache.
MOST_INTERVALS = 1 << 15
_BETWEEN = np.linspace(0.0, 1.0, 9)[1:-1]  # where errors are looked for


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Table:
    """Args:
    nodes: [intervals + 1, 4, M], value, what the next node adds to it, step · slope and step² · curvature:
        with the difference, slopes keep their digits in float32.
    first: the number at the first node.
    step: between nodes.
    error: the largest of the features, as found between nodes.
    slope_error: the largest of their slopes.
    """

    nodes: Array
    first: float
    step: float
    error: float
    slope_error: float

    def __call__(self, numbers: Array) -> tuple[Array, Array]:
        """Features and slopes. [n] → [n, M] twice."""
        scaled = (numbers - self.first) / self.step
        interval = np.clip(scaled.astype(np.int64), 0, len(self.nodes) - 2)
        values, slopes = _basis(scaled - interval)
        here, following = self.nodes[interval], self.nodes[interval + 1]
        lines = np.concatenate([here[:, 1:], following[:, 2:]], axis=1)
        return (
            here[:, 0] + np.einsum("nb,nbm->nm", values, lines),
            np.einsum("nb,nbm->nm", slopes, lines) / self.step,
        )


def _basis(u: Array) -> tuple[Array, Array]:
    """Weights of difference, slope and curvature here, slope and curvature there. [n] → [n, 5] twice."""
    v = 1.0 - u
    values = [
        u**3 * (1 + 3 * v + 6 * v**2),
        v**3 * u * (1 + 3 * u),
        0.5 * v**3 * u**2,
        -(u**3) * v * (1 + 3 * v),
        0.5 * u**3 * v**2,
    ]
    slopes = [
        30 * u**2 * v**2,
        v**2 * (1 - 3 * u) * (1 + 5 * u),
        0.5 * v**2 * u * (2 - 5 * u),
        u**2 * (1 - 3 * v) * (1 + 5 * v),
        -0.5 * u**2 * v * (2 - 5 * v),
    ]
    return np.stack(values, axis=1), np.stack(slopes, axis=1)


def tabulate(layers: Sequence[Layer], first: float, last: float, tolerance: float) -> Table:
    """A network between two numbers.

    Raises:
        ValueError: the tolerance is not reached with `MOST_INTERVALS`.
    """
    intervals = 16
    while intervals <= MOST_INTERVALS:
        step = (last - first) / intervals
        value, slope, curvature = embed(layers, first + step * np.arange(intervals + 1))
        difference = np.diff(value, axis=0, append=value[-1:])
        nodes = np.stack([value, difference, step * slope, step * step * curvature], axis=1)
        table = Table(nodes=nodes, first=first, step=step, error=0.0, slope_error=0.0)
        numbers = (first + step * (np.arange(intervals)[:, None] + _BETWEEN)).ravel()
        true_value, true_slope, _ = embed(layers, numbers)
        found_value, found_slope = table(numbers)
        error = float(np.abs(found_value - true_value).max())
        slope_error = float(np.abs(found_slope - true_slope).max())
        if max(error, slope_error) <= tolerance:
            return Table(nodes=nodes, first=first, step=step, error=error, slope_error=slope_error)
        intervals *= 2
    raise ValueError(
        f"tolerance={tolerance} is not reached with {MOST_INTERVALS} intervals, which leave "
        f"{max(error, slope_error):.1e}: allow more, or a larger `closest`"
    )


def compress(model: Model, *, closest: float = 0.6, tolerance: float = 1e-7) -> list[Table]:
    """Tables of all embedding networks.

    Args:
        closest: Å; pairs of atoms below are refused.
        tolerance: of features and their slopes, which are about 1.

    Raises:
        ValueError: the tolerance cannot be reached, or a distance that cannot be.
    """
    if not 0 < closest < model.cutoff:
        raise ValueError(f"closest={closest} has to lie between 0 and cutoff={model.cutoff} Å")
    if not tolerance > 0:
        raise ValueError(f"tolerance={tolerance} has to be positive")
    u = np.clip((closest - model.smooth) / (model.cutoff - model.smooth), 0.0, 1.0)
    nearest = (1.0 - u**3 * (10.0 - 15.0 * u + 6.0 * u**2)) / closest
    low = -model.mean[:, 0] / model.deviation[:, 0]  # of each centre
    high = (nearest - model.mean[:, 0]) / model.deviation[:, 0]
    tables = []
    for number, layers in enumerate(model.embeddings):
        centers = (
            slice(None) if model.one_side else slice(*[number // model.kinds + i for i in (0, 1)])
        )
        tables.append(
            tabulate(layers, float(low[centers].min()), float(high[centers].max()), tolerance)
        )
    return tables
