"""Which code for which bucket: as much of the gradient as link and processor have time for.

The link is timed, and every way to average is tried (`trials`). A step takes its computation, the codes' time on the same
processor, and what it waits for messages behind its last gradient. Buckets travel one behind the other, each from when it
is whole: those of the layers that come first in the backward pass have most of it to travel beside, the last one has
nothing. Steps that were timed tell what is more of it than trials say (`pace`).

Buckets are given up to faster ways, those first that win most time for what they leave out, until the step is about as
fast as it can be (the Lagrangian relaxation of a knapsack; the part of messages that hides behind computation by a
multiplier of its own), and what is short of that is filled up. Where even the fastest codes are slow, the plan says how
many steps ranks should go alone.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np

from oarlock.fleet_ext.compress.pace import Pace, Timed
from oarlock.fleet_ext.compress.trials import Trials
from oarlock.fleet_ext.transport import Group

_SMALL_MESSAGES = 10
_TIMED_S = 0.2  #: a message that takes as long tells a link's rate
_LARGEST_BYTES = 1 << 26
_INEXACT = 1e-12  #: of a share that is left out, in a trial's own numbers
_WORTHS = tuple(part / 20 for part in range(21))  #: of a second of messages, in seconds of codes
_SAME_S = 1e-9  #: by which one plan is not faster than another
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
        return cls([Choice(*one) for one in choices], period, Link(*link), Pace.of_plain(pace))

    @property
    def plain(self) -> list[Any]:
        """Lists, tuples, numbers and names, to send or to write."""
        return [
            [astuple(one) for one in self.choices], self.period, astuple(self.link), self.pace.plain
        ]  # fmt: skip

    @property
    def extra(self) -> float:
        """Seconds that a step takes beside its computation."""
        return _extra(self.choices, self.pace)

    def __str__(self) -> str:
        lines = [
            f"link: {8e-6 * self.link.rate:.0f} Mbit/s, {1e3 * self.link.latency:.2f} ms; a step's computation:"
            f" {1e3 * self.pace.computed:.0f} ms; a second of a processor costs {self.pace.share:.2g} s, and codes take"
            f" {self.pace.overhead:.2g} times their trials' time; ranks wait {1e3 * self.pace.skew:.0f} ms for each other",
            f"{'bucket':>6} {'elements':>10}  {'averaging':<12} {'codes, ms':>10} {'messages, ms':>13} {'room, ms':>9}"
            "  left out",
        ]
        lines += [
            f"{number:>6} {one.elements:>10,}  {one.averaging:<12} {1e3 * one.coding:>10.1f} {1e3 * one.travel:>13.1f}"
            f" {1e3 * self.pace.hidden * window:>9.0f}  {100 * one.left:.2g} %"
            for number, (one, window) in enumerate(zip(self.choices, self.pace.windows))
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
    # A small array goes to everybody at once: one message's time, where a large one takes two.
    latency, turn = np.median([seconds(1) for _ in range(_SMALL_MESSAGES)], axis=0).tolist()
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


def plan(
    trials: Sequence[Trials],
    link: Link,
    pace: Pace,
    *,
    slack: float = 0.005,
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
            choice
            for choice in (_choice(bucket, name, link, own) for name in bucket.ways)
            if choice.left <= max(most_left, _INEXACT)
        ]
        for bucket, own in zip(trials, _paces(trials, pace))
    ]
    # A second of messages is worth one of codes where they are longer than their window, nothing where they are shorter.
    # Of the last bucket's, which has none, it is worth one unless others are behind anyway.
    alike = [[worth] * len(trials) for worth in _WORTHS]
    worths = alike + [[*one[:-1], 1.0] for one in alike]
    fastest = min(
        (
            _quickened([min(ways, key=lambda one: _cost(one, worth)) for ways, worth in zip(options, each)], options, pace)
            for each in worths
        ),
        key=lambda choices: _extra(choices, pace),
    )  # fmt: skip
    limit = _extra(fastest, pace) + slack * pace.computed
    starts = [fastest, *(_within(options, energies, pace, limit, each) for each in worths)]
    different = {tuple(one.averaging for one in chosen): chosen for chosen in starts}
    best = min(
        (
            _filled(chosen, options, energies, pace, limit)
            for chosen in different.values()
            if _extra(chosen, pace) <= limit
        ),
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
    choices = [
        _choice(one, name, link, own)
        for one, name, own in zip(trials, ways, _paces(trials, alone), strict=True)
    ]
    coding = sum(one.coding for one in choices)
    return Timed(whole - pace.computed, coding, tuple(one.travel for one in choices))


def agreed(group: Group, made: Plan | None) -> Plan:
    """The plan of rank 0, on all ranks."""
    return Plan.of_plain(group.broadcast_object(None if made is None else made.plain).wait())


def _paces(trials: Sequence[Trials], pace: Pace) -> list[Pace]:
    """Of each bucket. Beside the last one nobody computes any more, and nothing else travels: a second of a processor costs
    a second, and messages are waited for one after the other."""
    return [pace] * (len(trials) - 1) + [replace(pace, share=1.0, lanes=1)]


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
    return _Step(choices, pace).extra


class _Step:
    """Seconds that a step takes beside its computation.

    Args:
        choices: of all buckets.
    """

    def __init__(self, choices: Sequence[Choice], pace: Pace) -> None:
        self._choices = choices
        self._least = pace.skew + sum(one.coding for one in choices)
        late = pace.late([one.travel for one in choices])
        self._up_to = np.maximum.accumulate(late).tolist()
        self._behind = [*np.maximum.accumulate(late[:0:-1])[::-1].tolist(), 0.0]

    @property
    def extra(self) -> float:
        return self._least + max(0.0, self._up_to[-1])

    def extra_with(self, number: int, other: Choice) -> float:
        """With another choice for one bucket, whose messages, and so those of the ones before, are there later."""
        now = self._choices[number]
        late = max(self._up_to[number] + other.travel - now.travel, self._behind[number])
        return self._least + other.coding - now.coding + max(0.0, late)


def _cost(choice: Choice, worth: float) -> float:
    return choice.coding + worth * choice.travel


def _quickened(
    chosen: Sequence[Choice], options: Sequence[Sequence[Choice]], pace: Pace
) -> list[Choice]:
    """Changed one bucket after the other, as long as a step becomes shorter by it."""
    found = list(chosen)
    while True:
        step = _Step(found, pace)
        extra, number, quickest = min(
            ((step.extra_with(number, one), number, one)
             for number, ways in enumerate(options) for one in ways),
            key=lambda change: change[0],
        )  # fmt: skip
        if extra >= step.extra - _SAME_S:
            return found
        found[number] = quickest


def _within(
    options: Sequence[Sequence[Choice]], energies: Sequence[float], pace: Pace, limit: float, worths: Sequence[float]
) -> list[Choice]:  # fmt: skip
    """From what leaves least, along what wins most for what it leaves, until a step is fast enough."""
    chosen: list[Choice] = []
    steps: list[tuple[float, int, Choice]] = []
    for number, (ways, energy, worth) in enumerate(zip(options, energies, worths)):
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
    chosen: Sequence[Choice], options: Sequence[Sequence[Choice]], energies: Sequence[float], pace: Pace, limit: float
) -> list[Choice]:  # fmt: skip
    """What is short of the limit goes to what leaves less, one bucket after the other."""
    filled = list(chosen)
    while True:
        step = _Step(filled, pace)
        gains = [
            (energy * (now.left - one.left), number, one)
            for number, (now, ways, energy) in enumerate(zip(filled, options, energies))
            for one in ways
            if one.left < now.left and step.extra_with(number, one) <= limit
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
