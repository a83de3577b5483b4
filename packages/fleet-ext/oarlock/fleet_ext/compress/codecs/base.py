"""What every code of a gradient can do."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from oarlock.native import codec as kernels

_ALIGNED = 8
Flats = Sequence[np.ndarray]  #: arrays of one axis


class Codec(ABC):
    """Writes an array of float32 in fewer bytes, of a number that depends on its length only.

    Codecs have no state: what a code leaves out stays in the array that was encoded, if asked for, and is sent with
    a later one (error feedback). A seed stands for the step and the array, and is the same on all ranks.
    """

    #: Whether the mean of what is decoded, over seeds, is what was encoded.
    unbiased: bool = False
    #: Whether a code says something of every element, so that a sum of decoded arrays can be encoded again.
    dense: bool = True

    @property
    @abstractmethod
    def name(self) -> str:
        """For reports."""

    @abstractmethod
    def size(self, count: int) -> int:
        """Bytes of the code of so many elements."""

    @abstractmethod
    def encode(
        self, acc: np.ndarray, code: np.ndarray, *, seed: int, rank: int, keep: bool
    ) -> None:
        """
        Args:
            acc: float32 [n]; with `keep` what was not sent is left in it, else it stays.
            code: uint8 [size(n)], overwritten.
            seed: of the step and the array, the same on all ranks.
            rank: of who encodes.
            keep: error feedback.
        """

    @abstractmethod
    def add(
        self, code: np.ndarray, out: np.ndarray, *, seed: int, rank: int, weight: float
    ) -> None:
        """Adds what is decoded, times a weight, to float32 `out` [n]; `seed` and `rank` as they were encoded."""

    def encode_sum(
        self,
        gradients: Flats,
        acc: np.ndarray,
        code: np.ndarray,
        *,
        seed: int,
        rank: int,
        keep: bool,
    ) -> None:
        """Adds gradients to `acc`, one behind the other, and encodes it; kernels do both in one pass.

        Args:
            gradients: float32 or bfloat16, of n elements in all.
        """
        begin = 0
        for one in gradients:
            kernels.accumulate(acc[begin : begin + one.size], one)
            begin += one.size
        self.encode(acc, code, seed=seed, rank=rank, keep=keep)

    def add_all(self, codes: Flats, out: np.ndarray, *, seed: int, weight: float) -> None:
        """Adds the codes of all ranks, in their order."""
        for rank, code in enumerate(codes):
            self.add(code, out, seed=seed, rank=rank, weight=weight)

    def write(self, code: np.ndarray, targets: Flats, *, seed: int, rank: int) -> None:
        """Writes what is decoded over arrays of one axis, one behind the other; NumPy's or bfloat16."""
        values = self.decode(code, sum(one.size for one in targets), seed=seed, rank=rank)
        begin = 0
        for one in targets:
            one[...] = values[begin : begin + one.size]
            begin += one.size

    def decode(self, code: np.ndarray, count: int, *, seed: int, rank: int) -> np.ndarray:
        """What is decoded, float32 [count]."""
        out = np.zeros(count, np.float32)
        self.add(code, out, seed=seed, rank=rank, weight=1.0)
        return out


def parts_size(parts: Sequence[tuple[type, int]]) -> int:
    """Bytes of arrays of these types and lengths, one behind the other."""
    return sum(_padded(np.dtype(dtype).itemsize * count) for dtype, count in parts)


def parts_of(code: np.ndarray, parts: Sequence[tuple[type, int]]) -> list[np.ndarray]:
    """Those arrays, in the memory of a code."""
    found: list[np.ndarray] = []
    begin = 0
    for dtype, count in parts:
        size = np.dtype(dtype).itemsize * count
        found.append(code[begin : begin + size].view(dtype))
        begin += _padded(size)
    return found


def _padded(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def mixed(seed: int, *others: int) -> int:
    """A seed of its own for each combination of numbers (SplitMix64's finaliser)."""
    value = seed
    for other in others:
        value = (value + 0x9E3779B97F4A7C15 * (other + 1)) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ value >> 27) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        value ^= value >> 31
    return value
