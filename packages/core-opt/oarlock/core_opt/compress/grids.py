"""Grids of a weight matrix: w is kept as scale (code - zero), with one scale for a group of rows."""

import dataclasses

import numpy as np

from .. import _checks


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Uniform grid of 2^bits values for each group of rows and each column.

    Args:
        bits: of a code, 2 to 8.
        scale: [groups, out] float32, above 0.
        zero: [groups, out] float32, whole numbers: the code of the weight 0.
        rows: of the matrix; each group has rows / groups of them.
    """

    bits: int
    scale: np.ndarray
    zero: np.ndarray
    rows: int

    @property
    def group(self) -> int:
        """Rows that share a scale."""
        return self.rows // len(self.scale)

    def of_row(self, row: int) -> "Grid":
        """The grid of one row, as a matrix of that row alone."""
        at = slice(row // self.group, row // self.group + 1)
        return Grid(bits=self.bits, scale=self.scale[at], zero=self.zero[at], rows=1)

    def codes(self, weight: np.ndarray) -> np.ndarray:
        """Nearest codes of a matrix [rows, out], uint8."""
        scale, zero = self._spread()
        codes = np.rint(weight / scale) + zero
        return np.clip(codes, 0, 2**self.bits - 1).astype(np.uint8)

    def values(self, codes: np.ndarray) -> np.ndarray:
        """Weights that the codes stand for, float32 as a quantised layer computes them."""
        scale, zero = self._spread()
        return (codes.astype(np.float32) - zero) * scale

    def round(self, weight: np.ndarray) -> np.ndarray:
        """The nearest values on the grid."""
        return self.values(self.codes(weight))

    def _spread(self) -> tuple[np.ndarray, np.ndarray]:
        if len(self.scale) == 1:
            return self.scale, self.zero
        return np.repeat(self.scale, self.group, axis=0), np.repeat(self.zero, self.group, axis=0)


def from_range(low: np.ndarray, high: np.ndarray, bits: int, symmetric: bool, rows: int) -> Grid:
    """The grid that spans a range for each group and column; 0 is always on it.

    Symmetric: scale 2 max(-low, high) / (2^bits - 1), zero 2^(bits-1). Otherwise the range is widened
    to hold 0 and divided by 2^bits - 1. A range of zero width gets the scale 1.
    """
    top = 2**bits - 1
    if symmetric:
        scale = 2 * np.maximum(-low, high) / top
    else:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        scale = (high - low) / top
    scale = np.where(scale > np.finfo(np.float32).tiny, scale, 1.0).astype(np.float32)
    if symmetric:
        zero = np.full(scale.shape, 2 ** (bits - 1), np.float32)
    else:
        zero = np.clip(np.rint(-low / scale), 0, top).astype(np.float32)
    return Grid(bits=bits, scale=scale, zero=zero, rows=rows)


def rows_of_group(rows: int, group: int | None, layer: str) -> int:
    """Rows that share a scale; ValueError if they do not divide the matrix of ``layer``."""
    if group is None:
        return rows
    if rows % group:
        near = [size for size in range(1, rows + 1) if rows % size == 0 and size <= 2 * group]
        options = ", ".join(map(str, near[-4:]))
        raise ValueError(
            f"group must divide the {rows} inputs of {layer}, got {group}; "
            f"these do: {options}; or None for one group. Leave the layer out by ignore."
        )
    return group


def check_bits(name: str, value: int) -> int:
    """Bits of a code, 2 to 8."""
    if _checks.whole(name, value, 2) > 8:
        raise ValueError(f"{name} must lie in 2..8, got {value}.")
    return value
