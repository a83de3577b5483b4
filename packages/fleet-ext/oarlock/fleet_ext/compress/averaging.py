"""Means of arrays over ranks, and what is left of them for later.

Each array (a bucket of gradients, or the way that parameters went) has an `Averager` on every rank. `average` adds gradients
to what earlier steps did not send, and gives a mean that has the same bits on all ranks; what was not sent now stays, and
is sent later: nothing is lost for good (1901.09847).

Each pass over a large array takes time from a processor that trains. So gradients are read where Paddle has them, and are
added and coded in one pass; and a mean stays a code until it is written over the gradients.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import ml_dtypes
import numpy as np
from oarlock.native import codec as kernels

from oarlock.fleet_ext.compress.codecs.base import Flats
from oarlock.fleet_ext.transport import Group

Shape = tuple[int, ...]
PIECE = 1 << 18  #: elements, of which a few arrays find room in a core's cache
ADDED = (np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16))  #: by a kernel


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
            if gradient.dtype in ADDED:
                kernels.accumulate(flat[place], gradient[inside])
            else:
                flat[place] += gradient[inside]

    def spread(self, gradients: Sequence[np.ndarray | None], span: slice) -> list[np.ndarray]:
        """What a span holds of each tensor, as kernels take it: float32 or bfloat16, and 0 for None."""
        found = []
        for number, inside, place in self.within(span):
            gradient = gradients[number]
            if gradient is None:
                found.append(np.zeros(place.stop - place.start, np.float32))
            elif gradient.dtype in ADDED:
                found.append(gradient[inside])
            else:
                found.append(gradient[inside].astype(np.float32))
        return found

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
class Written(Mean):
    """A mean that is there as numbers."""

    layout: Layout
    flat: np.ndarray

    def write(self, targets: Flats) -> None:
        self.layout.write(self.flat, slice(0, self.layout.count), targets)


@dataclass(frozen=True, slots=True)
class Left:
    """What a rank has for later steps, which it takes along to another averager.

    Args:
        unsent: what no code has had yet, float32 [n].
        velocity: of the gradients, float32 [n], where the mean has momentum; averagers without it drop it.
    """

    unsent: np.ndarray
    velocity: np.ndarray | None = None

    def scaled(self, factor: float) -> "Left":
        """Both, multiplied."""
        number = np.float32(factor)
        return Left(self.unsent * number, None if self.velocity is None else self.velocity * number)


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
        return Written(self.layout, out)

    def left(self, group: Group) -> Left:
        """What was not sent, for `inherit` of another averager.

        The mean of it over ranks is what all means so far lack.
        """
        return Left(self._acc.copy())

    def inherit(self, left: Left) -> None:
        """Sends with the next mean what another averager left; all ranks call it before the same step."""
        self._acc[...] = left.unsent

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

    def close(self) -> None:
        """Ends what it has beside the group, between two means."""


class Averaging(ABC):
    """How arrays are averaged; makes the averager of each bucket."""

    #: Whether averagers remember something from step to step.
    remembers: bool = True
    #: That means have; then an optimizer has none of its own.
    momentum: float = 0.0
    #: How often ranks send each other something for one mean: slices to their owners, and sums back.
    rounds: int = 2

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
        return both_ways(4 * sum(map(prod, shapes)), size)


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
        return Written(self.layout, self._acc)

    def left(self, group: Group) -> Left:
        return Left(self._acc.copy() if self._inherited else np.zeros_like(self._acc))

    def inherit(self, left: Left) -> None:
        super().inherit(left)
        self._inherited = True

    def state(self) -> dict[str, np.ndarray]:
        return {"acc": self._acc.copy() if self._inherited else np.zeros_like(self._acc)}

    def _restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.inherit(Left(state["acc"]))


def both_ways(count: int, size: int) -> int:
    """Bytes that each rank sends where slices go to their owners and back."""
    return 2 * (size - 1) * count // size
