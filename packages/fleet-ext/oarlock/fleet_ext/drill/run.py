"""Drills: nodes in a lab, to which faults happen, beside the same nodes to which nothing happens."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from oarlock.fleet_ext.drill.crew import Crew
from oarlock.fleet_ext.drill.faults import KINDS, WITHOUT_LAB, Fault
from oarlock.fleet_ext.drill.loopback import Loopback
from oarlock.fleet_ext.drill.report import Course, Happened, Report, compared
from oarlock.fleet_ext.lab import Lab

CPUS = 0.4  #: of a node, so that four and their store fit on two cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """
    Args:
        nodes: that train.
        spares: that are ready.
        seconds: of training, without and with faults.
        faults: what happens.
        rate: of each node's link, bit/s; None for what the machine can do.
        cpus: share of a core of each node, so that a lost one does not speed up the others; None for no limit.
        loopback: nodes are processes of this machine, which needs no root, and has no links, disks and shares to limit.
    """

    nodes: int = 3
    spares: int = 1
    seconds: float = 60.0
    faults: Sequence[Fault] = ()
    rate: float | None = None
    cpus: float | None = CPUS
    loopback: bool = False

    def __post_init__(self) -> None:
        if self.nodes < 2 or self.spares < 0:
            raise ValueError(
                f"nodes must be at least 2 and spares not negative, not {self.nodes} and {self.spares}"
            )
        refused = sorted({one.kind for one in self.faults} - set(WITHOUT_LAB))
        if self.loopback and (refused or self.rate is not None or self.cpus is not None):
            raise ValueError(
                f"loopback must come with rate=None, cpus=None and faults of {', '.join(WITHOUT_LAB)}: a lab has the others"
            )


def run(drill: Drill, folder: Path, told: Callable[[str], None] = lambda words: None) -> Report:
    """
    Args:
        folder: for what nodes write.
        told: called with what happens.

    Raises:
        LabUnavailable: there can be no namespaces here.
        RuntimeError: nodes did not begin, or an agent gave up.
    """
    courses = []
    happened: list[Happened] = []
    for name, faults in (("undisturbed", ()), ("disturbed", drill.faults)):
        part = folder / name
        part.mkdir(parents=True)
        count = 1 + drill.nodes + drill.spares
        with Loopback(count) if drill.loopback else Lab(count, rate=drill.rate) as place:
            crew = Crew(
                place.hosts, part, least=2, most=drill.nodes, cpus=drill.cpus, rate=drill.rate
            )
            told(f"{name}: {drill.nodes} nodes train, {drill.spares} are ready")
            begin = crew.begun()
            _train(crew, faults, begin, drill.seconds, told)
            courses.append(Course.read(crew.logs, begin, time.time()))
            happened = crew.happened
    return compared(courses[1], courses[0], happened)


def _train(
    crew: Crew, faults: Sequence[Fault], begin: float, seconds: float, told: Callable[[str], None]
) -> None:
    """Lets faults happen in their time."""
    waiting = sorted(faults, key=lambda one: one.at)
    while (now := time.time()) < begin + seconds:
        crew.mend()
        if (why := crew.failed()) is not None:
            raise RuntimeError(f"an agent has ended: {why}")
        if waiting and now >= begin + waiting[0].at:
            fault = waiting.pop(0)
            struck = crew.strike(fault)
            who = "nobody trains, so this is left out" if struck is None else struck.node
            told(f"{now - begin:6.1f} s: {who}: {KINDS[fault.kind]}")
        time.sleep(0.05)
