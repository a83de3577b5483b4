"""Codes that have a few bits for every element."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from oarlock.native import codec

from oarlock.fleet_ext.compress.codecs.base import Codec, Flats, mixed, parts_of, parts_size


@dataclass(frozen=True, slots=True)
class Float32(Codec):
    """Everything, as it is."""

    unbiased = True
    name = "float32"

    def size(self, count: int) -> int:
        return 4 * count

    def encode(
        self, acc: np.ndarray, code: np.ndarray, *, seed: int, rank: int, keep: bool
    ) -> None:
        code.view(np.float32)[...] = acc
        if keep:
            acc -= code.view(np.float32)  # 0, but NaN stays NaN

    def add(
        self, code: np.ndarray, out: np.ndarray, *, seed: int, rank: int, weight: float
    ) -> None:
        codec.accumulate(out, code.view(np.float32), scale=weight)


@dataclass(frozen=True, slots=True)
class BFloat16(Codec):
    """Half of the bytes, to nearest."""

    name = "bf16"

    def size(self, count: int) -> int:
        return 2 * count

    def encode(
        self, acc: np.ndarray, code: np.ndarray, *, seed: int, rank: int, keep: bool
    ) -> None:
        self.encode_sum((), acc, code, seed=seed, rank=rank, keep=keep)

    def encode_sum(
        self, gradients: Flats, acc: np.ndarray, code: np.ndarray, *, seed: int, rank: int, keep: bool
    ) -> None:  # fmt: skip
        codec.bf16_encode(acc, code.view(np.uint16), gradients=gradients or None, keep=keep)

    def add(
        self, code: np.ndarray, out: np.ndarray, *, seed: int, rank: int, weight: float
    ) -> None:
        self.add_all([code], out, seed=seed, weight=weight)

    def add_all(self, codes: Flats, out: np.ndarray, *, seed: int, weight: float) -> None:
        codec.bf16_add([one.view(np.uint16) for one in codes], out, weight)

    def write(self, code: np.ndarray, targets: Flats, *, seed: int, rank: int) -> None:
        codec.bf16_write(code.view(np.uint16), targets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks(Codec):
    """A few levels, with a scale for each block.

    Args:
        bits: 8, 4 or 2.
        block: elements that share a scale, a multiple of 8.
        stochastic: round up or down at random, so that the mean is right; else to nearest.

    Source: QSGD, 1610.02132.
    """

    bits: int = 8
    block: int = 256
    stochastic: bool = False

    def __post_init__(self) -> None:
        codec.blocks_sizes(1, bits=self.bits, block=self.block)  # refuses what is not possible

    @property
    def name(self) -> str:
        return f"int{self.bits}" + (" stochastic" if self.stochastic else "")

    @property
    def unbiased(self) -> bool:  # type: ignore[override]
        return self.stochastic

    def _parts(self, count: int) -> list[tuple[type, int]]:
        codes, scales = codec.blocks_sizes(count, bits=self.bits, block=self.block)
        return [(np.float32, scales), (np.uint8, codes)]

    def size(self, count: int) -> int:
        return parts_size(self._parts(count))

    def encode(
        self, acc: np.ndarray, code: np.ndarray, *, seed: int, rank: int, keep: bool
    ) -> None:
        self.encode_sum((), acc, code, seed=seed, rank=rank, keep=keep)

    def encode_sum(
        self, gradients: Flats, acc: np.ndarray, code: np.ndarray, *, seed: int, rank: int, keep: bool
    ) -> None:  # fmt: skip
        scales, codes = parts_of(code, self._parts(acc.size))
        own = mixed(seed, rank) if self.stochastic else None
        codec.blocks_encode(acc, codes, scales, bits=self.bits, block=self.block, seed=own,
                            gradients=gradients or None, keep=keep)  # fmt: skip

    def add(
        self, code: np.ndarray, out: np.ndarray, *, seed: int, rank: int, weight: float
    ) -> None:
        self.add_all([code], out, seed=seed, weight=weight)

    def add_all(self, codes: Flats, out: np.ndarray, *, seed: int, weight: float) -> None:
        scales, levels = _columns(codes, self._parts(out.size))
        codec.blocks_add(levels, scales, out, bits=self.bits, block=self.block, weight=weight)

    def write(self, code: np.ndarray, targets: Flats, *, seed: int, rank: int) -> None:
        scales, codes = parts_of(code, self._parts(sum(one.size for one in targets)))
        codec.blocks_write(codes, scales, targets, bits=self.bits, block=self.block)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs(Codec):
    """A bit for every element, and the mean magnitude of each block.

    Args:
        block: elements that share a magnitude, a multiple of 8.

    Source: EF-signSGD, 1901.09847; 1-bit Adam, 2102.02888.
    """

    block: int = 256
    name = "1-bit"

    def __post_init__(self) -> None:
        codec.signs_sizes(1, block=self.block)

    def _parts(self, count: int) -> list[tuple[type, int]]:
        bits, scales = codec.signs_sizes(count, block=self.block)
        return [(np.float32, scales), (np.uint8, bits)]

    def size(self, count: int) -> int:
        return parts_size(self._parts(count))

    def encode(
        self, acc: np.ndarray, code: np.ndarray, *, seed: int, rank: int, keep: bool
    ) -> None:
        self.encode_sum((), acc, code, seed=seed, rank=rank, keep=keep)

    def encode_sum(
        self, gradients: Flats, acc: np.ndarray, code: np.ndarray, *, seed: int, rank: int, keep: bool
    ) -> None:  # fmt: skip
        scales, bits = parts_of(code, self._parts(acc.size))
        codec.signs_encode(
            acc, bits, scales, block=self.block, gradients=gradients or None, keep=keep
        )

    def add(
        self, code: np.ndarray, out: np.ndarray, *, seed: int, rank: int, weight: float
    ) -> None:
        self.add_all([code], out, seed=seed, weight=weight)

    def add_all(self, codes: Flats, out: np.ndarray, *, seed: int, weight: float) -> None:
        scales, bits = _columns(codes, self._parts(out.size))
        codec.signs_add(bits, scales, out, block=self.block, weight=weight)

    def write(self, code: np.ndarray, targets: Flats, *, seed: int, rank: int) -> None:
        scales, bits = parts_of(code, self._parts(sum(one.size for one in targets)))
        codec.signs_write(bits, scales, targets, block=self.block)


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoLevels(Codec):
    """A sign and one of two magnitudes: the means of those above and of those below the block's mean.

    For values that were chosen for their size, of which there are few: it is NumPy's work. Where `Blocks` of 2 bits may
    leave more than was there, this cannot: means leave least.

    Args:
        block: elements that share magnitudes, a multiple of 4.

    Source: the 2 bits with a table of means that SparseLoCo's (2508.15706) values are sent in.
    """

    block: int = 512
    name = "2 bits"

    def __post_init__(self) -> None:
        if self.block < 4 or self.block % 4:
            raise ValueError(f"block must be a multiple of 4, not {self.block}")

    def _parts(self, count: int) -> list[tuple[type, int]]:
        blocks = -(-count // self.block)
        return [(np.float32, 2 * blocks), (np.uint8, blocks * self.block // 4)]

    def size(self, count: int) -> int:
        return parts_size(self._parts(count))

    def encode(
        self, acc: np.ndarray, code: np.ndarray, *, seed: int, rank: int, keep: bool
    ) -> None:
        means, packed = parts_of(code, self._parts(acc.size))
        values = np.zeros((means.size // 2, self.block), np.float32)
        values.reshape(-1)[: acc.size] = acc
        there = np.zeros(values.shape, bool)
        there.reshape(-1)[: acc.size] = True
        sizes = np.abs(values)
        large = (sizes > _mean(sizes, there)) & there
        levels = np.concatenate([_mean(sizes, there & ~large), _mean(sizes, large)], axis=1)
        means[...] = levels.reshape(-1)
        bits = np.stack([values < 0, large], axis=-1)
        packed[...] = np.packbits(bits.reshape(-1), bitorder="little")
        if keep:
            acc -= self.decode(code, acc.size, seed=seed, rank=rank)

    def add(
        self, code: np.ndarray, out: np.ndarray, *, seed: int, rank: int, weight: float
    ) -> None:
        means, packed = parts_of(code, self._parts(out.size))
        bits = np.unpackbits(packed, bitorder="little").reshape(means.size // 2, self.block, 2)
        sizes = np.where(bits[..., 1], means[1::2, None], means[::2, None])
        values = np.where(bits[..., 0], -sizes, sizes).reshape(-1)[: out.size]
        out += np.float32(weight) * values


def _columns(codes: Flats, parts: Sequence[tuple[type, int]]) -> list[list[np.ndarray]]:
    """Of each part, that of every code."""
    return [list(column) for column in zip(*(parts_of(one, parts) for one in codes))]


def _mean(sizes: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The mean of the chosen ones of each row, 0 where there are none; NaN wherever a row has one."""
    count = np.maximum(chosen.sum(axis=1, keepdims=True), 1)
    total = np.where(chosen, sizes, 0).sum(axis=1, keepdims=True, dtype=np.float64)
    broken = ~np.isfinite(sizes).all(axis=1, keepdims=True)
    return np.where(broken, np.nan, total / count).astype(np.float32)
