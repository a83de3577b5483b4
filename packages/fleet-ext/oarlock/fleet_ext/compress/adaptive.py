"""Which code for which bucket: as much of the gradient as the link has time for.

The link is timed, and every way to average is tried on the gradients at hand: how long it takes a processor and how much
of the gradient's square it leaves out. Then buckets are given up to faster ways, those first that win most time for what
they leave out, until what is sent fits into the time of the computation that it travels beside (the Lagrangian relaxation of
a knapsack). Where even the fastest does not fit, the plan says how many steps ranks should go alone.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from oarlock.fleet_ext.compress.averaging import Averaging, Shape, averaging_of
from oarlock.fleet_ext.transport import Group, Mesh, MeshGroup

#: From what leaves nothing out to what leaves most.
CANDIDATES = ("float32", "bf16", "int8", "int4", "rank-4", "1-bit", "chunk-top", "sparseloco")
_TIMED_S = 0.2  #: a message that takes as long tells a link's rate
_LARGEST_BYTES = 1 << 26
_ROUNDING = 1e-12  #: of a share that is left out
_MESSAGES = 2  #: one after the other, in an average


@dataclass(frozen=True, slots=True)
class Link:
    """Between this rank and all others together.

    Args:
        latency: seconds of a small message.
        rate: bytes/s that each rank sends while all do.
    """

    latency: float
    rate: float


@dataclass(frozen=True, slots=True)
class Sample:
    """Of a bucket.

    Args:
        shapes: of its tensors.
        gradient: all of them, flat, in float32.
    """

    shapes: Sequence[Shape]
    gradient: np.ndarray


@dataclass(frozen=True, slots=True)
class Trial:
    """Of a way to average a bucket.

    Args:
        seconds: of a processor, for codes.
        left: the share of the gradient's square that is not sent at once.
        traffic: bytes that each rank sends.
    """

    seconds: float
    left: float
    traffic: int


@dataclass(frozen=True, slots=True)
class Choice:
    """For one bucket.

    Args:
        elements: of the bucket.
        averaging: name of the way.
        seconds: until its mean is there.
        left: the share of its square that is not sent at once.
    """

    elements: int
    averaging: str
    seconds: float
    left: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What every bucket is averaged by.

    Args:
        choices: of buckets, in their order.
        budget: seconds for all of them in a step.
        period: steps that ranks should go alone; 1 where all fits.
        link: as it was timed.
    """

    choices: Sequence[Choice]
    budget: float
    period: int
    link: Link

    @property
    def seconds(self) -> float:
        return sum(one.seconds for one in self.choices)

    def __str__(self) -> str:
        lines = [
            f"link: {8e-6 * self.link.rate:.0f} Mbit/s, {1e3 * self.link.latency:.2f} ms; time for"
            f" a step's messages: {1e3 * self.budget:.0f} ms",
            f"{'bucket':>6} {'elements':>10}  {'averaging':<24} {'ms':>8}  left out",
        ]
        lines += [
            f"{number:>6} {one.elements:>10,}  {one.averaging:<24} {1e3 * one.seconds:>8.1f}  {100 * one.left:.2g} %"
            for number, one in enumerate(self.choices)
        ]
        fits = (
            "fits"
            if self.period == 1
            else f"does not fit: go {self.period} steps alone (LocalSteps)"
        )
        return "\n".join([*lines, f"all: {1e3 * self.seconds:.0f} ms, which {fits}"])


def time_link(group: Group) -> Link:
    """Times the messages of an average, on all ranks at once; the same answer on all of them."""

    def seconds(count: int) -> float:
        array = np.zeros(count, np.float32)
        group.barrier().wait()
        begin = time.perf_counter()
        group.all_reduce(array).wait()
        took = np.array([time.perf_counter() - begin])
        return float(group.all_reduce(took, "max").wait()[0])

    if group.size == 1:
        return Link(latency=0.0, rate=math.inf)
    seconds(1)  # connections that have not been used are slower
    latency = min(seconds(1) for _ in range(5))
    count = 1 << 14
    while (took := seconds(count)) < _TIMED_S + _MESSAGES * latency and 4 * count < _LARGEST_BYTES:
        count *= 4
    traffic = 2 * (group.size - 1) * 4 * count / group.size
    return Link(latency=latency, rate=traffic / max(1e-6, took - _MESSAGES * latency))


def tried(averaging: Averaging, sample: Sample, size: int) -> Trial:
    """Averages a gradient on this rank alone.

    Args:
        size: ranks that will take part.
    """
    gradient = sample.gradient
    with Mesh(0, 1) as mesh, MeshGroup(mesh, [0], "trial") as alone:
        one = averaging.start(sample.shapes, 0, alone)
        seconds, whole = math.inf, float(np.square(gradient, dtype=np.float64).sum())
        for step in range(2):  # the power method's first step finds its directions
            one.acc[...] = gradient
            begin = time.perf_counter()
            one.average(alone, step)
            seconds = min(seconds, time.perf_counter() - begin)
        left = float(np.square(gradient - one.out, dtype=np.float64).sum())
    return Trial(seconds, left / whole if whole else 0.0, averaging.traffic(sample.shapes, size))


def plan(
    samples: Sequence[Sample],
    link: Link,
    size: int,
    budget: float,
    candidates: Mapping[str, Averaging] | None = None,
    *,
    most_left: float = 1.0,
) -> Plan:
    """
    Args:
        samples: of all buckets.
        link: as `time_link` found it.
        size: ranks.
        budget: seconds in which all buckets must be averaged.
        candidates: ways to average by name; all that are known where this is None.
        most_left: share of a bucket's square that may be left out at once; float32 leaves nothing.
    """
    ways = candidates or {name: averaging_of(name) for name in CANDIDATES}
    steps: list[tuple[float, int, Choice]] = []
    chosen: list[Choice] = []
    for number, sample in enumerate(samples):
        energy = float(np.square(sample.gradient, dtype=np.float64).sum())
        found = []
        for name, averaging in ways.items():
            trial = tried(averaging, sample, size)
            seconds = trial.seconds + _MESSAGES * link.latency + trial.traffic / link.rate
            if trial.left <= max(most_left, _ROUNDING):
                found.append(Choice(sample.gradient.size, name, seconds, trial.left))
        front = _front(found)
        chosen.append(front[0])
        for one, other in zip(front[:-1], front[1:]):
            won = one.seconds - other.seconds
            lost = max(1e-30, energy * (other.left - one.left))
            steps.append((won / lost, number, other))
    # Along each front what is won for what is lost falls, so a bucket's steps come in their order.
    for _, number, choice in sorted(steps, key=lambda step: -step[0]):
        if sum(one.seconds for one in chosen) <= budget:
            break
        chosen[number] = choice
    total = sum(one.seconds for one in chosen)
    return Plan(chosen, budget, max(1, math.ceil(total / budget)), link)


def agreed(group: Group, made: Plan | None) -> Plan:
    """The plan of rank 0, on all ranks."""
    plain = None
    if made is not None:
        choices = [(one.elements, one.averaging, one.seconds, one.left) for one in made.choices]
        plain = [choices, made.budget, made.period, (made.link.latency, made.link.rate)]
    choices, budget, period, (latency, rate) = group.broadcast_object(plain).wait()
    return Plan([Choice(*one) for one in choices], budget, period, Link(latency, rate))


def _front(choices: Sequence[Choice]) -> list[Choice]:
    """Of what no other beats in both: the corners of the convex hull, from what leaves least to what is fastest."""
    best: list[Choice] = []
    for one in sorted(choices, key=lambda choice: (choice.left, choice.seconds)):
        if best and one.seconds >= best[-1].seconds:
            continue
        while len(best) > 1 and _slope(best[-2], best[-1]) <= _slope(best[-1], one):
            best.pop()
        best.append(one)
    return best


def _slope(one: Choice, other: Choice) -> float:
    """Seconds that are won for each unit that is left out."""
    return (one.seconds - other.seconds) / max(1e-12, other.left - one.left)
