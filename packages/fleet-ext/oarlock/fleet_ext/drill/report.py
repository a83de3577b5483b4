"""What a drill shows, read from what its nodes wrote."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

_BEHIND_S = 5.0  #: in which a fault shows


@dataclass(frozen=True, slots=True)
class Course:
    """A run of nodes.

    Args:
        lines: what each node wrote.
        begin, end: when it was watched, seconds since 1970.
    """

    lines: Mapping[str, Sequence[Mapping[str, Any]]]
    begin: float
    end: float

    @classmethod
    def read(cls, logs: Mapping[str, Path], begin: float, end: float) -> "Course":
        return cls({name: [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
                    for name, path in logs.items()}, begin, end)  # fmt: skip

    def steps(self) -> dict[int, float]:
        """When each step was first taken."""
        found: dict[int, float] = {}
        for lines in self.lines.values():
            for one in lines:
                if "loss" in one and self.begin <= one["time"] <= self.end:
                    found[one["step"]] = min(one["time"], found.get(one["step"], one["time"]))
        return found

    def losses(self) -> dict[int, set[float]]:
        """Of each step, as the nodes saw it."""
        found: dict[int, set[float]] = {}
        for lines in self.lines.values():
            for one in lines:
                if "loss" in one:
                    found.setdefault(one["step"], set()).add(one["loss"])
        return found

    @property
    def rate(self) -> float:
        """Steps a second."""
        return len(self.steps()) / (self.end - self.begin)

    def gap(self, at: float, within: float) -> float:
        """The longest time without a step that begins in a while behind a moment."""
        times = sorted([*self.steps().values(), self.end])
        return max(
            (b - a for a, b in zip(times, times[1:]) if b >= at and a <= at + within), default=0.0
        )


@dataclass(frozen=True, slots=True)
class Report:
    """
    Args:
        kept: the share of the undisturbed run's steps a second.
        faults: kind, and seconds without a step behind it.
        recoveries: seconds from when a failure was noticed until training went on, of each node that stayed.
        twice: steps that nodes saw with different losses: taken from different states.
        missing: steps that nobody took.
        apart: the largest relative difference from the undisturbed run's loss of the same step.
    """

    kept: float
    faults: Sequence[tuple[str, float]]
    recoveries: Sequence[float]
    twice: int
    missing: int
    apart: float

    def __str__(self) -> str:
        lines = [f"throughput kept: {100 * self.kept:.1f} %"]
        lines += [f"  {kind}: {gap:.2f} s without a step" for kind, gap in self.faults]
        if self.recoveries:
            lines.append(
                f"recovery, from notice until training goes on: median {1e3 * median(self.recoveries):.0f} ms,"
                f" longest {1e3 * max(self.recoveries):.0f} ms"
            )
        lines.append(f"steps lost: {self.missing}; taken from different states: {self.twice}")
        lines.append(
            f"losses differ from the undisturbed run's by {100 * self.apart:.2g} % at most"
        )
        return "\n".join(lines)


def compared(disturbed: Course, undisturbed: Course, faults: Sequence[tuple[float, str]]) -> Report:
    """
    Args:
        faults: when (seconds since 1970) and of which kind.
    """
    losses, expected = disturbed.losses(), undisturbed.losses()
    both = losses.keys() & expected.keys()
    apart = max(
        (abs(a - b) / b for step in both for a in losses[step] for b in expected[step]), default=0.0
    )
    taken = disturbed.losses().keys()
    return Report(
        kept=disturbed.rate / undisturbed.rate,
        faults=[(kind, disturbed.gap(at, _BEHIND_S)) for at, kind in faults],
        recoveries=[
            seconds for lines in disturbed.lines.values() for seconds in _recoveries(lines)
        ],
        twice=sum(len(one) > 1 for one in losses.values()),
        missing=len(set(range(max(taken) + 1)) - taken) if taken else 0,
        apart=apart,
    )


def _recoveries(lines: Sequence[Mapping[str, Any]]) -> Iterator[float]:
    """Of a node, but for those that it missed epochs in: then it was stopped or cut off itself."""
    epoch = None
    for one in lines:
        if "recovery" in one:
            if epoch is not None and one["epoch"] == epoch + 1:
                yield one["seconds"]
            epoch = one["epoch"]
