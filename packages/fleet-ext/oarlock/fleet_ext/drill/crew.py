"""The nodes of a drill on the hosts of a lab, each with its agent, and what can happen to them."""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from oarlock.fleet_ext.checkpoints import latest
from oarlock.fleet_ext.drill.faults import Fault
from oarlock.fleet_ext.drill.loopback import LoopbackHost, LoopbackProcess, free_port
from oarlock.fleet_ext.drill.report import Course, Happened
from oarlock.fleet_ext.drill.settings import Settings
from oarlock.fleet_ext.lab import Disk, Host, Process
from oarlock.fleet_ext.transport import new_token

_JOB, _PORT = "drill", 6200
_START_S = 60.0
_DISK_BYTES = 8 << 20  #: room for some of a node's checkpoints
_AWAY_S = 2.0  #: for which a killed store is away
_SLOW = 1 / 50  #: of a link's rate, of 1 Gbit/s where it has no limit
_FAST = 1e9
_RECENT_S = 2.0  #: since when who trains has taken a step


@dataclass(slots=True)
class _Node:
    """A host, and the agent on it."""

    host: Host | LoopbackHost
    name: str
    agent: Process | LoopbackProcess
    disk: Disk
    undo: Callable[[], None] | None = field(default=None)  #: what happened to it, at `until`
    until: float = 0.0
    struck: float = 0.0  #: when something last happened to it


class Crew:
    """The nodes of a run, and their store.

    Args:
        hosts: one for the store, and one for each node; of a lab, or of this machine.
        least: nodes that training needs.
        folder: for what nodes write.
        most: nodes that train; the others are spare.
        cpus: share of a core of each node; None for no limit.
        rate: of each link, bit/s; None for what the machine can do.
    """

    def __init__(
        self, hosts: Sequence[Host] | Sequence[LoopbackHost], folder: Path, *, least: int, most: int,
        cpus: float | None = None, rate: float | None = None,
    ) -> None:  # fmt: skip
        self._folder, self._least, self._most = folder, least, most
        self._cpus, self._rate = cpus, rate
        self._token = folder / "token"
        self._token.write_text(new_token())
        self._store_host = hosts[0]
        self._port = _PORT if isinstance(hosts[0], Host) else free_port()
        self._store = self._start_store()
        self._nodes = [self._start(host) for host in hosts[1:]]
        self.logs = {node.name: folder / f"{node.name}.log" for node in self._nodes}
        self._struck = 0
        self._store_back = 0.0
        self.happened: list[Happened] = []

    def begun(self) -> float:
        """When all that train have taken some steps.

        Raises:
            RuntimeError: they did not begin.
        """
        until = time.monotonic() + _START_S
        while time.monotonic() < until:
            now = time.time()
            if all(path.exists() for path in self.logs.values()):
                lines = Course.read(self.logs, 0.0, now).lines.values()
                training = sum(
                    any("loss" in one and one["step"] >= 5 for one in node) for node in lines
                )
                if training == self._most and all(lines):
                    return now
            time.sleep(0.1)
        said = "\n".join(path.read_text()[-500:] for path in sorted(self._folder.glob("*.log")))
        raise RuntimeError(f"nodes did not begin within {_START_S:g} s:\n{said}")

    def strike(self, fault: Fault) -> Happened | None:
        """Lets a fault happen now, to who trains; another one each time. None where nobody does."""
        now = time.time()
        if fault.kind == "store":
            self._store.kill()
            self._store.wait()
            self._store_back = now + _AWAY_S
            self.happened.append(Happened(now, self._store_back, fault.kind, "store"))
            return self.happened[-1]
        if fault.kind == "power":
            for pid in self._pids().values():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass  # its agent has not started another yet
            self.happened.append(Happened(now, now, fault.kind, "all"))
            return self.happened[-1]
        found = self._victim(now)
        if found is None:
            return None
        node, pid = found
        self._struck += 1
        until = now + fault.lasts
        if fault.kind in ("kill", "stop"):
            os.kill(pid, signal.SIGKILL if fault.kind == "kill" else signal.SIGSTOP)
            until = now  # its agent does the rest
        else:
            self._undo(node, until, self._change(node, fault.kind))
        node.struck = time.time()
        self.happened.append(Happened(now, until, fault.kind, node.name))
        return self.happened[-1]

    def _change(self, node: _Node, kind: str) -> Callable[[], None]:
        """What only a lab can do to a node, and how it is undone."""
        host = node.host
        assert isinstance(host, Host), f"{kind} needs a lab"
        if kind == "link":
            host.link(False)
            return lambda: host.link(True)
        if kind == "slow":
            host.set_rate((self._rate or _FAST) * _SLOW)
            return lambda: host.set_rate(self._rate)
        node.disk.fill(node.agent.pid)
        place = len(self.happened)
        return lambda: self._free(node, place)

    def mend(self) -> None:
        """Ends what has lasted long enough."""
        now = time.time()
        if self._store_back and now >= self._store_back:
            self._store_back = 0.0
            self._store = self._start_store()
        for node in self._nodes:
            if node.undo is not None and now >= node.until:
                undo, node.undo = node.undo, None
                undo()

    def failed(self) -> str | None:
        """What an agent said that has given up, if one has."""
        for node in self._nodes:
            if node.agent.poll() is not None:
                return f"{node.name}: {node.agent.log.read_text()[-1000:]}"
        return None

    def _free(self, node: _Node, place: int) -> None:
        """Gives a disk room again, and sees whether the last checkpoint before is still good."""
        found = latest(node.disk.seen_from(node.agent.pid))
        before = self.happened[place]
        self.happened[place] = Happened(before.at, before.until, before.kind, before.node, found is not None)  # fmt: skip
        node.disk.free(node.agent.pid)

    @staticmethod
    def _undo(node: _Node, until: float, undo: Callable[[], None]) -> None:
        node.until, node.undo = until, undo

    def _victim(self, now: float) -> tuple[_Node, int] | None:
        """A node that trains and that nothing lasts on, and its training process."""
        course, pids = Course.read(self.logs, 0.0, now), self._pids()
        training = [
            (node, pids[node.name])
            for node in self._nodes
            if node.undo is None and trains(course.lines[node.name], node.struck, now)
        ]
        return training[self._struck % len(training)] if training else None

    def _pids(self) -> dict[str, int]:
        """Of the training process of each node that has one."""
        lines = Course.read(self.logs, 0.0, time.time()).lines
        return {
            name: next(one["pid"] for one in reversed(node) if "ready" in one)
            for name, node in lines.items()
            if any("ready" in one for one in node)
        }

    def _start_store(self) -> Process | LoopbackProcess:
        command = [sys.executable, "-m", "oarlock.fleet_ext.rendezvous", "--host", self._store_host.address,
                   "--port", str(self._port), "--job", _JOB, "--token-file", str(self._token),
                   "--journal", str(self._folder / "journal")]  # fmt: skip
        return self._store_host.start(command, log=self._folder / "store.log")

    def _start(self, host: Host | LoopbackHost) -> _Node:
        name = f"node-{host.index}"
        folder = self._folder / f"{name}.disk"
        folder.mkdir()
        disk = Disk(folder, _DISK_BYTES)
        settings = Settings(folder=str(folder))
        agent = [sys.executable, "-m", "oarlock.fleet_ext.cli.main", "agent", "--node", name, "--host", host.address,
                 "--store", f"{self._store_host.address}:{self._port}", "--token-file", str(self._token), "--job", _JOB,
                 "--least", str(self._least), "--most", str(self._most), "--logs", str(self._folder)]  # fmt: skip
        command = [*agent, "--", sys.executable, "-m", "oarlock.fleet_ext.drill.node", settings.pack()]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        log = self._folder / f"{name}.agent"
        if isinstance(host, LoopbackHost):
            return _Node(host, name, host.start(command, log=log, env=environment), disk)
        process = host.start(command, log=log, env=environment, cpus=self._cpus, disk=disk)
        return _Node(host, name, process, disk)


def trains(lines: Sequence[Mapping[str, Any]], struck: float, now: float) -> bool:
    """Whether a node has just taken a step, and taken it since something last happened to it.

    Of a process that was killed the last step may be just as recent, and the one in its place waits as a spare.

    Args:
        lines: what the node wrote.
    """
    last = max((one["time"] for one in lines if "loss" in one), default=-inf)
    return last > max(now - _RECENT_S, struck)
