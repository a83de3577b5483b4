"""Pseudo-gradients in few bits: what a worker sends, counted in the bytes it really takes."""

import dataclasses

import numpy as np

from ... import _checks

BITS = (2, 4, 8)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """One tensor as a worker sends it: float32 as it is, or codes with a range for each row.

    Args:
        shape: of the tensor.
        bits: of a code; None for float32.
        data: float32 values, or bytes of packed codes.
        low, step: for each row, the value of code 0 and the distance of neighbours; float32.
    """

    shape: tuple[int, ...]
    bits: int | None
    data: np.ndarray
    low: np.ndarray | None = None
    step: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        """Bytes on the wire."""
        return sum(part.nbytes for part in (self.data, self.low, self.step) if part is not None)


def pack(values: np.ndarray, bits: int | None) -> Packed:
    r"""Round to the nearest of :math:`2^b` levels between the least and the largest of each row.

    A row is the last axis; vectors are one row. The error is at most half a step,
    :math:`(\max - \min) / (2 (2^b - 1))`.

    Args:
        values: float32, any shape.
        bits: 2, 4 or 8; None keeps float32.

    Source: linear row-wise quantisation of 2505.23725.
    """
    _checks.choice("bits", bits, (None, *BITS))
    shape = values.shape
    if bits is None:
        return Packed(shape=shape, bits=None, data=np.array(values, np.float32))
    rows = values.reshape([-1, shape[-1] if shape else 1])
    low, top = rows.min(axis=1, keepdims=True), rows.max(axis=1, keepdims=True)
    step = (top - low) / np.float32(2**bits - 1)
    codes = np.rint((rows - low) / np.where(step > 0, step, 1)).astype(np.uint8).ravel()
    per_byte = 8 // bits
    codes = np.append(codes, np.zeros(-len(codes) % per_byte, np.uint8)).reshape([-1, per_byte])
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    data = np.bitwise_or.reduce(codes << shifts, axis=1).astype(np.uint8)
    return Packed(shape=shape, bits=bits, data=data, low=low, step=step.astype(np.float32))


def unpack(packed: Packed) -> np.ndarray:
    """The values that the receiver sees, float32."""
    if packed.bits is None or packed.low is None or packed.step is None:
        return packed.data
    shifts = np.arange(0, 8, packed.bits, dtype=np.uint8)
    codes = (packed.data[:, None] >> shifts) & np.uint8(2**packed.bits - 1)
    count = int(np.prod(packed.shape))
    codes = codes.ravel()[:count].reshape([len(packed.low), -1])
    return (packed.low + codes.astype(np.float32) * packed.step).reshape(packed.shape)
