"""Where tensors lie: slices of ranks, and who writes what of them."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Self

import ml_dtypes
import numpy as np

from oarlock.fleet_ext.checkpoints.agreement import Mismatch
from oarlock.fleet_ext.transport.arrays import view_of

#: Types of tensors, and what safetensors calls them. Its NumPy reader has no float8: these are stored as their bytes.
CODES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
    "complex64": "C64", "float8_e4m3fn": "U8", "float8_e5m2": "U8",
}  # fmt: skip
DTYPES = {name: np.dtype(getattr(ml_dtypes, name, None) or name) for name in CODES}
SPLIT_BYTES = 1 << 16  #: smaller slices are written by one rank


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """A slice of a tensor: where it begins, and its shape."""

    offsets: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Self:
        return cls((0,) * len(shape), tuple(shape))

    @property
    def volume(self) -> int:
        return prod(self.shape)

    def slices(self, within: "Box") -> tuple[slice, ...]:
        """Its place in an array that holds `within`."""
        starts = [own - other for own, other in zip(self.offsets, within.offsets)]
        return tuple(slice(start, start + length) for start, length in zip(starts, self.shape))

    def view(self, array: np.ndarray, within: "Box") -> np.ndarray:
        """It, of an array that holds `within`."""
        index: Any = (*self.slices(within), ...)
        return array[index]

    def meet(self, other: "Box") -> "Box | None":
        """What both have; None where that is nothing."""
        starts = tuple(map(max, self.offsets, other.offsets))
        ends = map(min, self._ends(), other._ends())
        shape = tuple(end - start for start, end in zip(starts, ends))
        return Box(starts, shape) if all(length > 0 for length in shape) else None

    def cut(self, count: int) -> "list[Box]":
        """So many boxes side by side, about equal: of rows if there are enough, else along the longest axis."""
        if not self.shape:
            return [self]
        longest = max(range(len(self.shape)), key=lambda one: self.shape[one])
        axis = 0 if self.shape[0] >= count else longest
        length, found = self.shape[axis], []
        for index in range(count):
            start, end = length * index // count, length * (index + 1) // count
            offsets = (*self.offsets[:axis], self.offsets[axis] + start, *self.offsets[axis + 1 :])
            found.append(Box(offsets, (*self.shape[:axis], end - start, *self.shape[axis + 1 :])))
        return found

    def __str__(self) -> str:
        spans = (f"{start}:{end}" for start, end in zip(self.offsets, self._ends()))
        return f"[{', '.join(spans)}]"

    def _ends(self) -> tuple[int, ...]:
        return tuple(start + length for start, length in zip(self.offsets, self.shape))


@dataclass(frozen=True, slots=True)
class Sharded:
    """What this rank has of a tensor: a slice of it. Ranks with the same slice are replicas, of which one is written.

    Args:
        local: a NumPy array or a Paddle tensor on the CPU.
        global_shape: of the whole; None where `local` is the whole, and not all ranks have it (as with stages of a pipeline).
        offsets: of the slice, in elements of each axis; None for zeros.
    """

    local: Any
    global_shape: Sequence[int] | None = None
    offsets: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Local:
    """A tensor of this rank: its memory, and the part that it is of the whole.

    Args:
        everywhere: whether all ranks have the same, as they do with what is no `Sharded`.
    """

    array: np.ndarray
    box: Box
    shape: tuple[int, ...]
    everywhere: bool

    def describe(self) -> list[Any]:
        parts = [] if self.everywhere else [list(self.box.offsets), list(self.box.shape)]
        return [self.array.dtype.name, list(self.shape), *parts]


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of a checkpoint.

    Args:
        pieces: which rank's file has which part; they fill the tensor, and do not overlap.
    """

    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[tuple[int, Box], ...]


def local_of(name: str, given: Any) -> Local:
    """
    Raises:
        ValueError: it is no tensor, it cannot be stored, or it does not lie in the whole.
    """
    if not isinstance(name, str) or name == "__metadata__":
        raise ValueError(f"{name!r} cannot be the name of a tensor")
    inner = given.local if isinstance(given, Sharded) else given
    array = inner if isinstance(inner, np.ndarray) else view_of(inner, f"tensor {name!r}")
    if array.dtype.name not in CODES or not array.dtype.isnative:
        raise ValueError(
            f"tensor {name!r} is {array.dtype.str if array.dtype.name in CODES else array.dtype}:"
            f" what can be stored is {', '.join(CODES)}, in this machine's order of bytes"
        )
    if not isinstance(given, Sharded):
        return Local(array, Box.whole(array.shape), array.shape, True)
    shape = array.shape if given.global_shape is None else tuple(map(int, given.global_shape))
    offsets = (0,) * len(shape) if given.offsets is None else tuple(map(int, given.offsets))
    fits = len(shape) == len(offsets) == array.ndim and all(
        0 <= start and start + length <= whole
        for start, length, whole in zip(offsets, array.shape, shape)
    )
    if not fits:
        raise ValueError(
            f"tensor {name!r}: a slice of shape {array.shape} at offsets {offsets} does not lie in {shape}"
        )
    return Local(array, Box(offsets, array.shape), shape, False)


def locals_of(state: Mapping[str, Any]) -> dict[str, Local]:
    """
    Raises:
        ValueError: of a tensor, which the message names.
    """
    return {name: local_of(name, given) for name, given in state.items()}


def shares(name: str, box: Box, dtype: str, holders: Sequence[int]) -> list[tuple[int, Box]]:
    """Which of the ranks that have a slice writes which part: about the same bytes each."""
    if box.volume == 0:
        return []
    if len(holders) == 1 or box.volume * DTYPES[dtype].itemsize < SPLIT_BYTES:
        return [(holders[zlib.crc32(name.encode()) % len(holders)], box)]
    return [(holder, part) for holder, part in zip(holders, box.cut(len(holders))) if part.volume]


def plan(descriptions: Sequence[Mapping[str, Sequence[Any]]]) -> dict[str, Stored]:
    """What the files of all ranks have, by what their tensors are; the same on each rank.

    Args:
        descriptions: of each rank, `Local.describe` of its tensors by name.

    Raises:
        Mismatch: ranks say different things of a tensor, or their slices do not make up the whole.
    """
    names = dict.fromkeys(name for one in descriptions for name in one)
    return {name: _planned(name, [one.get(name) for one in descriptions]) for name in names}


def _planned(name: str, told: Sequence[Sequence[Any] | None]) -> Stored:
    there = [(rank, one) for rank, one in enumerate(told) if one is not None]
    first, (dtype, given, *_) = there[0]
    shape = tuple(given)
    for rank, one in there:
        if (one[0], tuple(one[1])) != (dtype, shape):
            raise Mismatch(
                f"tensor {name!r} is {dtype} {shape} on rank {first}, and {one[0]} {tuple(one[1])} on rank {rank}"
            )
    whole = [rank for rank, one in there if len(one) == 2]
    if whole and len(whole) < len(told):
        others = [rank for rank in range(len(told)) if rank not in whole]
        raise Mismatch(
            f"tensor {name!r} is the same on all ranks for ranks {whole}, but ranks {others} have none or a slice: pass"
            " Sharded on each rank that has it"
        )
    holders: dict[Box, list[int]] = {}
    for rank, one in there:
        box = Box.whole(shape) if len(one) == 2 else Box(tuple(one[2]), tuple(one[3]))
        holders.setdefault(box, []).append(rank)
    boxes = sorted(box for box in holders if box.volume)
    for index, box in enumerate(boxes):
        for other in boxes[index + 1 :]:
            if box.shape and other.offsets[0] >= box.offsets[0] + box.shape[0]:
                break  # sorted by where they begin: none of the rest can meet it
            if box.meet(other):
                raise Mismatch(
                    f"tensor {name!r}: slices {box} of ranks {holders[box]} and {other} of ranks {holders[other]} overlap"
                )
    filled = sum(box.volume for box in boxes)
    if filled != prod(shape):
        raise Mismatch(
            f"tensor {name!r} of shape {shape} is not whole: ranks have {filled} of {prod(shape)} elements,"
            f" {', '.join(map(str, boxes[:8]))}"
        )
    pieces = [part for box in boxes for part in shares(name, box, dtype, holders[box])]
    return Stored(dtype, shape, tuple(pieces))
