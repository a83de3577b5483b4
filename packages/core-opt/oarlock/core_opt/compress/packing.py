"""Codes of 2 to 8 bits packed into bytes, so that a state dict is as small as its bits.

A code is cut into fields whose widths divide a byte (3 bits are a field of 2 and one of 1); each field
is an array of its own, in which ``8 / width`` neighbouring rows share a byte, lowest bits first.
"""

import functools

import numpy as np
import paddle

#: Widths of the fields by bits of a code, lowest bits first.
FIELDS = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1), 8: (8,)}


def pack(codes: np.ndarray, bits: int) -> list[np.ndarray]:
    """Bytes of each field.

    Args:
        codes: [in, out], integers in 0 .. 2^bits - 1.
        bits: of a code, 2 to 8.

    Returns:
        One uint8 array [ceil(in width / 8), out] a field.
    """
    fields, shift = [], 0
    for width in FIELDS[bits]:
        values = (codes >> shift) & ((1 << width) - 1)
        per_byte = 8 // width
        values = np.pad(values, ((0, -len(values) % per_byte), (0, 0)))
        slots = values.reshape(-1, per_byte, codes.shape[1]).astype(np.uint8)
        shifts = (np.arange(per_byte, dtype=np.uint8) * width)[None, :, None]
        fields.append(np.bitwise_or.reduce(slots << shifts, axis=1))
        shift += width
    return fields


def unpack(fields: list[np.ndarray], bits: int, rows: int) -> np.ndarray:
    """The codes [rows, out] as uint8; undoes ``pack``."""
    codes, shift = np.zeros((rows, fields[0].shape[1]), np.uint8), 0
    for width, packed in zip(FIELDS[bits], fields):
        shifts = (np.arange(8 // width, dtype=np.uint8) * width)[None, :, None]
        values = (packed[:, None, :] >> shifts) & np.uint8((1 << width) - 1)
        codes |= (values.reshape(-1, packed.shape[1])[:rows] << shift).astype(np.uint8)
        shift += width
    return codes


def unpack_tensor(fields: list[paddle.Tensor], bits: int, rows: int) -> paddle.Tensor:
    """``unpack`` by Paddle operators, as int32."""
    parts, shift = [], 0
    for width, packed in zip(FIELDS[bits], fields):
        wide = packed.astype("int32")
        if width < 8:
            mask = paddle.full([1], (1 << width) - 1, "int32")
            slots = [
                paddle.bitwise_and(wide // (1 << width * slot), mask) for slot in range(8 // width)
            ]
            wide = paddle.stack(slots, axis=1).reshape([-1, packed.shape[1]])[:rows]
        parts.append(wide * (1 << shift))
        shift += width
    return functools.reduce(paddle.add, parts)
