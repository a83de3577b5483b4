"""Matrices whose rows are coded in blocks, in the formats of GGUF files.

A block stands for 32 or 256 neighbours of a row: a scale d (and a least value m), and 4 to 8 bits each.

- Q8_0: x = d q, q in -128..127. Q4_0, Q5_0: x = d (q - 8), d (q - 16). Q4_1, Q5_1: x = d q + m
- Q4_K, Q5_K: 8 groups of 32 in 256: x = d s q - m t, with s, t of 6 bits a group
- Q6_K: 16 groups of 16 in 256: x = d s (q - 32), with s of 8 bits a group

Source: github.com/ggml-org/ggml, ``ggml-common.h`` (layouts), and the package ``gguf``, to which the
tests compare.

Shapes: N rows, C columns, B blocks.
"""

import dataclasses
from collections.abc import Callable
from typing import Self

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BlockFormat:
    """Size of a block, and what its bytes [B, num_bytes] mean, [B, num_values]."""

    name: str
    num_values: int
    num_bytes: int
    decode: Callable[[Bytes], Floats]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BlockArray:
    """A matrix coded row by row.

    Args:
        format: of its blocks.
        rows: uint8 [N, bytes of a row]; often a view of a file that is mapped into memory.
        transposed: the matrix meant is that of the rows, transposed. The weights of a product
            ``x @ w`` are [in, out] in our models and have a coded row for each output.
    """

    format: BlockFormat
    rows: Bytes
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Of the matrix meant."""
        num_rows, num_bytes = self.rows.shape
        columns = num_bytes // self.format.num_bytes * self.format.num_values
        return (columns, num_rows) if self.transposed else (num_rows, columns)

    @property
    def nbytes(self) -> int:
        """Bytes of the code."""
        return self.rows.nbytes

    @property
    def T(self) -> Self:
        """The transposed matrix, of the same rows."""
        return dataclasses.replace(self, transposed=not self.transposed)

    def take(self, rows: slice | NDArray[np.intp]) -> Self:
        """The matrix of some coded rows (columns, if transposed)."""
        return dataclasses.replace(self, rows=self.rows[rows])

    def dequantize(self) -> Floats:
        """Values, float32, of ``shape``."""
        num_rows = len(self.rows)
        blocks = np.ascontiguousarray(self.rows).reshape(-1, self.format.num_bytes)
        values = np.empty([len(blocks), self.format.num_values], np.float32)
        step = (1 << 20) // self.format.num_values  # intermediates of some MB
        for start in range(0, len(blocks), step):
            values[start : start + step] = self.format.decode(blocks[start : start + step])
        values = values.reshape(num_rows, -1)
        return values.T if self.transposed else values


def _half(blocks: Bytes, at: int) -> Floats:
    """The float16 at byte ``at`` of each block, [B, 1]."""
    return blocks[:, at : at + 2].copy().view("<f2").astype(np.float32)


def _nibbles(bytes_BN: Bytes) -> NDArray[np.uint8]:
    """Low halves of all bytes, then the high halves, [B, 2N]."""
    return np.concatenate([bytes_BN & 15, bytes_BN >> 4], 1)


def _fifth_bits(bytes_B4: Bytes) -> NDArray[np.uint8]:
    """32 bits as values 0 or 16."""
    return np.unpackbits(bytes_B4, axis=1, bitorder="little") * np.uint8(16)


def _q8_0(blocks: Bytes) -> Floats:
    return _half(blocks, 0) * blocks[:, 2:].view(np.int8)


def _q4_0(blocks: Bytes) -> Floats:
    return _half(blocks, 0) * (_nibbles(blocks[:, 2:]).astype(np.int8) - 8)


def _q4_1(blocks: Bytes) -> Floats:
    return _half(blocks, 0) * _nibbles(blocks[:, 4:]) + _half(blocks, 2)


def _q5_0(blocks: Bytes) -> Floats:
    values = _nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6])
    return _half(blocks, 0) * (values.astype(np.int8) - 16)


def _q5_1(blocks: Bytes) -> Floats:
    values = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8])
    return _half(blocks, 0) * values + _half(blocks, 2)


def _scales_K(blocks: Bytes) -> tuple[Floats, Floats]:
    """d s and m t of the 8 groups, each [B, 8, 1]; 6-bit numbers in the 12 bytes from the fourth."""
    low_s, low_t, rest = (blocks[:, at : at + 4] for at in (4, 8, 12))
    s = np.concatenate([low_s & 63, (rest & 15) | (low_s >> 6 << 4)], 1)
    t = np.concatenate([low_t & 63, (rest >> 4) | (low_t >> 6 << 4)], 1)
    return (_half(blocks, 0) * s)[:, :, None], (_half(blocks, 2) * t)[:, :, None]


def _nibbles_of_pairs(bytes_B128: Bytes) -> NDArray[np.uint8]:
    """Groups 2i and 2i+1 are the low and the high halves of 32 bytes, [B, 8, 32]."""
    pairs = bytes_B128.reshape(-1, 4, 1, 32)
    return np.concatenate([pairs & 15, pairs >> 4], 2).reshape(-1, 8, 32)


def _q4_k(blocks: Bytes) -> Floats:
    scales, least = _scales_K(blocks)
    return (scales * _nibbles_of_pairs(blocks[:, 16:]) - least).reshape(-1, 256)


def _q5_k(blocks: Bytes) -> Floats:
    scales, least = _scales_K(blocks)
    # bit g of byte i is the fifth bit of value i of group g
    bits = np.unpackbits(blocks[:, 16:48, None], axis=2, bitorder="little").transpose(0, 2, 1)
    values = _nibbles_of_pairs(blocks[:, 48:]) | (bits << 4)
    return (scales * values - least).reshape(-1, 256)


def _q6_k(blocks: Bytes) -> Floats:
    # two halves of 128 values: four times 32, whose low bits lie in the low halves of bytes 0..31
    # and 32..63, then the high halves; the high bits two by two in 32 bytes
    low = blocks[:, :128].reshape(-1, 2, 1, 64)
    low = np.concatenate([low & 15, low >> 4], 2).reshape(-1, 2, 4, 32)
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([[0], [2], [4], [6]], np.uint8)
    values = (low | (high & 3) << 4).astype(np.int8) - 32
    scales = _half(blocks, 208) * blocks[:, 192:208].view(np.int8)
    return (scales[:, :, None] * values.reshape(-1, 16, 16)).reshape(-1, 256)


FORMATS = {
    kind: BlockFormat(name=name, num_values=values, num_bytes=size, decode=decode)
    for kind, name, values, size, decode in (
        (2, "q4_0", 32, 18, _q4_0),
        (3, "q4_1", 32, 20, _q4_1),
        (6, "q5_0", 32, 22, _q5_0),
        (7, "q5_1", 32, 24, _q5_1),
        (8, "q8_0", 32, 34, _q8_0),
        (12, "q4_k", 256, 144, _q4_k),
        (13, "q5_k", 256, 176, _q5_k),
        (14, "q6_k", 256, 210, _q6_k),
    )
}
"""Block formats by their number in GGUF files."""
