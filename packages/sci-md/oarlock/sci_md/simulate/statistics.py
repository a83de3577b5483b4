"""Means and slopes of correlated series, with errors from blocks."""

from dataclasses import dataclass

import numpy as np

from oarlock.sci_md.structure import Array


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Args:
    value: the estimate.
    error: its standard error.
    """

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.error:.2g}"


def block_mean(values: Array, *, blocks: int = 10) -> Estimate:
    """The mean of a series, and its error from the scatter of the means of blocks.

    The error is right where blocks are longer than the series remembers.

    Raises:
        ValueError: fewer than two values in a block.
    """
    means = block_means(values, blocks=blocks)
    return Estimate(
        value=float(np.mean(values)), error=float(means.std(ddof=1) / np.sqrt(len(means)))
    )


def block_means(values: Array, *, blocks: int) -> Array:
    """[blocks, ...]; what does not fill a block at the beginning is left out."""
    values = np.asarray(values, dtype=np.float64)
    if blocks < 2:
        raise ValueError(f"blocks={blocks} has to be 2 or more")
    length = len(values) // blocks
    if length < 1:
        raise ValueError(f"blocks={blocks} are more than the {len(values)} values: choose fewer")
    kept = values[len(values) - blocks * length :]
    return kept.reshape(blocks, length, *values.shape[1:]).mean(axis=1)


def block_slope(times: Array, values: Array, *, blocks: int = 10) -> Estimate:
    """The slope of a series by least squares through the means of blocks."""
    if blocks < 3:
        raise ValueError(f"blocks={blocks} has to be 3 or more for a slope with an error")
    x, y = block_means(times, blocks=blocks), block_means(values, blocks=blocks)
    centered = x - x.mean()
    square = float((centered**2).sum())
    slope = float((centered * y).sum() / square)
    residual = y - y.mean() - slope * centered
    variance = float((residual**2).sum() / (blocks - 2))
    return Estimate(value=slope, error=float(np.sqrt(variance / square)))
