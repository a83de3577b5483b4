"""Weight matrices on a grid, as quantisers make them: codes of few bits, a scale for each group."""

import dataclasses
from typing import Any

import numpy as np

from ... import _checks


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """A matrix [in, out] whose elements are w = scale (code - zero).

    A group is a run of ``in / groups`` neighbouring rows with one scale and zero for each column.

    Args:
        bits: of a code, 2 to 8.
        codes: [in, out] uint8, below 2^bits.
        scale: [groups, out] float32, finite; groups divides in.
        zero: [groups, out] float32, whole numbers in 0 .. 2^bits - 1.

    Raises:
        ValueError: shapes, dtypes or values that are not so.
    """

    bits: int
    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray

    def __post_init__(self):
        top = 2 ** _checks.whole("bits", self.bits, 2) - 1
        if self.bits > 8:
            raise ValueError(f"bits must lie in 2..8, got {self.bits}.")
        if self.codes.ndim != 2 or self.codes.dtype != np.uint8:
            found = f"{self.codes.dtype} of shape {self.codes.shape}"
            raise ValueError(f"codes must be uint8 [in, out], got {found}.")
        rows, columns = self.codes.shape
        for name, part in (("scale", self.scale), ("zero", self.zero)):
            fits = part.ndim == 2 and part.shape[1] == columns and part.shape == self.scale.shape
            if not fits or len(part) == 0 or rows % len(part):
                raise ValueError(
                    f"{name} must be [groups, {columns}] with groups that divide {rows}, the same for"
                    f" scale and zero; got {part.shape}."
                )
            if not np.isfinite(part).all():
                raise ValueError(f"{name} must be finite, got NaN or infinity.")
        if self.codes.size and self.codes.max() > top:
            raise ValueError(
                f"codes of {self.bits} bits must be at most {top}, got {self.codes.max()}."
            )
        if ((self.zero != np.rint(self.zero)) | (self.zero < 0) | (self.zero > top)).any():
            raise ValueError(f"zero must be whole numbers in 0..{top}.")

    @property
    def shape(self) -> tuple[int, int]:
        """[in, out]."""
        return self.codes.shape  # type: ignore[return-value]

    @property
    def group(self) -> int:
        """Rows that share a scale."""
        return self.codes.shape[0] // len(self.scale)

    def values(self) -> np.ndarray:
        """The weights, float32 [in, out]."""
        scale, zero = (np.repeat(part, self.group, axis=0) for part in (self.scale, self.zero))
        return ((self.codes.astype(np.float32) - zero) * scale).astype(np.float32)

    def regrouped(self, group: int) -> "Codes":
        """The same matrix with smaller groups, whose scales are repeated.

        Raises:
            ValueError: ``group`` does not divide the present one.
        """
        if self.group % group:
            raise ValueError(
                f"groups of {self.group} rows cannot be cut into groups of {group}; quantise with a"
                f" multiple of {group}."
            )
        times = self.group // group
        scale, zero = (np.repeat(part, times, axis=0) for part in (self.scale, self.zero))
        return dataclasses.replace(self, scale=scale, zero=zero)

    def padded(self, rows: int, columns: int) -> "Codes":
        """With zero weights at the end of both axes, up to [rows, columns].

        Raises:
            ValueError: the new rows would begin inside a group.
        """
        more_rows, more_columns = rows - self.shape[0], columns - self.shape[1]
        one_group = len(self.scale) == 1
        if more_rows < 0 or more_columns < 0 or (more_rows % self.group and not one_group):
            raise ValueError(
                f"{self.shape} cannot be padded to {(rows, columns)} in groups of {self.group} rows."
            )
        groups = 0 if one_group else more_rows // self.group
        scale = np.pad(self.scale, ((0, groups), (0, more_columns)), constant_values=1.0)
        zero = np.pad(self.zero, ((0, groups), (0, more_columns)))
        codes = np.empty((rows, columns), np.uint8)
        group = rows // len(zero)
        codes[:] = np.repeat(zero, group, axis=0).astype(np.uint8)
        codes[: self.shape[0], : self.shape[1]] = self.codes
        return Codes(bits=self.bits, codes=codes, scale=scale, zero=zero)


Matrix = np.ndarray | Codes


def of_layer(layer: Any, name: str = "layer") -> Codes:
    """The codes of a ``QuantizedLinear``, which must be a plain one.

    Raises:
        ValueError: its inputs are scaled, rotated or rounded, or it has a low-rank residual, for which
            the formats of other libraries have no place.
    """
    extras = {
        "scaled_input": layer.spec.scaled_input,
        "hadamard_block": layer.spec.hadamard_block,
        "rank": layer.spec.rank,
        "activation_bits": layer.spec.activation_bits,
    }
    found = [f"{key}={value}" for key, value in extras.items() if value]
    if found:
        raise ValueError(
            f"{name} has {', '.join(found)}, which this format cannot hold; quantise by RTN or GPTQ"
            " alone, or export to Paddle Inference."
        )
    scale = layer.scale.astype("float32").numpy()
    zero = np.asarray(layer.zeros(), np.float32)
    return Codes(bits=layer.spec.bits, codes=layer.codes(), scale=scale, zero=zero)


def values_of(matrix: Matrix) -> np.ndarray:
    """Float32 weights of a matrix in either form."""
    return matrix.values() if isinstance(matrix, Codes) else np.asarray(matrix, np.float32)


def rounded(weight: np.ndarray, *, bits: int, group: int | None = None) -> Codes:
    """Nearest codes on grids whose code 0 is the group's weight of largest magnitude, w*.

    scale = -w* / 2^(bits-1), of either sign, and zero 2^(bits-1): the rule of ggml's Q4_0, whose
    steps are smaller than those of a grid that reaches as far to both sides. The plain form of rounding,
    for models that were not quantised before.

    Args:
        weight: [in, out], finite.
        bits: of a code, 2 to 8.
        group: rows that share a scale; None for all.

    Raises:
        ValueError: not finite, or the group does not divide the rows.
    """
    weight = np.asarray(weight, np.float32)
    rows = len(weight)
    group = rows if group is None else _checks.whole("group", group, 1)
    if rows % group:
        raise ValueError(f"group must divide the {rows} rows, got {group}.")
    if not np.isfinite(weight).all():
        raise ValueError("weight must be finite, got NaN or infinity.")
    half = 2 ** (_checks.whole("bits", bits, 2) - 1)
    grouped = weight.reshape(rows // group, group, -1)
    low, high = grouped.min(1), grouped.max(1)
    extreme = np.where(-low > high, low, high)
    tiny = np.abs(extreme) <= np.finfo(np.float32).tiny * half
    scale = np.where(tiny, np.float32(1.0), extreme / np.float32(-half))
    codes = np.rint(grouped / scale[:, None]) + half
    return Codes(
        bits=bits,
        codes=codes.clip(0, 2 * half - 1).astype(np.uint8).reshape(weight.shape),
        scale=scale.astype(np.float32),
        zero=np.full(scale.shape, half, np.float32),
    )
