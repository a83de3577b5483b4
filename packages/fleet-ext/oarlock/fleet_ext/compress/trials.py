"""What ways to average would take, and leave out, of the gradients of a model that trains.

They are tried on gradients of a few steps: a single one would not tell. A low-rank product finds the directions of one that
stays the same, but of gradients that change it sends those of the step before, and what it leaves adds up.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from math import prod
from typing import Any, TypeVar

import numpy as np

from oarlock.fleet_ext.compress.averaging import Averaging, Left, Shape
from oarlock.fleet_ext.compress.naming import averaging_of
from oarlock.fleet_ext.transport import Group, Mesh, MeshGroup, Work

T = TypeVar("T")
#: From what leaves nothing out to what leaves most.
CANDIDATES = (
    "float32", "bf16", "int8", "int4", "rank-64-int8", "rank-32-bf16", "rank-32-int8", "rank-16-bf16", "rank-16-int8",
    "rank-8-bf16", "rank-4-bf16", "1-bit", "chunk-top", "sparseloco",
)  # fmt: skip
_SMALL = (16, 16)  #: next to nothing
_ALIKE = 2.0  #: times as long as others a trial may take because of what else the machine does
#: Means that are timed, at least and at most, and seconds that they may take.
_TIMES, _MOST_TIMES, _TRIAL_S = 2, 12, 0.02
_ROUNDED = 0.2  #: what counts of the square of rounding, which is new in each step


@dataclass(frozen=True, slots=True)
class Sample:
    """Of a bucket: tensors on which ways are tried.

    Args:
        shapes: of the tensors.
        gradient: all of them, flat, in float32.
        weights: of the square of what is left out of each element, float32 [n]; None where all count alike.
        others: shapes of the bucket's tensors that are not in the sample, which is taken to be like them.
        earlier: gradients of the steps before, the last one last.
    """

    shapes: Sequence[Shape]
    gradient: np.ndarray
    weights: np.ndarray | None = None
    others: Sequence[Shape] = ()
    earlier: Sequence[np.ndarray] = ()

    @property
    def bucket(self) -> list[Shape]:
        """Shapes of all tensors of the bucket."""
        return [*self.shapes, *self.others]

    @property
    def scale(self) -> float:
        """How many times as large as the sample the bucket is."""
        return sum(map(prod, self.bucket)) / self.gradient.size

    def product(self, one: np.ndarray, other: np.ndarray) -> float:
        """Sum of the weighted products of two arrays like the gradient."""
        weights = np.ones(1, np.float32) if self.weights is None else self.weights
        return float(np.sum(one * other * weights, dtype=np.float64))


@dataclass(frozen=True, slots=True)
class Trial:
    """Of a way to average a bucket.

    Args:
        seconds: of a processor, for codes.
        left: what steps have not sent, as a share of the last gradient's square, weighted; above 1 where it adds up.
            What lies along all that the last step had to send, and so comes late, counts by its square, as all of it does
            where a code sends parts; the rest is rounding, and counts a fifth.
        traffic: bytes that each rank sends.
        rounds: how often it sends.
    """

    seconds: float
    left: float
    traffic: int
    rounds: int = 2


@dataclass(frozen=True, slots=True)
class Trials:
    """Of all ways to average a bucket.

    Args:
        elements: of the bucket.
        square: of its gradient, weighted.
        ways: by their names.
    """

    elements: int
    square: float
    ways: Mapping[str, Trial]

    @classmethod
    def of(
        cls, sample: Sample, size: int, candidates: Mapping[str, Averaging] | None = None
    ) -> "Trials":
        """
        Args:
            size: ranks that will take part.
            candidates: ways to average by name; all that are known where this is None.
        """
        ways = candidates or {name: averaging_of(name) for name in CANDIDATES}
        return cls(
            sum(map(prod, sample.bucket)),
            sample.scale * sample.product(sample.gradient, sample.gradient),
            {name: tried(one, sample, size) for name, one in ways.items()},
        )


def _over(result: T) -> Work[T]:
    work = Work[T]()
    work.finish(result)
    return work


class _Echo:
    """A group all of whose ranks have what this one has: what a mean costs this rank, without the messages.

    Args:
        size: of the group.
    """

    rank = 0

    def __init__(self, size: int) -> None:
        self.size = size

    def all_reduce(self, array: np.ndarray, op: str) -> Work[np.ndarray]:
        return _over(array)

    def all_gather(self, array: np.ndarray) -> Work[np.ndarray]:
        return _over(np.stack([array] * self.size))

    def all_to_all(
        self, parts: Sequence[np.ndarray], out: Sequence[np.ndarray]
    ) -> Work[Sequence[np.ndarray]]:
        for one in out:
            size = min(one.size, parts[0].size)  # slices differ by an element
            one[:size] = parts[0][:size]
        return _over(out)


def _seconds(averaging: Averaging, shapes: Sequence[Shape], flat: np.ndarray, size: int) -> float:
    """Of a processor, for a mean over so many ranks, but for the messages."""
    group: Any = _Echo(size)
    one = averaging.start(shapes, 0, group)
    given, mean = one.layout.split(flat), one.layout.split(np.empty_like(flat))
    found: list[float] = []
    while len(found) < _TIMES or (sum(found) < _TRIAL_S and len(found) < _MOST_TIMES):
        begin = time.process_time()
        one.average(group, len(found), given).write(mean)
        found.append(time.process_time() - begin)
    one.close()
    return float(np.median(found[1:]))  # the first one gets its memory


def _seconds_of_bucket(averaging: Averaging, sample: Sample, size: int) -> float:
    """The same for the bucket of a sample; what a mean costs however small it is, it costs once."""
    least = _seconds(averaging, [_SMALL], np.ones(prod(_SMALL), np.float32), size)
    whole = _seconds(averaging, sample.shapes, sample.gradient, size)
    return least + max(0.0, whole - least) * sample.scale


def tried(averaging: Averaging, sample: Sample, size: int) -> Trial:
    """Averages gradients on this rank alone, step by step.

    Args:
        size: ranks that will take part.
    """
    gradient = sample.gradient
    with Mesh(0, 1) as mesh, MeshGroup(mesh, [0], "trial") as alone:
        one = averaging.start(sample.shapes, 0, alone)
        mean, unsent = np.empty_like(gradient), np.zeros_like(gradient)
        wanted = np.empty_like(gradient)
        for step, given in enumerate([*(sample.earlier or [gradient]), gradient]):
            one.average(alone, step, one.layout.split(given)).write(one.layout.split(mean))
            np.add(unsent, given, out=wanted)
            np.subtract(wanted, mean, out=unsent)
            if not sample.earlier and step == 0:  # it has only found directions
                unsent[...] = 0.0
                one.inherit(Left(unsent))
        one.close()
    whole = sample.product(gradient, gradient)
    late = max(0.0, sample.product(unsent, wanted))
    rounded = max(0.0, sample.product(unsent, unsent) - late)
    left = (late + _ROUNDED * rounded) / whole if whole else 0.0
    sent = averaging.traffic(sample.bucket, size)
    return Trial(_seconds_of_bucket(averaging, sample, size), left, sent, averaging.rounds)


def tried_together(group: Group, samples: Mapping[int, Sample]) -> list[Trials]:
    """Trials of all buckets, on all ranks.

    Args:
        samples: of the buckets that are this rank's to try, by their numbers.
    """
    mine = {}
    for number, sample in samples.items():
        made = Trials.of(sample, group.size)
        ways = {name: astuple(one) for name, one in made.ways.items()}
        mine[str(number)] = made.elements, made.square, ways
    found = {
        int(number): Trials(elements, square, {name: Trial(*one) for name, one in ways.items()})
        for part in group.all_gather_object(mine).wait()
        for number, (elements, square, ways) in part.items()
    }
    return _pooled([found[number] for number in range(len(found))])


def _pooled(trials: Sequence[Trials]) -> list[Trials]:
    """With one time for an element, where a way takes about the same in a bucket as in the others.

    The fastest way of each bucket would else be one whose trial had a quiet moment.
    """
    typical = {
        name: float(np.median([one.ways[name].seconds / one.elements for one in trials]))
        for name in trials[0].ways
    }

    def pooled(name: str, trial: Trial, count: int) -> Trial:
        seconds = typical[name] * count
        alike = seconds / _ALIKE <= trial.seconds <= seconds * _ALIKE
        return replace(trial, seconds=seconds) if alike else trial

    return [
        replace(one, ways={name: pooled(name, way, one.elements) for name, way in one.ways.items()})
        for one in trials
    ]
