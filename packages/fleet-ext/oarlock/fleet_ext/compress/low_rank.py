"""Matrices as products of two thin ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import ml_dtypes
import numpy as np
from oarlock.native import codec as kernels

from oarlock.fleet_ext.compress.averaging import (
    Averager,
    Averaging,
    Flats,
    Left,
    Mean,
    Shape,
    both_ways,
)
from oarlock.fleet_ext.compress.coded import Coded
from oarlock.fleet_ext.compress.codecs import Blocks
from oarlock.fleet_ext.transport import Group

_KINDS = {32: "", 16: ", bf16", 8: ", int8"}  #: of factors' numbers, by their bits
#: Needs no error feedback of its own, since what it leaves is in the product's.
_CODED = Coded(codec=Blocks(bits=8, stochastic=True), error_feedback=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRank(Averaging):
    """Products of two thin matrices, found by one step of the power method from those of the step before.

    Vectors, and matrices that are no larger than their factors, are sent as they are.

    Args:
        rank: columns of the factors.
        bits: of each number of the factors on their way: 32, 16 (bfloat16), or 8 (blocks of a column with a scale each,
            rounded at random). Directions need no more digits, and what rounding leaves of a product is sent later like
            the rest.

    Source: PowerSGD, 1905.13727.
    """

    rank: int = 4
    bits: int = 32
    rounds = 6  # two for left factors, two for right ones, and two for what is sent as it is

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= 64:
            raise ValueError(f"rank must be from 1 to 64, not {self.rank}")
        if self.bits not in _KINDS:
            raise ValueError(f"bits must be 32, 16 or 8, not {self.bits}")

    @property
    def name(self) -> str:
        return f"rank {self.rank}{_KINDS[self.bits]}"

    def start(self, shapes: Sequence[Shape], key: int, group: Group) -> Averager:
        return _LowRankAverager(self, shapes, key, group)

    def traffic(self, shapes: Sequence[Shape], size: int) -> int:
        left = right = plain = 0
        for shape in shapes:
            if (factors := _factors(shape, self.rank)) is None:
                plain += prod(shape)
            else:
                rows, columns, rank = factors
                left, right = left + rows * rank, right + columns * rank
        if self.bits == 8:
            thin = sum(_CODED.traffic([(count,)], size) for count in (left, right))
        else:
            thin = both_ways(self.bits // 8 * (left + right), size)
        return thin + both_ways(4 * plain, size)


@dataclass(frozen=True, slots=True)
class _Products(Mean):
    """Factors of the matrices, and everything else as it is."""

    factors: Mapping[int, tuple[np.ndarray, np.ndarray]]
    plain: Mapping[int, np.ndarray]

    def write(self, targets: Flats) -> None:
        for number, (left, right) in self.factors.items():
            target = targets[number]
            whole = target if target.dtype == np.float32 else np.empty(target.size, np.float32)
            kernels.low_rank_product(left, right, whole.reshape(len(left), len(right)))
            if whole is not target:
                target[...] = whole
        for number, values in self.plain.items():
            targets[number][...] = values


class _LowRankAverager(Averager):
    """What was sent stays in the accumulator until the next step, which takes it out in the pass that adds a gradient."""

    def __init__(self, config: LowRank, shapes: Sequence[Shape], key: int, group: Group) -> None:
        super().__init__(shapes, key)
        self._dtype = np.dtype(ml_dtypes.bfloat16 if config.bits == 16 else np.float32)
        found = {
            number: _factors(shape, config.rank) for number, shape in enumerate(self.layout.shapes)
        }
        self._thin = {number: one for number, one in found.items() if one is not None}
        self._plain = [number for number, one in found.items() if one is None]
        rng = np.random.default_rng(key)  # the same on all ranks
        self._right = {
            number: rng.standard_normal((columns, r)).astype(np.float32)
            for number, (_, columns, r) in self._thin.items()
        }
        self._coded: list[Averager] = []  #: of left factors, and of right ones
        if config.bits == 8 and self._thin:
            rows, columns = (
                sum(one[axis] * one[2] for one in self._thin.values()) for axis in (0, 1)
            )
            self._coded = [
                _CODED.start([(count,)], 2 * key + side, group)
                for side, count in enumerate((rows, columns))
            ]
        self._sent: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        flat = self.layout.split(self._acc)
        self._rest = {number: flat[number] for number in self._plain}
        self._matrices = {
            number: flat[number].reshape(rows, columns)
            for number, (rows, columns, _) in self._thin.items()
        }

    def average(self, group: Group, step: int, gradients: Sequence[np.ndarray | None]) -> Mean:
        left = {
            number: np.empty((rows, r), np.float32) for number, (rows, _, r) in self._thin.items()
        }
        for number, matrix in self._matrices.items():
            sent, away = self._sent.pop(number, (None, None))
            gradient = gradients[number]
            if gradient is not None and gradient.dtype != np.float32:
                gradient = gradient.astype(np.float32)
            kernels.low_rank_take(
                matrix, left[number], self._right[number], gradient=gradient, left=sent, right=away
            )
        plain = []
        for number, rest in self._rest.items():
            self.layout.add(gradients, self._acc, self.layout.parts[number])
            plain.append(rest.copy())
            rest[...] = 0.0  # nothing of it is left out
        exact = self._start(group, plain, np.dtype(np.float32))
        thin = self._means(group, step, list(left.values()), 0)
        for number, one in zip(left, thin):
            kernels.orthogonalise(one)
            kernels.low_rank_back(self._matrices[number], one, self._right[number])
        right = self._means(group, step, list(self._right.values()), 1)
        self._right = dict(zip(self._right, right))
        self._sent = dict(zip(left, zip(thin, right)))
        return _Products(dict(self._sent), dict(zip(self._plain, exact())))

    def _means(
        self, group: Group, step: int, factors: Sequence[np.ndarray], side: int
    ) -> list[np.ndarray]:
        if not self._coded:
            return self._start(group, factors, self._dtype)()
        # Columns differ in size: transposed, so that they have scales of their own.
        flat = np.concatenate([one.T.reshape(-1) for one in factors])
        mean = self._coded[side].averaged(group, step, flat)
        parts = np.split(mean, np.cumsum([one.size for one in factors])[:-1])
        return [part.reshape(one.T.shape).T.copy() for part, one in zip(parts, factors)]

    @staticmethod
    def _start(
        group: Group, arrays: Sequence[np.ndarray], dtype: np.dtype
    ) -> Callable[[], list[np.ndarray]]:
        """Sends arrays behind each other in one message; what it returns waits for their means, in float32."""
        flat = np.concatenate(
            [np.empty(0, dtype), *(one.reshape(-1).astype(dtype) for one in arrays)]
        )
        handle = group.all_reduce(flat, "mean") if flat.size else None

        def means() -> list[np.ndarray]:
            if handle is not None:
                handle.wait()
            ends = np.cumsum([one.size for one in arrays])[:-1]
            wide = flat.astype(np.float32, copy=False)
            return [part.reshape(one.shape) for part, one in zip(np.split(wide, ends), arrays)]

        return means

    def _settle(self) -> None:
        """Takes out what was sent."""
        for number, (left, right) in self._sent.items():
            kernels.low_rank_take(self._matrices[number], left=left, right=right)
        self._sent.clear()

    def left(self, group: Group) -> Left:
        self._settle()
        return super().left(group)

    def inherit(self, left: Left) -> None:
        self._sent.clear()
        super().inherit(left)

    def fade(self, share: float) -> None:
        self._settle()
        super().fade(share)

    def state(self) -> dict[str, np.ndarray]:
        self._settle()
        return super().state() | {f"right.{i}": one.copy() for i, one in self._right.items()}

    def _restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.inherit(Left(state["acc"]))
        self._right = {number: np.array(state[f"right.{number}"]) for number in self._right}


def _factors(shape: Shape, rank: int) -> tuple[int, int, int] | None:
    """Rows, columns and rank of what a tensor is written as; None where that is not smaller."""
    if len(shape) < 2:
        return None
    rows, columns = shape[0], prod(shape[1:])
    rank = min(rank, rows, columns)
    return (rows, columns, rank) if rank * (rows + columns) < rows * columns else None
