"""Rows of a matrix in the numbers that a file is to have.

Rounding to Q8_0 and Q4_0 is the engine's own (``oarlock.native.quant.Matrix.pack``), so that a model from such a file
is, bit by bit, the one rounded when it is read.

Shapes: N rows, C columns.
"""

import math
from typing import Any

import numpy as np
from ml_dtypes import bfloat16
from numpy.typing import NDArray
from oarlock.native import quant

from oarlock.llm.loading.blocks import FORMATS, BlockArray
from oarlock.llm.loading.stored import Values

FLOATS: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(bfloat16),
}
BLOCKS = {form.name: form for form in FORMATS.values()}
#: Formats of the engine's weights, and what files call them.
ROUNDED = {"int8": "q8_0", "int4": "q4_0"}
_ENGINE = {name: format for format, name in ROUNDED.items()}


def size(kind: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor."""
    count = math.prod(shape)
    if kind in FLOATS:
        return count * FLOATS[kind].itemsize
    return count // BLOCKS[kind].num_values * BLOCKS[kind].num_bytes


def empty(kind: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Room for a tensor: floats of its shape, or bytes of coded rows [N, bytes of a row]."""
    if kind in FLOATS:
        return np.empty(shape, FLOATS[kind])
    return np.empty((math.prod(shape[:-1]), size(kind, shape[-1:])), np.uint8)


def encode(kind: str, values: Values, *, name: str, threads: int | None = None) -> NDArray[Any]:
    """Values [N, C] or [C] as floats of the kind, or as coded rows [N, bytes of a row].

    Args:
        kind: "float32", "float16", "bfloat16", "q8_0", "q4_0", or the format that the values are coded in.
        values: floats, or coded rows.
        name: of the tensor, for messages.
        threads: that round; None for all.

    Raises:
        ValueError: a value is too large for the kind, or not finite where that is needed.
    """
    if isinstance(values, BlockArray):
        if values.format.name == kind:
            assert not values.transposed
            return values.rows
        if (values.format.name, kind) == ("q4_0", "q8_0"):
            return _widened(values.rows)
        values = values.dequantize()
    if kind in FLOATS:
        with np.errstate(over="ignore"):
            out = values.astype(FLOATS[kind])
        if kind == "float16" and np.isinf(out).any() and not np.isinf(values).any():
            largest = float(np.abs(values.astype(np.float32)).max())
            raise ValueError(
                f"{name} has numbers up to {largest:g}, but float16 ends at 65504: choose bf16 or fp32."
            )
        return out
    given = np.ascontiguousarray(values, bfloat16 if values.dtype == bfloat16 else np.float32)
    try:
        matrix = quant.Matrix.pack(given, format=_ENGINE[kind], transposed=True, threads=threads)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return blocks_of(*matrix.codes(), kind)


def keeps(before: str, after: str) -> bool:
    """Whether numbers of a kind stay exactly what they are in another kind of blocks."""
    return before == after or (before, after) == ("q4_0", "q8_0")


def _widened(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Rows of Q4_0 in Q8_0, exactly."""
    blocks = rows.reshape(len(rows), -1, 18)
    both = np.concatenate([blocks[..., 2:] & 15, blocks[..., 2:] >> 4], axis=-1).astype(np.int8)
    codes = (both - np.int8(8)).view(np.uint8)
    return np.concatenate([blocks[..., :2], codes], axis=-1).reshape(len(rows), -1)


def blocks_of(codes: NDArray[np.int8], scales: NDArray[np.float32], kind: str) -> NDArray[np.uint8]:
    """Coded rows of codes [N, C] and scales [N, C / 32], float16's exactly."""
    N, C = codes.shape
    groups = codes.reshape(N, C // quant.GROUP, quant.GROUP)
    if kind == "q4_0":
        low, high = np.split((groups + np.int8(8)).view(np.uint8), 2, axis=-1)
        content = low | high << np.uint8(4)
    else:
        content = groups.view(np.uint8)
    heads = scales.astype(np.float16)[..., None].view(np.uint8)
    return np.concatenate([heads, content], axis=-1).reshape(N, -1)
