"""Weights as integers, a scale and perhaps a zero for groups of inputs: what GPTQ, AWQ and others store.

w = s (q - z) with q of 4 or 8 bits. Where groups are multiples of 32 inputs and scales are numbers of float16, this is
exactly a matrix in blocks: Q4_0 if q - z is in -8..7 (z = 8, symmetric), else Q8_0. Then the codes stay codes. Otherwise
(shuffled groups, scales that float16 does not have, groups of other sizes) the weights are spelled out in float32.

Shapes: O outputs, I inputs, G groups.
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oarlock.llm.loading.blocks import FORMATS, BlockArray, BlockFormat
from oarlock.llm.loading.stored import Stored, Values

_Q4_0, _Q8_0 = FORMATS[2], FORMATS[8]
_BLOCK = 32
_CHUNK = 1 << 22  # values whose intermediates are made at a time


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rounded:
    """A matrix of integers with scales.

    Args:
        codes: q, uint8 or int8 [O, I].
        scales: s, float32 [O, G].
        zeros: z, int16 [O, G].
        groups: the group of each input [I]; None where they lie one after the other, all of a size.
    """

    codes: NDArray[np.uint8] | NDArray[np.int8]
    scales: NDArray[np.float32]
    zeros: NDArray[np.int16]
    groups: NDArray[np.int64] | None = None

    def values(self) -> Values:
        """Coded rows where that is exact, else float32, [O, I]."""
        form = self._form()
        num_out, num_in = self.codes.shape
        step = max(1, _CHUNK // num_in)
        pieces = [slice(start, start + step) for start in range(0, num_out, step)]
        if form is None:
            floats = np.empty((num_out, num_in), np.float32)
            for rows in pieces:
                floats[rows] = self._floats(rows)
            return floats
        blocks = np.empty((num_out, num_in // _BLOCK * form.num_bytes), np.uint8)
        for rows in pieces:
            blocks[rows] = self._blocks(rows, form)
        return BlockArray(format=form, rows=blocks)

    def _form(self) -> BlockFormat | None:
        """The format of blocks that holds it exactly, if one does."""
        num_out, num_in = self.codes.shape
        G = self.scales.shape[1]
        if self.groups is not None or num_in % (G * _BLOCK):
            return None
        with np.errstate(over="ignore"):
            halves = self.scales.astype(np.float16)
        if not np.isfinite(halves).all() or not (halves == self.scales).all():
            return None
        least, most = 0, 0
        step = max(1, _CHUNK // num_in)
        for start in range(0, num_out, step):
            steps = self._steps(slice(start, start + step))
            least, most = min(least, int(steps.min())), max(most, int(steps.max()))
        if -8 <= least and most <= 7:
            return _Q4_0
        return _Q8_0 if -128 <= least and most <= 127 else None

    def _steps(self, rows: slice) -> NDArray[np.int16]:
        """q - z."""
        return self.codes[rows].astype(np.int16) - self._of_inputs(self.zeros[rows])

    def _of_inputs(self, by_group: NDArray[Any]) -> NDArray[Any]:
        """[n, G] to [n, I]."""
        if self.groups is not None:
            return by_group[:, self.groups]
        return np.repeat(by_group, self.codes.shape[1] // by_group.shape[1], axis=1)

    def _floats(self, rows: slice) -> NDArray[np.float32]:
        return self._steps(rows) * self._of_inputs(self.scales[rows])

    def _blocks(self, rows: slice, form: BlockFormat) -> NDArray[np.uint8]:
        steps = self._steps(rows)
        n, num_in = steps.shape
        blocks = steps.reshape(n, num_in // _BLOCK, _BLOCK)
        scales = np.repeat(self.scales[rows], num_in // _BLOCK // self.scales.shape[1], axis=1)
        heads = scales.astype(np.float16)[..., None].view(np.uint8)
        if form is _Q4_0:
            both = (blocks + 8).astype(np.uint8)
            content = both[..., :16] | both[..., 16:] << np.uint8(4)
        else:
            content = blocks.astype(np.int8).view(np.uint8)
        return np.concatenate([heads, content], axis=-1).reshape(n, -1)


def unpacked(words: NDArray[np.int32], bits: int) -> NDArray[np.uint8]:
    """The numbers of ``bits`` bits in int32 words, lowest first: [..., 32 / bits]."""
    parts = np.ascontiguousarray(words).astype("<i4", copy=False)[..., None].view(np.uint8)
    if bits == 8:
        return parts
    halves = np.stack([parts & np.uint8(15), parts >> np.uint8(4)], axis=-1)
    return halves.reshape(*parts.shape[:-1], 8)


def array(stored: Stored, kind: str, ndim: int) -> NDArray[Any]:
    """Values of a tensor that must be of a kind and number of dimensions.

    Raises:
        ValueError: it is not.
    """
    check(stored, kind, ndim)
    return np.asarray(stored.read())


def check(stored: Stored, kind: str, ndim: int) -> None:
    """Refuse a tensor of another kind ("float" for any) or number of dimensions."""
    fits = "float" in stored.format if kind == "float" else stored.format == kind
    if not fits or len(stored.shape) != ndim:
        raise ValueError(
            f"{stored.name} must be {kind} with {ndim} dimensions, is {stored.format} of shape {stored.shape}."
        )


def misfit(name: str, shapes: dict[str, tuple[int, ...]]) -> ValueError:
    """Of tensors whose shapes do not fit each other."""
    told = ", ".join(f"{one} {shape}" for one, shape in shapes.items())
    return ValueError(f"{name} has tensors whose shapes do not fit each other: {told}.")
