"""Drills: nodes in a lab, to which faults happen, beside the same nodes to which nothing happens."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from oarlock.fleet_ext.drill.faults import Fault
from oarlock.fleet_ext.drill.node import JOB, Settings
from oarlock.fleet_ext.drill.report import Course, Report, compared
from oarlock.fleet_ext.lab import Host, Lab, Process
from oarlock.fleet_ext.transport import new_token

_PORT = 6200
_START_S = 60.0


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
    """

    nodes: int = 3
    spares: int = 1
    seconds: float = 60.0
    faults: Sequence[Fault] = ()
    rate: float | None = None
    cpus: float | None = 0.4

    def __post_init__(self) -> None:
        if self.nodes < 2 or self.spares < 0:
            raise ValueError(
                f"nodes must be at least 2 and spares not negative, not {self.nodes} and {self.spares}"
            )


def run(drill: Drill, folder: Path, told: Callable[[str], None] = lambda words: None) -> Report:
    """
    Args:
        folder: for what nodes write.
        told: called with what happens.

    Raises:
        LabUnavailable: there can be no namespaces here.
        RuntimeError: nodes did not begin.
    """
    courses = []
    happened: list[tuple[float, str]] = []
    for name, faults in (("undisturbed", ()), ("disturbed", drill.faults)):
        part = folder / name
        part.mkdir(parents=True)
        with Lab(1 + drill.nodes + drill.spares, rate=drill.rate) as lab:
            crew = _Crew(drill, lab, part)
            told(f"{name}: {drill.nodes} nodes train, {drill.spares} are ready")
            begin = crew.begun()
            happened = crew.suffer(faults, begin, told)
            courses.append(Course.read(crew.logs, begin, time.time()))
    return compared(courses[1], courses[0], happened)


@dataclass(slots=True)
class _Place:
    """A host, and the node on it."""

    host: Host
    name: str
    process: Process
    away: float = field(default=0.0)  #: until when it is stopped or cut off


class _Crew:
    """The nodes of a run; one that is killed begins again, as another."""

    def __init__(self, drill: Drill, lab: Lab, folder: Path) -> None:
        self._drill, self._folder, self._token = drill, folder, new_token()
        self.logs: dict[str, Path] = {}
        self._store = lab.hosts[0]
        command = [sys.executable, "-m", "oarlock.fleet_ext.rendezvous", "--host", self._store.address,
                   "--port", str(_PORT), "--job", JOB]  # fmt: skip
        environment = os.environ | {"OARLOCK_STORE_TOKEN": self._token}
        self._store.start(command, log=folder / "store.log", env=environment)
        self._places = [self._start(host) for host in lab.hosts[1:]]

    def begun(self) -> float:
        """When all that train have taken some steps."""
        until = time.monotonic() + _START_S
        while time.monotonic() < until:
            now = time.time()
            course = Course.read(self.logs, 0.0, now)
            training = sum(
                any("loss" in one and one["step"] >= 5 for one in lines)
                for lines in course.lines.values()
            )
            ready = sum(bool(lines) for lines in course.lines.values())
            if training == self._drill.nodes and ready == len(self._places):
                return now
            time.sleep(0.1)
        said = "\n".join(path.read_text()[-500:] for path in self.logs.values())
        raise RuntimeError(f"nodes did not begin within {_START_S:g} s:\n{said}")

    def suffer(
        self, faults: Sequence[Fault], begin: float, told: Callable[[str], None]
    ) -> list[tuple[float, str]]:
        """Lets faults happen in their time; when they did, and their kinds."""
        happened, waiting = [], sorted(faults, key=lambda one: one.at)
        while (now := time.time()) < begin + self._drill.seconds:
            self._mend(now)
            if waiting and now >= begin + waiting[0].at:
                fault = waiting.pop(0)
                place = self._victim()
                if place is not None:
                    told(f"{now - begin:6.1f} s: {fault.kind} {place.name}")
                    happened.append((now, fault.kind))
                    self._strike(place, fault, now)
            time.sleep(0.05)
        return happened

    def _victim(self) -> _Place | None:
        """Who trains, and has taken the latest step of them; another one each time."""
        course = Course.read(self.logs, 0.0, time.time())
        latest = {
            place.name: max(
                (one["time"] for one in course.lines[place.name] if "loss" in one), default=0.0
            )
            for place in self._places
            if not place.away and place.process.poll() is None
        }
        training = [name for name, at in latest.items() if at > time.time() - 2.0]
        if not training:
            return None
        chosen = training[len(self.logs) % len(training)]
        return next(place for place in self._places if place.name == chosen)

    def _strike(self, place: _Place, fault: Fault, now: float) -> None:
        if fault.kind == "kill":
            place.process.kill()
            place.process.wait()
            fresh = self._start(place.host)
            place.name, place.process = fresh.name, fresh.process
            return
        place.away = now + fault.lasts
        if fault.kind == "stop":
            place.process.stop()
        else:
            place.host.link(False)

    def _mend(self, now: float) -> None:
        for place in self._places:
            if place.away and now > place.away:
                place.away = 0.0
                place.host.link(True)
                place.process.cont()

    def _start(self, host: Host) -> _Place:
        name = f"node-{host.index}-{len(self.logs)}"
        log = self._folder / f"{name}.log"
        settings = Settings(
            store=(self._store.address, _PORT), token=self._token, host=host.address, least=2,
            most=self._drill.nodes,
        )  # fmt: skip
        command = [sys.executable, "-m", "oarlock.fleet_ext.drill.node", settings.pack(), name]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        log.touch()
        self.logs[name] = log
        return _Place(
            host, name, host.start(command, log=log, env=environment, cpus=self._drill.cpus)
        )
