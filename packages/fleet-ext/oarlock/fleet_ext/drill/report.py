"""What a drill shows, read from what its nodes wrote."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

_BEHIND_S = 5.0  #: in which a fault shows, behind its end


@dataclass(frozen=True, slots=True)
class Happened:
    """A fault.

    Args:
        at, until: seconds since 1970.
        kind: of `faults.KINDS`.
        node: to which it happened.
        sound: for a full disk, whether the last checkpoint before was still good at its end.
    """

    at: float
    until: float
    kind: str
    node: str
    sound: bool | None = None


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
        return cls({name: list(_whole(path)) for name, path in logs.items()}, begin, end)

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

    def gap(self, at: float, until: float, following: float = inf) -> float:
        """The longest time without a step that begins before `until` and ends behind `at`.

        Args:
            following: when the next fault happens, to which the time from there on is put down.
        """
        times = sorted([*self.steps().values(), self.end])
        return max(
            (min(b, following) - a for a, b in zip(times, times[1:]) if b >= at and a <= until),
            default=0.0,
        )

    def recoveries(self, at: float, until: float) -> list[float]:
        """Seconds from notice until training went on, of each node that stayed."""
        return [
            seconds
            for lines in self.lines.values()
            for when, seconds in _recoveries(lines)
            if at <= when <= until
        ]

    def unsaved(self, node: str, at: float, until: float) -> int:
        """Checkpoints of a node that failed."""
        return sum(
            "unsaved" in one and at <= one["time"] <= until for one in self.lines.get(node, ())
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a fault.

    Args:
        kind: of it.
        gap: seconds without a step.
        recovery: seconds from when it was noticed until training went on, the longest of those who stayed; None where no
            node had to be done without.
        unsaved: checkpoints that failed, and told so.
        sound: see `Happened`.
    """

    kind: str
    gap: float
    recovery: float | None = None
    unsaved: int = 0
    sound: bool | None = None

    @property
    def noticed(self) -> float | None:
        """Seconds until it was noticed: those without a step that were not spent on recovery."""
        return None if self.recovery is None else max(0.0, self.gap - self.recovery)

    def __str__(self) -> str:
        said = f"{self.kind}: {self.gap:.2f} s without a step"
        if self.recovery is not None:
            said += f" (noticed in {self.noticed:.2f} s, recovered in {1e3 * self.recovery:.0f} ms)"
        if self.sound is not None:
            said += f", {self.unsaved} checkpoints failed, the one before is {'good' if self.sound else 'lost'}"
        return said


@dataclass(frozen=True, slots=True)
class Report:
    """
    Args:
        kept: the share of the undisturbed run's steps a second.
        faults: what came of each.
        recoveries: seconds from when a failure was noticed until training went on, of each node that stayed.
        twice: steps that nodes saw with different losses: taken from different states.
        missing: steps that nobody took.
        apart: the largest relative difference from the undisturbed run's loss of the same step.
    """

    kept: float
    faults: Sequence[Outcome]
    recoveries: Sequence[float]
    twice: int
    missing: int
    apart: float

    def __str__(self) -> str:
        lines = [f"throughput kept: {100 * self.kept:.1f} %"]
        lines += [f"  {one}" for one in self.faults]
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

    def plain(self) -> dict[str, Any]:
        """For a file of JSON, with the names of the attributes; `noticed` beside each fault's."""
        return asdict(self) | {
            "faults": [asdict(one) | {"noticed": one.noticed} for one in self.faults]
        }


def compared(disturbed: Course, undisturbed: Course, faults: Sequence[Happened]) -> Report:
    """
    Args:
        faults: what happened in the disturbed run, in the order of time.
    """
    losses, expected = disturbed.losses(), undisturbed.losses()
    both = losses.keys() & expected.keys()
    apart = max(
        (abs(a - b) / b for step in both for a in losses[step] for b in expected[step]), default=0.0
    )
    taken = losses.keys()
    return Report(
        kept=disturbed.rate / undisturbed.rate,
        faults=[
            _outcome(disturbed, one, following.at if following is not None else disturbed.end)
            for one, following in zip_longest(faults, faults[1:])
        ],
        recoveries=disturbed.recoveries(disturbed.begin, disturbed.end),
        twice=sum(len(one) > 1 for one in losses.values()),
        missing=len(set(range(max(taken) + 1)) - taken) if taken else 0,
        apart=apart,
    )


def _outcome(course: Course, fault: Happened, following: float) -> Outcome:
    """What shows of a fault before the next one."""
    until = min(fault.until + _BEHIND_S, following)
    recoveries = (
        course.recoveries(fault.at, until) if fault.kind in ("kill", "stop", "link", "slow") else []
    )
    return Outcome(
        fault.kind,
        course.gap(fault.at, until, following),
        max(recoveries, default=None),
        course.unsaved(fault.node, fault.at, until),
        fault.sound,
    )


def _whole(path: Path) -> Iterator[Mapping[str, Any]]:
    """Lines of JSON that are written to their end."""
    for line in path.read_text().rpartition("\n")[0].splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def _recoveries(lines: Sequence[Mapping[str, Any]]) -> Iterator[tuple[float, float]]:
    """When and how long, of a node, but for those of a process that begins, or that missed epochs: it was away itself."""
    epoch = None
    for one in lines:
        if "ready" in one:
            epoch = None
        if "recovery" in one:
            if epoch is not None and one["epoch"] == epoch + 1:
                yield one["time"], one["seconds"]
            epoch = one["epoch"]
