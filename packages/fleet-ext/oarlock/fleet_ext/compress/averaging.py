"""Means of arrays over ranks, sent in codes, with error feedback.

Each array (a bucket of gradients, or the way that parameters went) has an `Averager` on every rank. What is to be
averaged is added to its accumulator; `average` writes the mean to `out`, the same bits on all ranks, and leaves in the
accumulator what was not sent, so that it is sent later: nothing is lost for good (1901.09847).
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
from oarlock.native import codec as kernels

from oarlock.fleet_ext.compress.codecs import CODECS, BFloat16, Codec, RandomK, TopK
from oarlock.fleet_ext.compress.codecs.base import mixed
from oarlock.fleet_ext.transport import Group

Shape = tuple[int, ...]


class Averager(ABC):
    """The mean of one bucket.

    Args:
        shapes: of the tensors in it, which lie flat one behind the other.
        key: which of a model's buckets it is, for seeds.
    """

    def __init__(self, shapes: Sequence[Shape], key: int) -> None:
        self.shapes, self.key = [tuple(shape) for shape in shapes], key
        sizes = [prod(shape) for shape in self.shapes]
        self.offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(int).tolist()
        self.acc = np.zeros(
            self.offsets[-1], np.float32
        )  #: what is to be averaged, and what is left
        self.out = np.zeros(self.offsets[-1], np.float32)  #: the mean

    def part(self, array: np.ndarray, index: int) -> np.ndarray:
        """One tensor's place in `acc` or `out`."""
        begin, end = self.offsets[index : index + 2]
        return array[begin:end].reshape(self.shapes[index])

    @abstractmethod
    def average(self, group: Group, step: int) -> None:
        """Writes the mean to `out`; all ranks call it in the same order.

        Args:
            step: the same on all ranks and another one each time.

        Raises:
            TransportError: a rank is missing; `acc` may have lost what it had.
        """

    def left(self, group: Group) -> np.ndarray:
        """What was not sent, for the accumulator of another averager."""
        return self.acc

    def state(self) -> dict[str, np.ndarray]:
        """What a later run needs to go on exactly, on this rank."""
        return {"acc": self.acc.copy()}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """
        Raises:
            ValueError: it is of another bucket.
        """
        mine = {name: one.shape for name, one in self.state().items()}
        given = {name: np.shape(one) for name, one in state.items()}
        if mine != given:
            raise ValueError(
                f"state must have {mine}, not {given}: is it of another model or strategy?"
            )
        self._restore(state)

    def _restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.acc[...] = state["acc"]


class Averaging(ABC):
    """How arrays are averaged; makes the averager of each bucket."""

    #: Whether averagers remember something from step to step.
    remembers: bool = True

    @property
    @abstractmethod
    def name(self) -> str:
        """For reports."""

    @abstractmethod
    def start(self, shapes: Sequence[Shape], key: int, group: Group) -> Averager:
        """The averager of a bucket."""

    @abstractmethod
    def traffic(self, shapes: Sequence[Shape], size: int) -> int:
        """Bytes that each of so many ranks sends for a bucket."""


@dataclass(frozen=True, slots=True)
class Exact(Averaging):
    """Float32, as `paddle.DataParallel` does it."""

    name = "float32"
    remembers = False

    def start(self, shapes: Sequence[Shape], key: int, group: Group) -> Averager:
        return _ExactAverager(shapes, key)

    def traffic(self, shapes: Sequence[Shape], size: int) -> int:
        return _both_ways(4 * sum(map(prod, shapes)), size)


class _ExactAverager(Averager):
    def average(self, group: Group, step: int) -> None:
        self.acc, self.out = self.out, self.acc
        self.acc[...] = 0.0
        group.all_reduce(self.out, "mean").wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded(Averaging):
    """Codes in place of numbers.

    Codes that say something of every element go to the owner of each slice, which adds them up and sends the sum on,
    in a code again with an error feedback of its own (1-bit Adam, 2102.02888): as few messages as a plain sum has.
    Others go to everybody, and everybody adds up.

    Args:
        codec: the code.
        error_feedback: keep what was not sent; only unbiased codes do without.
    """

    codec: Codec = field(default_factory=BFloat16)
    error_feedback: bool = True

    def __post_init__(self) -> None:
        if not self.error_feedback and not self.codec.unbiased:
            raise ValueError(
                f"error_feedback must be on for {self.codec.name}: without it the mean is not the gradient's"
            )

    @property
    def name(self) -> str:
        return self.codec.name

    def start(self, shapes: Sequence[Shape], key: int, group: Group) -> Averager:
        kind = _SlicedAverager if self.codec.dense else _GatheredAverager
        return kind(self, shapes, key, group)

    def traffic(self, shapes: Sequence[Shape], size: int) -> int:
        count = sum(map(prod, shapes))
        if self.codec.dense:
            return _both_ways(self.codec.size(count), size)
        return (size - 1) * self.codec.size(count)


class _GatheredAverager(Averager):
    """Everybody's code to everybody."""

    def __init__(self, config: Coded, shapes: Sequence[Shape], key: int, group: Group) -> None:
        super().__init__(shapes, key)
        self._codec, self._keep = config.codec, config.error_feedback
        self._code = np.zeros(self._codec.size(self.acc.size), np.uint8)

    def average(self, group: Group, step: int) -> None:
        seed = mixed(step, self.key)
        self._codec.encode(self.acc, self._code, seed=seed, rank=group.rank, keep=self._keep)
        if not self._keep:
            self.acc[...] = 0.0
        codes = group.all_gather(self._code).wait()
        self.out[...] = 0.0
        for rank, code in enumerate(codes):
            self._codec.add(code, self.out, seed=seed, rank=rank, weight=1 / group.size)


class _SlicedAverager(Averager):
    """Each slice's codes to its owner, and the owner's to everybody."""

    def __init__(self, config: Coded, shapes: Sequence[Shape], key: int, group: Group) -> None:
        super().__init__(shapes, key)
        self._codec, self._keep = config.codec, config.error_feedback
        ends = [self.acc.size * rank // group.size for rank in range(group.size + 1)]
        self._slices = [slice(begin, end) for begin, end in zip(ends[:-1], ends[1:])]
        self._sizes = [self._codec.size(one.stop - one.start) for one in self._slices]
        own = self._slices[group.rank]
        self._sum = np.zeros(own.stop - own.start, np.float32)  # with what the owner did not send

    def average(self, group: Group, step: int) -> None:
        seed, me = mixed(step, self.key), group.rank
        parts = [np.empty(size, np.uint8) for size in self._sizes]
        for one, code in zip(self._slices, parts):
            self._codec.encode(self.acc[one], code, seed=seed, rank=me, keep=self._keep)
        if not self._keep:
            self.acc[...] = 0.0
        came = [np.empty(self._sizes[me], np.uint8) for _ in range(group.size)]
        group.all_to_all(parts, came).wait()
        for rank, code in enumerate(came):
            self._codec.add(code, self._sum, seed=seed, rank=rank, weight=1 / group.size)
        seed = mixed(seed, 1)
        self._codec.encode(self._sum, parts[me], seed=seed, rank=me, keep=self._keep)
        if not self._keep:
            self._sum[...] = 0.0
        # Slices differ by an element, so codes do in size: everybody's own goes to all.
        codes = [np.empty(size, np.uint8) for size in self._sizes]
        group.all_to_all([parts[me]] * group.size, codes).wait()
        self.out[...] = 0.0
        for rank, (one, code) in enumerate(zip(self._slices, codes)):
            self._codec.add(code, self.out[one], seed=seed, rank=rank, weight=1.0)

    def left(self, group: Group) -> np.ndarray:
        left = self.acc.copy()
        left[self._slices[group.rank]] += group.size * self._sum  # which only this rank has
        return left

    def state(self) -> dict[str, np.ndarray]:
        return {"acc": self.acc.copy(), "sum": self._sum.copy()}

    def _restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.acc[...], self._sum[...] = state["acc"], state["sum"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRank(Averaging):
    """Products of two thin matrices, found by one step of the power method from those of the step before.

    Vectors, and matrices that are no larger than their factors, are sent as they are.

    Args:
        rank: columns of the factors.

    Source: PowerSGD, 1905.13727.
    """

    rank: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= 64:
            raise ValueError(f"rank must be from 1 to 64, not {self.rank}")

    @property
    def name(self) -> str:
        return f"rank {self.rank}"

    def start(self, shapes: Sequence[Shape], key: int, group: Group) -> Averager:
        return _LowRankAverager(self.rank, shapes, key)

    def traffic(self, shapes: Sequence[Shape], size: int) -> int:
        count = 0
        for shape in shapes:
            factors = _factors(shape, self.rank)
            count += prod(shape) if factors is None else (factors[0] + factors[1]) * factors[2]
        return _both_ways(4 * count, size)


class _LowRankAverager(Averager):
    def __init__(self, rank: int, shapes: Sequence[Shape], key: int) -> None:
        super().__init__(shapes, key)
        found = {index: _factors(shape, rank) for index, shape in enumerate(self.shapes)}
        self._thin = {index: one for index, one in found.items() if one is not None}
        self._plain = [index for index, one in found.items() if one is None]
        rng = np.random.default_rng(key)  # the same on all ranks
        self._right = {
            index: rng.standard_normal((columns, r)).astype(np.float32)
            for index, (_, columns, r) in self._thin.items()
        }

    def average(self, group: Group, step: int) -> None:
        plain = [self.part(self.acc, index).reshape(-1) for index in self._plain]
        left = [self._matrix(self.acc, index) @ self._right[index] for index in self._thin]
        *left, means = self._mean(group, left, plain)
        for (index, (rows, _, r)), one in zip(self._thin.items(), left):
            kernels.orthogonalise(one)
            self._right[index] = np.ascontiguousarray(self._matrix(self.acc, index).T @ one)
        *right, _ = self._mean(group, list(self._right.values()), [])
        self._right = dict(zip(self._thin, right))
        for index, one in zip(self._thin, left):
            np.matmul(one, self._right[index].T, out=self._matrix(self.out, index))
        begin = 0
        for index in self._plain:
            target = self.part(self.out, index).reshape(-1)
            target[...] = means[begin : begin + target.size]
            self.part(self.acc, index).reshape(-1)[...] = target  # nothing of it is left out
            begin += target.size
        self.acc -= self.out

    def _matrix(self, array: np.ndarray, index: int) -> np.ndarray:
        rows, columns, _ = self._thin[index]
        return self.part(array, index).reshape(rows, columns)

    @staticmethod
    def _mean(
        group: Group, matrices: list[np.ndarray], plain: list[np.ndarray]
    ) -> list[np.ndarray]:
        """Means of matrices, and of arrays behind each other, in one message."""
        flat = np.concatenate(
            [np.empty(0, np.float32), *(one.reshape(-1) for one in matrices), *plain]
        )
        group.all_reduce(flat, "mean").wait()
        found, begin = [], 0
        for one in matrices:
            found.append(flat[begin : begin + one.size].reshape(one.shape))
            begin += one.size
        return [*found, flat[begin:]]

    def state(self) -> dict[str, np.ndarray]:
        return {"acc": self.acc.copy()} | {
            f"right.{i}": one.copy() for i, one in self._right.items()
        }

    def _restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.acc[...] = state["acc"]
        self._right = {index: np.array(state[f"right.{index}"]) for index in self._right}


def _factors(shape: Shape, rank: int) -> tuple[int, int, int] | None:
    """Rows, columns and rank of what a tensor is written as; None where that is not smaller."""
    if len(shape) < 2:
        return None
    rows, columns = shape[0], prod(shape[1:])
    rank = min(rank, rows, columns)
    return (rows, columns, rank) if rank * (rows + columns) < rows * columns else None


def _both_ways(count: int, size: int) -> int:
    """Bytes that each rank sends where slices go to their owners and back."""
    return 2 * (size - 1) * count // size


def averaging_of(name: str) -> Averaging:
    """An averaging by its name: `float32`, `rank-4`, `top-1%`, `random-1%` (or other numbers), or a code's.

    Raises:
        ValueError: there is none of that name.
    """
    if name == "float32":
        return Exact()
    if name.startswith("rank-") and name[5:].isdigit():
        return LowRank(rank=int(name[5:]))
    share = re.fullmatch(r"(top|random)-(\d+(?:\.\d+)?)%", name)
    if share is not None:
        kind = TopK if share[1] == "top" else RandomK
        return Coded(codec=kind(density=float(share[2]) / 100))
    if name in CODECS:
        return Coded(codec=CODECS[name])
    known = [*CODECS, "rank-4, top-1% and random-1% (or other numbers)"]
    raise ValueError(f"{name!r} is no way to average: choose one of {', '.join(known)}")
