"""Which code for which bucket: as much of the gradient as link and processor have time for.

The link is timed, and every way to average is tried on gradients of a few steps: how long it takes a processor and how
much it has left out by the last of them. A single gradient would not tell: a low-rank product finds the directions of
one that stays the same, but of gradients that change it sends those of the step before, and what it leaves adds up. A
step takes its computation, the codes' time on the same processor, and what of the messages' time is longer than the
backward pass that they travel beside; steps that were timed tell by how much both is more. Buckets are given up to
faster ways, those first that win most time for what they leave out, until the step is about as fast as it can be (the
Lagrangian relaxation of a knapsack; the part of messages that hides behind computation by a multiplier of its own), and
what is short of that is filled up. Where even the fastest codes are slow, the plan says how many steps ranks should go
alone.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from math import prod
from typing import Any

import numpy as np

from oarlock.fleet_ext.compress.averaging import Averaging, Left, Shape
from oarlock.fleet_ext.compress.naming import averaging_of
from oarlock.fleet_ext.compress.pace import Pace, Timed
from oarlock.fleet_ext.transport import Group, Mesh, MeshGroup

#: From what leaves nothing out to what leaves most.
CANDIDATES = (
    "float32", "bf16", "int8", "int4", "rank-64-int8", "rank-32-bf16", "rank-32-int8", "rank-16-bf16", "rank-16-int8",
    "rank-8-bf16", "rank-4-bf16", "1-bit", "chunk-top", "sparseloco",
)  # fmt: skip
_TIMED_S = 0.2  #: a message that takes as long tells a link's rate
_LARGEST_BYTES = 1 << 26
_INEXACT = 1e-12  #: of a share that is left out, in the trial's own numbers
_ROUNDED = 0.2  #: what counts of the square of rounding, which is new in each step
_WORTHS = tuple(part / 20 for part in range(21))  #: of a second of messages, in seconds of codes
_MESSAGES = 2  #: one after the other, in a plain average


@dataclass(frozen=True, slots=True)
class Link:
    """Between this rank and all others together.

    Args:
        latency: seconds of a small message.
        rate: bytes/s that each rank sends while all do.
        work: seconds of a processor for each byte that it sends.
        turn: seconds of a processor for each time that it sends, however little.
    """

    latency: float
    rate: float
    work: float = 0.0
    turn: float = 0.0


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
    rounds: int = _MESSAGES


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


@dataclass(frozen=True, slots=True)
class Choice:
    """For one bucket.

    Args:
        elements: of the bucket.
        averaging: name of the way.
        coding: seconds of a processor for codes, and to send them, in seconds that a step becomes longer by.
        travel: seconds of its messages.
        left: of its trial.
    """

    elements: int
    averaging: str
    coding: float
    travel: float
    left: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What every bucket is averaged by.

    Args:
        choices: of buckets, in their order.
        period: steps that ranks should go alone; 1 where they should not.
        link, pace: as they were timed.
    """

    choices: Sequence[Choice]
    period: int
    link: Link
    pace: Pace

    @classmethod
    def of_plain(cls, plain: Sequence[Any]) -> "Plan":
        """The plan of which `plain` was made."""
        choices, period, link, pace = plain
        return cls([Choice(*one) for one in choices], period, Link(*link), Pace(*pace))

    @property
    def plain(self) -> list[Any]:
        """Lists, tuples, numbers and names, to send or to write."""
        return [
            [astuple(one) for one in self.choices], self.period, astuple(self.link), astuple(self.pace)
        ]  # fmt: skip

    @property
    def extra(self) -> float:
        """Seconds that a step takes beside its computation."""
        return _extra(self.choices, self.pace)

    def __str__(self) -> str:
        lines = [
            f"link: {8e-6 * self.link.rate:.0f} Mbit/s, {1e3 * self.link.latency:.2f} ms; a step's computation:"
            f" {1e3 * self.pace.computed:.0f} ms, beside which {1e3 * self.pace.room:.0f} ms of messages travel;"
            f" a second of a processor costs {self.pace.share:.2g} s, and codes take {self.pace.overhead:.2g} times their trials' time",
            f"{'bucket':>6} {'elements':>10}  {'averaging':<12} {'codes, ms':>10} {'messages, ms':>13}  left out",
        ]
        lines += [
            f"{number:>6} {one.elements:>10,}  {one.averaging:<12} {1e3 * one.coding:>10.1f} {1e3 * one.travel:>13.1f}"
            f"  {100 * one.left:.2g} %"
            for number, one in enumerate(self.choices)
        ]
        coding = sum(one.coding for one in self.choices)
        travel = sum(one.travel for one in self.choices)
        alone = f"; too long: go {self.period} steps alone (LocalSteps)" if self.period > 1 else ""
        lines.append(
            f"all: codes {1e3 * coding:.0f} ms, messages {1e3 * travel:.0f} ms: a step takes {1e3 * self.extra:.0f} ms"
            f" more than its computation{alone}"
        )
        return "\n".join(lines)


def time_link(group: Group, before: Link | None = None) -> Link:
    """Times the messages of an average, on all ranks at once; the same answer on all of them.

    Args:
        before: what it was found to be, the same on all ranks: tells how long a message has to be.
    """

    def seconds(count: int) -> tuple[float, float]:
        array = np.zeros(count, np.float32)
        group.barrier().wait()
        begin, cpu = time.perf_counter(), time.process_time()
        group.all_reduce(array).wait()
        took = np.array([time.perf_counter() - begin, time.process_time() - cpu])
        longest = group.all_reduce(took, "max").wait()
        return float(longest[0]), float(longest[1])

    if group.size == 1:
        return Link(latency=0.0, rate=math.inf)
    seconds(1)  # connections that have not been used are slower
    small = [seconds(1) for _ in range(5)]
    latency, turn = min(took for took, _ in small), min(worked for _, worked in small) / _MESSAGES
    sent = 8 * (group.size - 1) / group.size  # bytes for each element
    count = 1 << 14
    if before is not None:  # two shorter ones first, since it may have become slower
        likely = min(int(1.1 * _TIMED_S * before.rate / sent), _LARGEST_BYTES // 4)
        count = max(count, likely // 16)
    while True:
        took, worked = seconds(count)
        if took >= _TIMED_S + _MESSAGES * latency or 4 * count >= _LARGEST_BYTES:
            break
        count = min(4 * count, _LARGEST_BYTES // 4)
    took, worked = min([(took, worked), seconds(count), seconds(count)])
    traffic = sent * count
    rate = traffic / max(1e-6, took - _MESSAGES * latency)
    return Link(latency=latency, rate=rate, work=worked / traffic, turn=turn)


def tried(averaging: Averaging, sample: Sample, size: int) -> Trial:
    """Averages gradients on this rank alone, step by step.

    Args:
        size: ranks that will take part.
    """
    gradient = sample.gradient
    with Mesh(0, 1) as mesh, MeshGroup(mesh, [0], "trial") as alone:
        one = averaging.start(sample.shapes, 0, alone)
        seconds, mean, unsent = math.inf, np.empty_like(gradient), np.zeros_like(gradient)
        wanted = np.empty_like(gradient)
        for step, given in enumerate([*(sample.earlier or [gradient]), gradient]):
            begin = time.process_time()
            one.average(alone, step, one.layout.split(given)).write(one.layout.split(mean))
            seconds = min(seconds, time.process_time() - begin)
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
    return Trial(seconds * sample.scale, left, sent, averaging.rounds)


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
    return [found[number] for number in range(len(found))]


def plan(
    trials: Sequence[Trials],
    link: Link,
    pace: Pace,
    *,
    slack: float = 0.02,
    patience: float = 1.0,
    most_left: float = 1.0,
) -> Plan:
    """
    Args:
        trials: of all buckets.
        link: as `time_link` found it.
        pace: of a step.
        slack: how much longer than with the fastest codes a step may take, as a share of its computation.
        patience: how much longer than its computation a step may take before ranks go alone, as a share of it.
        most_left: what a bucket's trial may have left; float32 leaves nothing.
    """
    energies = [one.square for one in trials]
    options = [
        [
            _choice(bucket, name, link, pace)
            for name, trial in bucket.ways.items()
            if trial.left <= max(most_left, _INEXACT)
        ]
        for bucket in trials
    ]
    # A second of messages is worth one of codes where they are longer than their window, nothing where they are shorter.
    fastest = min(
        ([min(ways, key=lambda one: _cost(one, worth)) for ways in options] for worth in _WORTHS),
        key=lambda choices: _extra(choices, pace),
    )
    limit = _extra(fastest, pace) + slack * pace.computed
    found = [
        _filled(_within(options, energies, pace, limit, worth), options, energies, pace, limit)
        for worth in _WORTHS
    ]
    best = min(
        [fastest, *(one for one in found if _extra(one, pace) <= limit)],
        key=lambda choices: sum(one.left * e for one, e in zip(choices, energies)),
    )
    period = 1
    if _extra(fastest, pace) > patience * pace.computed:
        # Of a meeting, beside which nothing is computed.
        whole = sum(one.coding + one.travel for one in best)
        period = max(2, math.ceil(whole / (patience * pace.computed)))
    return Plan(best, period, link, pace)


def timed(
    whole: float, ways: Sequence[str], trials: Sequence[Trials], link: Link, pace: Pace
) -> Timed:
    """What was to be expected of steps, beside what they took.

    Args:
        whole: seconds of a step.
        ways: that buckets were averaged by in it.
        trials: of these buckets.
        link: that they travelled on.
    """
    alone = replace(pace, overhead=1.0)
    choices = [_choice(one, name, link, alone) for one, name in zip(trials, ways, strict=True)]
    coding, travel = (sum(column) for column in zip(*((one.coding, one.travel) for one in choices)))
    return Timed(whole - pace.computed, coding, travel)


def agreed(group: Group, made: Plan | None) -> Plan:
    """The plan of rank 0, on all ranks."""
    return Plan.of_plain(group.broadcast_object(None if made is None else made.plain).wait())


def _choice(bucket: Trials, name: str, link: Link, pace: Pace) -> Choice:
    trial = bucket.ways[name]
    return Choice(
        bucket.elements, name,
        (trial.seconds + trial.rounds * link.turn + trial.traffic * link.work)
        * pace.share * pace.overhead,
        trial.rounds * link.latency / pace.lanes + trial.traffic / link.rate,
        trial.left,
    )  # fmt: skip


def _extra(choices: Sequence[Choice], pace: Pace) -> float:
    travel = sum(one.travel for one in choices)
    return sum(one.coding for one in choices) + max(0.0, travel - pace.room)


def _cost(choice: Choice, worth: float) -> float:
    return choice.coding + worth * choice.travel


def _within(
    options: Sequence[Sequence[Choice]], energies: Sequence[float], pace: Pace, limit: float, worth: float
) -> list[Choice]:  # fmt: skip
    """From what leaves least, along what wins most for what it leaves, until a step is fast enough."""
    chosen: list[Choice] = []
    steps: list[tuple[float, int, Choice]] = []
    for number, (ways, energy) in enumerate(zip(options, energies)):
        front = _front(ways, worth)
        chosen.append(front[0])
        for one, other in zip(front[:-1], front[1:]):
            lost = max(1e-30, energy * (other.left - one.left))
            steps.append(((_cost(one, worth) - _cost(other, worth)) / lost, number, other))
    # Along each front what is won for what is lost falls, so a bucket's steps come in their order.
    for _, number, choice in sorted(steps, key=lambda step: -step[0]):
        if _extra(chosen, pace) <= limit:
            break
        chosen[number] = choice
    return chosen


def _filled(
    chosen: list[Choice], options: Sequence[Sequence[Choice]], energies: Sequence[float], pace: Pace, limit: float
) -> list[Choice]:  # fmt: skip
    """What is short of the limit goes to what leaves less, one bucket after the other."""
    filled = list(chosen)
    while True:
        coding = sum(one.coding for one in filled)
        room = pace.room - sum(one.travel for one in filled)
        gains = [
            (energy * (now.left - one.left), number, one)
            for number, (now, ways, energy) in enumerate(zip(filled, options, energies))
            for one in ways
            if one.left < now.left
            and coding + one.coding - now.coding + max(0.0, one.travel - now.travel - room) <= limit
        ]
        if not gains:
            return filled
        _, number, better = max(gains, key=lambda gain: gain[0])
        filled[number] = better


def _front(choices: Sequence[Choice], worth: float) -> list[Choice]:
    """Of what no other beats in both: the corners of the convex hull, from what leaves least to what is fastest."""
    best: list[Choice] = []
    for one in sorted(choices, key=lambda choice: (choice.left, _cost(choice, worth))):
        if best and _cost(one, worth) >= _cost(best[-1], worth):
            continue
        while len(best) > 1 and _slope(best[-2], best[-1], worth) <= _slope(best[-1], one, worth):
            best.pop()
        best.append(one)
    return best


def _slope(one: Choice, other: Choice, worth: float) -> float:
    """Seconds that are won for each unit that is left out."""
    return (_cost(one, worth) - _cost(other, worth)) / max(1e-12, other.left - one.left)
