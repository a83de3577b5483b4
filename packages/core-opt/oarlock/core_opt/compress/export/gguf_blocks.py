"""Blocks of 32 weights of ggml, packed from codes that a quantiser has chosen.

Q4_0: w = d (q - 8), Q4_1: w = d q + m, Q8_0: w = d q with q in -128 .. 127; d and m are float16. A block
lies along the inputs of a matrix, whose rows in ggml are outputs. Rounding floats to the same blocks is
left to the package ``gguf``.

Source: ggml, ``ggml-quants.c``.
"""

import numpy as np
from gguf.constants import GGMLQuantizationType as Type

from .codes import Codes

BLOCK = 32


def kind(matrix: Codes, name: str = "the matrix") -> Type:
    """The type of blocks that keeps the codes exactly.

    Up to 4 bits no farther than 8 below and 7 above zero become Q4_0, others Q4_1, more bits Q8_0.

    Raises:
        ValueError: the groups are no multiples of 32, or codes lie too far from zero; names the matrix.
    """
    if matrix.shape[0] % BLOCK or matrix.group % BLOCK:
        raise ValueError(
            f"{name}: GGUF needs groups of a multiple of {BLOCK} inputs, got {matrix.shape[0]} inputs in"
            f" groups of {matrix.group}. LlamaWeights.padded({BLOCK}) widens a feed-forward part."
        )
    grouped = matrix.codes.reshape(len(matrix.scale), -1, matrix.shape[1])
    lowest = int((grouped.min(1) - matrix.zero).min())
    highest = int((grouped.max(1) - matrix.zero).max())
    if matrix.bits > 4:
        if lowest < -128 or highest > 127:
            raise ValueError(
                f"{name}: Q8_0 holds codes from 128 below to 127 above zero, got {lowest} to {highest};"
                " quantise symmetrically."
            )
        return Type.Q8_0
    return Type.Q4_0 if lowest >= -8 and highest <= 7 else Type.Q4_1


def packed(matrix: Codes, name: str = "the matrix") -> np.ndarray:
    """The bytes [out, in / 32 * bytes of a block] of a matrix [in, out], of type ``kind(matrix)``.

    Codes are kept exactly; scales are rounded to float16, and so are the offsets of Q4_1.

    Args:
        matrix: with groups that are multiples of 32 rows.
        name: for messages.

    Raises:
        ValueError: as ``kind``; or a scale is beyond float16.
    """
    of = kind(matrix, name)
    matrix = matrix.regrouped(BLOCK)
    groups, columns = matrix.scale.shape
    scale = _float16(matrix.scale, f"{name}: scale")
    codes = matrix.codes.reshape(groups, BLOCK, columns).transpose(2, 0, 1)  # [out, groups, 32]
    if of == Type.Q4_1:
        lowest = _float16(-matrix.zero * matrix.scale, f"{name}: lowest value")
        return _joined([scale, lowest], _nibbles(codes))
    steps = codes.astype(np.int16) - matrix.zero.T[..., None].astype(np.int16)
    if of == Type.Q8_0:
        return _joined([scale], steps.astype(np.int8).view(np.uint8))
    return _joined([scale], _nibbles(steps + 8))


def _float16(values: np.ndarray, what: str) -> np.ndarray:
    """Values [groups, out] as the bytes [out, groups, 2] of float16."""
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise ValueError(f"{what} of {np.abs(values).max():g} is above 65504, the most of float16.")
    return np.ascontiguousarray(half.T)[..., None].view(np.uint8)


def _nibbles(steps: np.ndarray) -> np.ndarray:
    """Sixteen bytes a block: elements 0..15 in the low halves, 16..31 in the high ones."""
    low, high = steps[..., : BLOCK // 2].astype(np.uint8), steps[..., BLOCK // 2 :].astype(np.uint8)
    return low | (high << np.uint8(4))


def _joined(heads: list[np.ndarray], steps: np.ndarray) -> np.ndarray:
    whole = np.concatenate([*heads, steps], axis=-1)
    return whole.reshape(len(whole), -1)
