"""Rounding tensors to a format: codes with scales, or the values that those stand for."""

import ctypes
import dataclasses
import math
from typing import Any

import ml_dtypes
import numpy as np

from oarlock.native import threads as _threads
from oarlock.native._lowp_arguments import block_size, empty, format_options, read
from oarlock.native._optim_arguments import run
from oarlock.native._tensors import TensorList

_CODES: dict[str, Any] = {
    "fp32": np.float32,
    "bf16": ml_dtypes.bfloat16,
    "fp16": np.float16,
    "int8": np.int8,
    "int16": np.int16,
    "fp8_e4m3": np.uint8,
    "fp8_e5m2": np.uint8,
}
SCALED = ("int8", "int16", "fp8_e4m3", "fp8_e5m2")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A tensor rounded to a format, for ``matmul`` or to keep.

    A weight that several products of a step use is rounded once. A product sums along one axis, and
    scales belong to that axis: of a weight w [K, N], y = x w needs ``axis=0`` and dx = dy w^T needs
    ``axis=1``, which are two roundings.

    Attributes:
        codes: array like the tensor: int8, int16, float16, bfloat16, float32, or uint8 with the
            bits of a float8. Of a tensor on a GPU, codes and scales are tensors there.
        scales: float32 [blocks, vectors], one for each block along ``axis`` and each vector along
            it, in the order of the tensor's memory; None for formats without.
        format: one of ``matmul``'s.
        axis: the axis that a product sums along, 0 or the last one (as a number >= 0).
        block: elements along ``axis`` that share a scale; None for all of them.
    """

    codes: Any
    scales: Any
    format: str
    axis: int
    block: int | None


def quantize(
    x: Any,
    *,
    format: str,
    axis: int,
    block: int | None = None,
    rounding_seed: int | None = None,
    threads: int | None = None,
) -> Quantized:
    r"""Codes and scales of a tensor, symmetric: with :math:`q` the largest number of the format,

    .. math::
        s = \max_i |x_i| / q, \quad c_i = \mathrm{round}(x_i / s)

    over each vector along ``axis``, or each block of it. The quotient is rounded to float32 and then
    to the format, to nearest with ties to even. A vector with NaN or Inf has the scale NaN.

    Args:
        x: float32 or bfloat16, contiguous.
        format: ``"fp32"``, ``"bf16"``, ``"fp16"``, ``"int8"``, ``"int16"``, ``"fp8_e4m3"`` or
            ``"fp8_e5m2"``. The first three have no scales.
        axis: the axis that a product will sum along: 0 or the last.
        block: elements along ``axis`` that share a scale, a multiple of 32; None for all.
        rounding_seed: rounds at random, up or down such that the mean stays, by a hash of this seed
            and of the element's place (16 bits: to 2^-17 of the distance of two numbers).
        threads: number of threads; it does not change the result.

    Raises:
        ValueError: an argument is not as above.

    Source: Xi et al., Jetfire, 2403.12422 (blocks); DeepSeek-V3, 2412.19437.
    """
    options = format_options("format", format, block, rounding_seed)
    source = _Matrix("x", x, axis)
    codes = source.empty(_CODES[format])
    scales = source.scales(format, block_size(block))
    lists = [source.list, _Matrix("codes", codes, axis).list, read("scales", scales)]
    run(
        "oarlock_lowp_quantize",
        lists,
        ctypes.byref(options),
        source.along_rows,
        _threads.count(threads),
    )
    return Quantized(codes=codes, scales=scales, format=format, axis=source.axis, block=block)


def dequantize(x: Quantized, out: Any = None, *, threads: int | None = None) -> Any:
    """The values that codes stand for, code times scale.

    Args:
        x: what ``quantize`` gave.
        out: float32 of its shape, written and returned; None for a new array.
        threads: number of threads.

    Raises:
        ValueError: an argument is not as above.
    """
    if not isinstance(x, Quantized):
        raise ValueError(f"x must be what quantize returns, not {type(x).__name__}")
    options = format_options("format", x.format, x.block, None)
    source = _Matrix("x", x.codes, x.axis)
    out = source.empty(np.float32) if out is None else out
    lists = [source.list, _Matrix("out", out, x.axis).list, read("scales", x.scales)]
    run(
        "oarlock_lowp_dequantize",
        lists,
        ctypes.byref(options),
        source.along_rows,
        _threads.count(threads),
    )
    return out


def cast(
    x: Any,
    out: Any = None,
    *,
    format: str,
    axis: int | None = None,
    block: int | None = None,
    rounding_seed: int | None = None,
    threads: int | None = None,
) -> Any:
    """The values that a tensor has after rounding to a format: ``dequantize(quantize(x))`` at once.

    Args:
        x: float32 or bfloat16, contiguous.
        out: float32 of its shape in other memory, written and returned; None for a new array.
        format, block, rounding_seed: as in ``quantize``.
        axis: as in ``quantize``. None for no scales at all, which int8 and int16 need: then
            fp8_e4m3 takes 448 for what is larger and NaN for Inf, and fp8_e5m2 and fp16 take Inf
            for what rounds beyond their largest number.
        threads: number of threads; it does not change the result.

    Raises:
        ValueError: an argument is not as above.
    """
    options = format_options("format", format, block, rounding_seed)
    if axis is None and format in ("int8", "int16"):
        raise ValueError(f"axis must be given: {format} has a scale for each vector along it")
    if axis is None and block is not None:
        raise ValueError("block must be None without an axis: there are no scales then")
    along = -1 if axis is None else axis
    source = _Matrix("x", x, along)
    out = source.empty(np.float32) if out is None else out
    scales = None if axis is None else source.scales(format, block_size(block))
    lists = [source.list, _Matrix("out", out, along).list, read("scales", scales)]
    run(
        "oarlock_lowp_cast",
        lists,
        ctypes.byref(options),
        source.along_rows,
        _threads.count(threads),
    )
    return out


class _Matrix:
    """A tensor as the matrix whose rows or columns are its vectors along an axis."""

    def __init__(self, name: str, x: Any, axis: int) -> None:
        self.tensor = x
        self.list = TensorList(name, [x])
        item = self.list.items[0]
        self.shape = tuple(item.shape[: item.ndim]) or (1,)
        last = len(self.shape) - 1
        if isinstance(axis, bool) or not isinstance(axis, int) or axis not in (0, last, -1):
            raise ValueError(
                f"axis must be 0 or the last one, {last}, of {name} of shape {self.shape}, "
                f"not {axis!r}; transpose it"
            )
        self.axis = last if axis == -1 else axis
        self.along_rows = self.axis == last
        columns = math.prod(self.shape[last:] if self.along_rows else self.shape[1:])
        rows = math.prod(self.shape[:last] if self.along_rows else self.shape[:1])
        item.ndim, item.shape[0], item.shape[1] = 2, rows, columns
        self.vectors, self.length = (rows, columns) if self.along_rows else (columns, rows)

    def empty(self, dtype: Any) -> Any:
        """Memory like the tensor, of another type."""
        return empty(self.tensor, self.list, self.shape, dtype)

    def scales(self, format: str, block: int) -> Any:
        """Memory for the scales of a format."""
        if format not in SCALED:
            return None
        blocks = -(-self.length // block) if block and self.length else 1
        return empty(self.tensor, self.list, (blocks, self.vectors), np.float32)
