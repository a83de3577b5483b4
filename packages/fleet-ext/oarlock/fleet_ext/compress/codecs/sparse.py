"""Codes that have some elements only."""

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from oarlock.native import codec

from oarlock.fleet_ext.compress.codecs.base import Codec, parts_of, parts_size
from oarlock.fleet_ext.compress.codecs.rounding import Float32


class Sparse(Codec):
    """Some elements, each of which is sent whole or nearly so, and nothing of the others."""

    dense = False

    @abstractmethod
    def at_least(self, density: float) -> Self:
        """The same code of at least this share of elements."""

    @abstractmethod
    def clear(self, code: np.ndarray, array: np.ndarray, *, seed: int) -> None:
        """Makes 0 the elements of a float32 array [n] that a code has; `seed` as it was encoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkTopK(Sparse):
    """The largest of each chunk, whose places take as many bits as a chunk needs.

    With `TwoLevels` for values it is what SparseLoCo sends.

    Args:
        k: how many of a chunk.
        chunk: elements, up to 65536.
        values: how the values are written; what that leaves out stays, too.

    Source: SparseLoCo, 2508.15706.
    """

    k: int = 64
    chunk: int = 4096
    values: Codec = field(default_factory=Float32)

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.chunk <= 65536:
            raise ValueError(
                f"k must be from 1 to chunk, and chunk up to 65536, not {self.k} and {self.chunk}"
            )

    @property
    def name(self) -> str:
        return f"top {self.k} of {self.chunk}, {self.values.name}"

    @property
    def _width(self) -> int:
        return max(1, (self.chunk - 1).bit_length())

    def _entries(self, count: int) -> int:
        return codec.chunk_topk_size(count, chunk=self.chunk, k=self.k)

    def _parts(self, count: int) -> list[tuple[type, int]]:
        entries = self._entries(count)
        packed = codec.packed_size(entries, self._width)
        return [(np.uint8, packed), (np.uint8, self.values.size(entries))]

    def size(self, count: int) -> int:
        return parts_size(self._parts(count))

    def encode(
        self, acc: np.ndarray, code: np.ndarray, *, seed: int, rank: int, keep: bool
    ) -> None:
        packed, value_code = parts_of(code, self._parts(acc.size))
        entries = self._entries(acc.size)
        indices, values = np.empty(entries, np.uint16), np.empty(entries, np.float32)
        codec.chunk_topk_encode(acc, indices, values, chunk=self.chunk, k=self.k, keep=keep)
        codec.pack_bits(indices, packed, self._width)
        self.values.encode(values, value_code, seed=seed, rank=rank, keep=keep)
        if keep and not isinstance(self.values, Float32):
            codec.chunk_topk_add(indices, values, acc, chunk=self.chunk, k=self.k)

    def add(
        self, code: np.ndarray, out: np.ndarray, *, seed: int, rank: int, weight: float
    ) -> None:
        packed, value_code = parts_of(code, self._parts(out.size))
        entries = self._entries(out.size)
        indices = np.empty(entries, np.uint16)
        codec.unpack_bits(packed, indices, self._width)
        values = self.values.decode(value_code, entries, seed=seed, rank=rank)
        codec.chunk_topk_add(indices, values, out, chunk=self.chunk, k=self.k, weight=weight)

    def at_least(self, density: float) -> Self:
        return replace(self, k=max(self.k, round(density * self.chunk)))

    def clear(self, code: np.ndarray, array: np.ndarray, *, seed: int) -> None:
        packed, _ = parts_of(code, self._parts(array.size))
        indices = np.empty(self._entries(array.size), np.uint16)
        codec.unpack_bits(packed, indices, self._width)
        array[np.arange(indices.size) // self.k * self.chunk + indices] = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK(Sparse):
    """The largest of all.

    Args:
        density: the share of elements that is sent.

    Source: Deep gradient compression, 1712.01887 (which estimates the threshold; here it is exact).
    """

    density: float = 0.01

    def __post_init__(self) -> None:
        _check_density(self.density)

    @property
    def name(self) -> str:
        return f"top {100 * self.density:g} %"

    def _parts(self, count: int) -> list[tuple[type, int]]:
        entries = _share(self.density, count)
        return [(np.uint32, entries), (np.float32, entries)]

    def size(self, count: int) -> int:
        return parts_size(self._parts(count))

    def encode(
        self, acc: np.ndarray, code: np.ndarray, *, seed: int, rank: int, keep: bool
    ) -> None:
        indices, values = parts_of(code, self._parts(acc.size))
        if indices.size:
            threshold = codec.kth_magnitude(acc, indices.size)
            codec.select(acc, threshold, indices, values, most=indices.size, keep=keep)

    def add(
        self, code: np.ndarray, out: np.ndarray, *, seed: int, rank: int, weight: float
    ) -> None:
        indices, values = parts_of(code, self._parts(out.size))
        if indices.size:
            codec.select_add(indices, values, out, weight)

    def at_least(self, density: float) -> Self:
        return replace(self, density=max(self.density, density))

    def clear(self, code: np.ndarray, array: np.ndarray, *, seed: int) -> None:
        indices, _ = parts_of(code, self._parts(array.size))
        array[indices] = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomK(Sparse):
    """Elements at random places, the same on all ranks, which the seed tells.

    Args:
        density: the share of elements that is sent.
        scaled: multiply so that the mean over seeds is right; for use without error feedback.
    """

    density: float = 0.01
    scaled: bool = False

    def __post_init__(self) -> None:
        _check_density(self.density)

    @property
    def name(self) -> str:
        return f"random {100 * self.density:g} %"

    @property
    def unbiased(self) -> bool:  # type: ignore[override]
        return self.scaled

    def size(self, count: int) -> int:
        return 4 * _share(self.density, count)

    def encode(
        self, acc: np.ndarray, code: np.ndarray, *, seed: int, rank: int, keep: bool
    ) -> None:
        values = code.view(np.float32)
        if values.size:
            scale = acc.size / values.size if self.scaled else 1.0
            codec.random_k(acc, values, seed=seed, scale=scale, keep=keep)

    def add(
        self, code: np.ndarray, out: np.ndarray, *, seed: int, rank: int, weight: float
    ) -> None:
        if code.size:
            codec.random_k_add(code.view(np.float32), out, seed=seed, weight=weight)

    def at_least(self, density: float) -> Self:
        return replace(self, density=max(self.density, density))

    def clear(self, code: np.ndarray, array: np.ndarray, *, seed: int) -> None:
        if code.size:
            codec.random_k(array, np.empty_like(code).view(np.float32), seed=seed, keep=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosines(Codec):
    """The largest cosines of each chunk.

    Args:
        k: how many of a chunk.
        chunk: elements, from 8 to 256.
        values: how the values are written.

    Source: DeMo, 2411.19870.
    """

    k: int = 4
    chunk: int = 64
    values: Codec = field(default_factory=Float32)
    dense = False

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.chunk or not 8 <= self.chunk <= 256:
            raise ValueError(
                f"k must be from 1 to chunk, and chunk from 8 to 256, not {self.k} and {self.chunk}"
            )

    @property
    def name(self) -> str:
        return f"{self.k} cosines of {self.chunk}, {self.values.name}"

    @property
    def _largest(self) -> ChunkTopK:
        return ChunkTopK(k=self.k, chunk=self.chunk, values=self.values)

    def size(self, count: int) -> int:
        return self._largest.size(count)

    def encode(
        self, acc: np.ndarray, code: np.ndarray, *, seed: int, rank: int, keep: bool
    ) -> None:
        waves = np.empty_like(acc)
        codec.dct(acc, waves, self.chunk)
        self._largest.encode(waves, code, seed=seed, rank=rank, keep=keep)
        if keep:
            codec.dct(waves, acc, self.chunk, inverse=True)

    def add(
        self, code: np.ndarray, out: np.ndarray, *, seed: int, rank: int, weight: float
    ) -> None:
        waves = self._largest.decode(code, out.size, seed=seed, rank=rank)
        codec.dct(waves, waves, self.chunk, inverse=True)
        codec.accumulate(out, waves, scale=weight)


def _share(density: float, count: int) -> int:
    return min(count, max(1, round(density * count))) if count else 0


def _check_density(density: float) -> None:
    if not 0 < density <= 1:
        raise ValueError(f"density must be above 0 and at most 1, not {density}")
