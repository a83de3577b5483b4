"""Means of arrays over ranks, sent in codes, with error feedback.

Each array (a bucket of gradients, or the way that parameters went) has an `Averager` on every rank. `average` adds gradients
to what earlier steps did not send, and gives a mean that has the same bits on all ranks; what was not sent now stays, and
is sent later: nothing is lost for good (1901.09847).

Each pass over a large array takes time from a processor that trains. So gradients are read where Paddle has them, slice by
slice, each of which is added and coded while it is in the cache; and a mean stays a code until it is written over the
gradients.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import ml_dtypes
import numpy as np
from oarlock.native import codec as kernels

from oarlock.fleet_ext.compress.codecs import CODECS, BFloat16, Codec, RandomK, TopK
from oarlock.fleet_ext.compress.codecs.base import mixed
from oarlock.fleet_ext.transport import Group

Shape = tuple[int, ...]
Flats = Sequence[np.ndarray]  #: an array of one axis for each tensor of a bucket
_PIECE = 1 << 18  #: elements, of which a few arrays find room in a core's cache
_ADDED = (np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16))  #: by a kernel


class Layout:
    """Tensors that lie flat one behind the other.

    Args:
        shapes: of the tensors.
    """

    def __init__(self, shapes: Sequence[Shape]) -> None:
        self.shapes = [tuple(shape) for shape in shapes]
        ends = np.cumsum([0, *map(prod, self.shapes)]).astype(int).tolist()
        self.parts = [slice(begin, end) for begin, end in zip(ends[:-1], ends[1:])]
        self.count: int = ends[-1]

    def split(self, flat: np.ndarray) -> list[np.ndarray]:
        """The place of each tensor, flat."""
        return [flat[part] for part in self.parts]

    def within(self, span: slice) -> list[tuple[int, slice, slice]]:
        """What a span holds: the number of each tensor, its elements that are in the span, and where these are."""
        found = []
        for number, part in enumerate(self.parts):
            begin, end = max(part.start, span.start), min(part.stop, span.stop)
            if begin < end:
                inside = slice(begin - part.start, end - part.start)
                found.append((number, inside, slice(begin, end)))
        return found

    def add(self, gradients: Sequence[np.ndarray | None], flat: np.ndarray, span: slice) -> None:
        """Adds a span of the tensors; None counts as 0."""
        for number, inside, place in self.within(span):
            gradient = gradients[number]
            if gradient is None:
                continue
            if gradient.dtype in _ADDED:
                kernels.accumulate(flat[place], gradient[inside])
            else:
                flat[place] += gradient[inside]

    def write(self, values: np.ndarray, span: slice, targets: Flats) -> None:
        """Writes values of a span to the tensors."""
        for number, inside, place in self.within(span):
            targets[number][inside] = values[place.start - span.start : place.stop - span.start]


class Mean(ABC):
    """What `Averager.average` found; until the next call of it."""

    @abstractmethod
    def write(self, targets: Flats) -> None:
        """Writes the mean, also over the gradients that it is of.

        Args:
            targets: of one axis, one for each tensor.
        """


@dataclass(frozen=True, slots=True)
class _Written(Mean):
    """A mean that is there as numbers."""

    layout: Layout
    flat: np.ndarray

    def write(self, targets: Flats) -> None:
        self.layout.write(self.flat, slice(0, self.layout.count), targets)


class Averager(ABC):
    """Means of one bucket, step by step.

    Args:
        shapes: of the tensors in it, which lie flat one behind the other.
        key: which of a model's buckets it is, for seeds.
    """

    def __init__(self, shapes: Sequence[Shape], key: int) -> None:
        self.layout, self.key = Layout(shapes), key
        self._acc = np.zeros(self.layout.count, np.float32)  # what is left, and what is coded

    @abstractmethod
    def average(self, group: Group, step: int, gradients: Sequence[np.ndarray | None]) -> Mean:
        """The mean of what is left and the gradients; all ranks call it in the same order.

        Args:
            step: the same on all ranks and another one each time.
            gradients: of one axis, float32 or bfloat16, one for each tensor; None counts as 0.

        Raises:
            TransportError: a rank is missing; what was left is gone.
        """

    def averaged(self, group: Group, step: int, flat: np.ndarray) -> np.ndarray:
        """The same for tensors that lie flat one behind the other, float32 [n]."""
        out = np.empty(self.layout.count, np.float32)
        self.average(group, step, self.layout.split(flat)).write(self.layout.split(out))
        return out

    def kept(self, mean: Mean) -> Mean:
        """A mean that outlives the next one."""
        out = np.empty(self.layout.count, np.float32)
        mean.write(self.layout.split(out))
        return _Written(self.layout, out)

    def left(self, group: Group) -> np.ndarray:
        """What was not sent, float32 [n]; for `inherit` of another averager."""
        return self._acc.copy()

    def inherit(self, left: np.ndarray) -> None:
        """Sends with the next mean what another averager left."""
        self._acc[...] = left

    def fade(self, share: float) -> None:
        """Forgets what is left, but for a share of it."""
        self._acc *= np.float32(share)

    def state(self) -> dict[str, np.ndarray]:
        """What a later run needs to go on exactly, on this rank."""
        return {"acc": self._acc.copy()}

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
        self._acc[...] = state["acc"]


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
    """Leaves nothing; has something left only where it inherits."""

    def __init__(self, shapes: Sequence[Shape], key: int) -> None:
        super().__init__(shapes, key)
        self._inherited = True  # zeros

    def average(self, group: Group, step: int, gradients: Sequence[np.ndarray | None]) -> Mean:
        if not self._inherited:
            self._acc[...] = 0.0  # the mean before this one
        self._inherited = False
        self.layout.add(gradients, self._acc, slice(0, self.layout.count))
        group.all_reduce(self._acc, "mean").wait()
        return _Written(self.layout, self._acc)

    def left(self, group: Group) -> np.ndarray:
        return self._acc.copy() if self._inherited else np.zeros_like(self._acc)

    def inherit(self, left: np.ndarray) -> None:
        super().inherit(left)
        self._inherited = True

    def state(self) -> dict[str, np.ndarray]:
        return {"acc": self._acc.copy() if self._inherited else np.zeros_like(self._acc)}

    def _restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.inherit(state["acc"])


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
        self._code = np.zeros(self._codec.size(self.layout.count), np.uint8)
        self._mean = np.zeros_like(self._acc)

    def average(self, group: Group, step: int, gradients: Sequence[np.ndarray | None]) -> Mean:
        seed = mixed(step, self.key)
        self.layout.add(gradients, self._acc, slice(0, self.layout.count))
        self._codec.encode(self._acc, self._code, seed=seed, rank=group.rank, keep=self._keep)
        if not self._keep:
            self._acc[...] = 0.0
        codes = group.all_gather(self._code).wait()
        self._mean[...] = 0.0
        for rank, code in enumerate(codes):
            self._codec.add(code, self._mean, seed=seed, rank=rank, weight=1 / group.size)
        return _Written(self.layout, self._mean)


class _Slice:
    """What one rank owns, in pieces that are small enough for a cache, with the places of their codes."""

    def __init__(self, codec: Codec, begin: int, end: int) -> None:
        self.begin, self.count = begin, end - begin
        cuts = [*range(begin, end, _PIECE), end]
        self.pieces = [slice(one, other) for one, other in zip(cuts[:-1], cuts[1:])]
        sizes = [codec.size(one.stop - one.start) for one in self.pieces]
        ends = np.cumsum([0, *sizes]).astype(int).tolist()
        self.places = [slice(one, other) for one, other in zip(ends[:-1], ends[1:])]
        self.bytes: int = ends[-1]

    def own(self, piece: slice) -> slice:
        """Where a piece is within the slice."""
        return slice(piece.start - self.begin, piece.stop - self.begin)

    def seeds(self, seed: int) -> list[int]:
        return [mixed(seed, number) for number in range(len(self.pieces))]


@dataclass(frozen=True, slots=True)
class _InSlices(Mean):
    """Codes of slices, from their owners."""

    layout: Layout
    codec: Codec
    slices: Sequence[_Slice]
    codes: Sequence[np.ndarray]
    seed: int

    def write(self, targets: Flats) -> None:
        room = np.empty(_PIECE, np.float32)
        for rank, (part, code) in enumerate(zip(self.slices, self.codes)):
            for piece, place, seed in zip(part.pieces, part.places, part.seeds(self.seed)):
                values = room[: piece.stop - piece.start]
                values[...] = 0.0
                self.codec.add(code[place], values, seed=seed, rank=rank, weight=1.0)
                self.layout.write(values, piece, targets)


class _SlicedAverager(Averager):
    """Each slice's codes to its owner, and the owner's to everybody."""

    def __init__(self, config: Coded, shapes: Sequence[Shape], key: int, group: Group) -> None:
        super().__init__(shapes, key)
        self._codec, self._keep = config.codec, config.error_feedback
        ends = [self.layout.count * rank // group.size for rank in range(group.size + 1)]
        self._slices = [_Slice(self._codec, *one) for one in zip(ends[:-1], ends[1:])]
        # With what the owner did not send.
        self._sum = np.zeros(self._slices[group.rank].count, np.float32)

    def average(self, group: Group, step: int, gradients: Sequence[np.ndarray | None]) -> Mean:
        seed, me = mixed(step, self.key), group.rank
        codes = [np.empty(part.bytes, np.uint8) for part in self._slices]
        for part, code in zip(self._slices, codes):
            for piece, place, own_seed in zip(part.pieces, part.places, part.seeds(seed)):
                self.layout.add(gradients, self._acc, piece)
                self._encode(self._acc[piece], code[place], own_seed, me)
        mine = self._slices[me]
        came = [np.empty(mine.bytes, np.uint8) for _ in range(group.size)]
        group.all_to_all(codes, came).wait()
        again = mixed(seed, 1)
        for piece, place, own_seed, next_seed in zip(
            mine.pieces, mine.places, mine.seeds(seed), mine.seeds(again)
        ):
            total = self._sum[mine.own(piece)]
            for rank, code in enumerate(came):
                self._codec.add(code[place], total, seed=own_seed, rank=rank, weight=1 / group.size)
            self._encode(total, codes[me][place], next_seed, me)
        # Slices differ by an element, so codes do in size: everybody's own goes to all.
        sums = [np.empty(part.bytes, np.uint8) for part in self._slices]
        group.all_to_all([codes[me]] * group.size, sums).wait()
        return _InSlices(self.layout, self._codec, self._slices, sums, again)

    def _encode(self, values: np.ndarray, code: np.ndarray, seed: int, rank: int) -> None:
        self._codec.encode(values, code, seed=seed, rank=rank, keep=self._keep)
        if not self._keep:
            values[...] = 0.0

    def left(self, group: Group) -> np.ndarray:
        left = self._acc.copy()
        mine = self._slices[group.rank]
        left[mine.begin : mine.begin + mine.count] += (
            group.size * self._sum
        )  # which only this rank has
        return left

    def fade(self, share: float) -> None:
        super().fade(share)
        self._sum *= np.float32(share)

    def state(self) -> dict[str, np.ndarray]:
        return {"acc": self._acc.copy(), "sum": self._sum.copy()}

    def _restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._acc[...], self._sum[...] = state["acc"], state["sum"]


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

    def __init__(self, rank: int, shapes: Sequence[Shape], key: int) -> None:
        super().__init__(shapes, key)
        found = {number: _factors(shape, rank) for number, shape in enumerate(self.layout.shapes)}
        self._thin = {number: one for number, one in found.items() if one is not None}
        self._plain = [number for number, one in found.items() if one is None]
        rng = np.random.default_rng(key)  # the same on all ranks
        self._right = {
            number: rng.standard_normal((columns, r)).astype(np.float32)
            for number, (_, columns, r) in self._thin.items()
        }
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
        *thin, means = self._mean(group, list(left.values()), plain)
        for number, one in zip(left, thin):
            kernels.orthogonalise(one)
            kernels.low_rank_back(self._matrices[number], one, self._right[number])
        *right, _ = self._mean(group, list(self._right.values()), [])
        self._right = dict(zip(self._right, right))
        self._sent = dict(zip(left, zip(thin, right)))
        ends = np.cumsum([0, *(one.size for one in plain)])
        rests = [means[begin:end] for begin, end in zip(ends[:-1], ends[1:])]
        return _Products(dict(self._sent), dict(zip(self._plain, rests)))

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

    def _settle(self) -> None:
        """Takes out what was sent."""
        for number, (left, right) in self._sent.items():
            kernels.low_rank_take(self._matrices[number], left=left, right=right)
        self._sent.clear()

    def left(self, group: Group) -> np.ndarray:
        self._settle()
        return super().left(group)

    def inherit(self, left: np.ndarray) -> None:
        self._sent.clear()
        super().inherit(left)

    def fade(self, share: float) -> None:
        self._settle()
        super().fade(share)

    def state(self) -> dict[str, np.ndarray]:
        self._settle()
        return super().state() | {f"right.{i}": one.copy() for i, one in self._right.items()}

    def _restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.inherit(state["acc"])
        self._right = {number: np.array(state[f"right.{number}"]) for number in self._right}


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
