"""Means of codes in place of numbers, with error feedback."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from oarlock.fleet_ext.compress.averaging import (
    Averager,
    Averaging,
    Flats,
    Layout,
    Left,
    Mean,
    Shape,
    Written,
    both_ways,
)
from oarlock.fleet_ext.compress.codecs import BFloat16, Codec
from oarlock.fleet_ext.compress.codecs.base import mixed
from oarlock.fleet_ext.compress.momentum import MomentumCorrection, check_codec
from oarlock.fleet_ext.transport import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded(Averaging):
    """Codes in place of numbers.

    Codes that say something of every element go to the owner of each slice, which adds them up and sends the sum on,
    in a code again with an error feedback of its own (1-bit Adam, 2102.02888): as few messages as a plain sum has.
    Others go to everybody, and everybody adds up.

    Args:
        codec: the code.
        error_feedback: keep what was not sent; only unbiased codes do without.
        correction: momentum of what is sent, for codes of some elements; the optimizer must have none then.
    """

    codec: Codec = field(default_factory=BFloat16)
    error_feedback: bool = True
    correction: MomentumCorrection | None = None

    def __post_init__(self) -> None:
        if not self.error_feedback and not self.codec.unbiased:
            raise ValueError(
                f"error_feedback must be on for {self.codec.name}: without it the mean is not the gradient's"
            )
        if self.correction is not None:
            check_codec(self.codec, self.error_feedback)

    @property
    def name(self) -> str:
        if self.correction is None:
            return self.codec.name
        return f"{self.codec.name} with momentum {self.correction.momentum:g}"

    @property
    def momentum(self) -> float:  # type: ignore[override]
        return 0.0 if self.correction is None else self.correction.momentum

    @property
    def rounds(self) -> int:  # type: ignore[override]
        return 2 if self.codec.dense else 1

    def start(self, shapes: Sequence[Shape], key: int, group: Group) -> Averager:
        if self.correction is not None:
            return _CorrectedAverager(self, self.correction, shapes, key, group)
        kind = _SlicedAverager if self.codec.dense else _GatheredAverager
        return kind(self, shapes, key, group)

    def traffic(self, shapes: Sequence[Shape], size: int) -> int:
        """Bytes that each of so many ranks sends for a bucket, behind a warm-up."""
        count = sum(map(prod, shapes))
        if self.codec.dense:
            return both_ways(self.codec.size(count), size)
        return (size - 1) * self.codec.size(count)


class _GatheredAverager(Averager):
    """Everybody's code to everybody."""

    def __init__(self, config: Coded, shapes: Sequence[Shape], key: int, group: Group) -> None:
        super().__init__(shapes, key)
        self._codec, self._keep = config.codec, config.error_feedback
        self._code = np.zeros(self._codec.size(self.layout.count), np.uint8)
        self._mean = np.zeros_like(self._acc)

    def average(self, group: Group, step: int, gradients: Sequence[np.ndarray | None]) -> Mean:
        seed = mixed(step, self.key)
        self.layout.add(gradients, self._acc, slice(0, self.layout.count))
        self._codec.encode(self._acc, self._code, seed=seed, rank=group.rank, keep=self._keep)
        if not self._keep:
            self._acc[...] = 0.0
        return self._shared(group, self._codec, self._code, seed)

    def _shared(self, group: Group, codec: Codec, code: np.ndarray, seed: int) -> Mean:
        codes = group.all_gather(code).wait()
        self._mean[...] = 0.0
        for rank, one in enumerate(codes):
            codec.add(one, self._mean, seed=seed, rank=rank, weight=1 / group.size)
        return Written(self.layout, self._mean)


class _CorrectedAverager(_GatheredAverager):
    """Everybody's code of velocities to everybody."""

    def __init__(
        self, config: Coded, correction: MomentumCorrection, shapes: Sequence[Shape], key: int, group: Group
    ) -> None:  # fmt: skip
        super().__init__(config, shapes, key, group)
        self._correction = correction
        self._sparse = check_codec(config.codec, config.error_feedback)
        self._velocity = np.zeros_like(self._acc)

    def average(self, group: Group, step: int, gradients: Sequence[np.ndarray | None]) -> Mean:
        seed = mixed(step, self.key)
        codec, code = self._correction.codec_at(self._sparse, step), self._code
        if codec != self._sparse:
            code = np.zeros(codec.size(self.layout.count), np.uint8)
        self._correction.advance(gradients, self._velocity, self._acc, self.layout, group.size)
        codec.encode(self._acc, code, seed=seed, rank=group.rank, keep=True)
        codec.clear(code, self._velocity, seed=seed)
        return self._shared(group, codec, code, seed)

    def left(self, group: Group) -> Left:
        return Left(self._acc.copy(), self._velocity.copy())

    def inherit(self, left: Left) -> None:
        super().inherit(left)
        self._velocity[...] = 0.0 if left.velocity is None else left.velocity

    def fade(self, share: float) -> None:
        super().fade(share)
        self._velocity *= np.float32(share)

    def state(self) -> dict[str, np.ndarray]:
        return super().state() | {"velocity": self._velocity.copy()}

    def _restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._acc[...], self._velocity[...] = state["acc"], state["velocity"]


@dataclass(frozen=True, slots=True)
class _InSlices(Mean):
    """Codes of slices, from their owners."""

    layout: Layout
    codec: Codec
    slices: Sequence[slice]
    codes: Sequence[np.ndarray]
    seed: int

    def write(self, targets: Flats) -> None:
        for rank, (part, code) in enumerate(zip(self.slices, self.codes)):
            inside = [targets[number][own] for number, own, _ in self.layout.within(part)]
            self.codec.write(code, inside, seed=self.seed, rank=rank)


class _SlicedAverager(Averager):
    """Each slice's codes to its owner, and the owner's to everybody."""

    def __init__(self, config: Coded, shapes: Sequence[Shape], key: int, group: Group) -> None:
        super().__init__(shapes, key)
        self._codec, self._keep = config.codec, config.error_feedback
        ends = [self.layout.count * rank // group.size for rank in range(group.size + 1)]
        self._slices = [slice(*one) for one in zip(ends[:-1], ends[1:])]
        sizes = [self._codec.size(one.stop - one.start) for one in self._slices]
        self._codes = [np.zeros(size, np.uint8) for size in sizes]
        self._came = [np.zeros(sizes[group.rank], np.uint8) for _ in range(group.size)]
        # Slices differ by an element, so codes do in size.
        self._sums = [np.zeros(size, np.uint8) for size in sizes]
        mine = self._slices[group.rank]
        # With what the owner did not send.
        self._sum = np.zeros(mine.stop - mine.start, np.float32)

    def average(self, group: Group, step: int, gradients: Sequence[np.ndarray | None]) -> Mean:
        seed, me = mixed(step, self.key), group.rank
        for part, code in zip(self._slices, self._codes):
            given = self.layout.spread(gradients, part)
            self._encode(given, self._acc[part], code, seed, me)
        group.all_to_all(self._codes, self._came).wait()
        again = mixed(seed, 1)
        self._codec.add_all(self._came, self._sum, seed=seed, weight=1 / group.size)
        self._encode((), self._sum, self._codes[me], again, me)
        group.all_to_all([self._codes[me]] * group.size, self._sums).wait()
        return _InSlices(self.layout, self._codec, self._slices, self._sums, again)

    def _encode(
        self, gradients: Flats, values: np.ndarray, code: np.ndarray, seed: int, rank: int
    ) -> None:
        self._codec.encode_sum(gradients, values, code, seed=seed, rank=rank, keep=self._keep)
        if not self._keep:
            values[...] = 0.0

    def left(self, group: Group) -> Left:
        unsent = self._acc.copy()
        unsent[self._slices[group.rank]] += group.size * self._sum  # which only this rank has
        return Left(unsent)

    def fade(self, share: float) -> None:
        super().fade(share)
        self._sum *= np.float32(share)

    def state(self) -> dict[str, np.ndarray]:
        return {"acc": self._acc.copy(), "sum": self._sum.copy()}

    def _restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._acc[...], self._sum[...] = state["acc"], state["sum"]
