"""An agent: keeps a node's training process running, until training is over or it is of no use."""

import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

from oarlock.fleet_ext.agent.board import Board, Line, started
from oarlock.fleet_ext.agent.cluster import Cluster
from oarlock.fleet_ext.agent.place import NodePlace
from oarlock.fleet_ext.agent.progress import Progress
from oarlock.fleet_ext.agent.watchdog import Watchdog, state_of
from oarlock.fleet_ext.children import Child, Lines, end, how, threads_environment
from oarlock.fleet_ext.rendezvous import Store, Unreachable
from oarlock.fleet_ext.transport import Refused

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOK_S = 0.1
_NODE = re.compile(r"[A-Za-z0-9._-]{1,100}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """
    Args:
        deaths: so many in a row, of processes that got no step further than those before, and the agent gives up.
        pause: seconds before a process is started again; doubled with each such death in a row.
        longest_pause: seconds, at most.
        stopped: seconds for which a process may be stopped (SIGSTOP) before it is ended and started again.
        hung: seconds for which others may do without a process that had taken part and does not move.
        drain: seconds for a process that is told to leave.
    """

    deaths: int = 5
    pause: float = 0.5
    longest_pause: float = 30.0
    stopped: float = 1.0
    hung: float = 30.0
    drain: float = 15.0

    def __post_init__(self) -> None:
        if self.deaths < 1:
            raise ValueError(f"deaths must be at least 1, not {self.deaths}")
        for name in ("pause", "longest_pause", "stopped", "hung", "drain"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0 seconds, not {getattr(self, name)}")


class GaveUp(Exception):
    """The process ends again and again without getting further.

    Attributes:
        code: of its last exit, negative for a signal.
    """

    def __init__(self, words: str, code: int) -> None:
        super().__init__(words)
        self.code = code


class Agent:
    """Runs a command as the training process of a node, again and again where it dies or hangs.

    Each process has a name of its own in the job, made of the node's and a number, so that one that is started again is
    not taken for the one before.

    Args:
        command: program and arguments; the program uses `enter`.
        store: of the job, and nobody else's.
        place: of the node, whose process gets a name and a file of progress.
        policy: when to start again, and when not.
        logs: folder for a file of the process's lines, too.
        told: called with what happens.
        out: where the process's lines go, behind the node's name.

    Raises:
        ValueError: of an argument.
    """

    def __init__(
        self, command: Sequence[str], store: Store, place: NodePlace, *, policy: Policy = Policy(),
        logs: Path | None = None, told: Callable[[str], None] = lambda words: None,
        out: TextIO | None = None,
    ) -> None:  # fmt: skip
        if not command:
            raise ValueError("command must not be empty: give a program, such as python train.py")
        if _NODE.fullmatch(place.node) is None:
            raise ValueError(
                f"node must have letters, digits, dots, dashes and underscores only, not {place.node!r}"
            )
        self._command, self._store, self._place, self._policy = command, store, place, policy
        self._logs, self._tell, self._lines = logs, told, Lines(out)
        self._told: signal.Signals | None = None  #: to end, by which signal
        self._line = Line()
        self._file: Path | None = None  #: of the present process's progress

    def run(self) -> None:
        """Until the process has ended well, or this was told to end (SIGTERM, SIGINT, SIGHUP), by which it is told to leave
        the others. From the main thread.

        Raises:
            GaveUp: it ends again and again without getting further.
            NodeTaken: another agent has the node's name.
            StoreError: the store refuses this agent.
        """
        before = {one: signal.signal(one, self._note) for one in _ENDS}
        try:
            number = self._number()
            if number is None:
                return
            with TemporaryDirectory(prefix="oarlock-") as folder:
                with closing(Board(self._store, self._place.node, self._current)) as board:
                    self._run(board, Path(folder), number)
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def _run(self, board: Board, folder: Path, first: int) -> None:
        deaths = farthest = 0
        number: int | None = first
        while number is not None:
            name = f"{self._place.node}.{number}"
            self._file = folder / name
            self._file.touch()
            child = self._start(name, self._file)
            self._line = Line(process=name, pid=child.pid, starts=number, last=self._line.last)
            why = self._attend(
                child, Watchdog(name, stopped=self._policy.stopped, hung=self._policy.hung), board
            )
            child.settle()
            if why is None:
                return
            steps = Progress.read(self._file).steps
            deaths = 0 if steps > farthest else deaths + 1
            farthest = max(farthest, steps)
            code = child.poll()
            assert code is not None
            if deaths >= self._policy.deaths:
                raise GaveUp(_lament(deaths, why, child, board.cluster), code)
            pause = min(self._policy.longest_pause, self._policy.pause * 2 ** max(0, deaths - 1))
            self._tell(f"{name}: {why}; another begins in {pause:g} s")
            self._line = replace(self._current(), phase="pause", last=why)
            self._file = None
            self._sleep(pause)
            number = self._number()

    def _start(self, name: str, file: Path) -> Child:
        place = replace(self._place, node=name, progress=file)
        if self._logs is not None:
            self._logs.mkdir(parents=True, exist_ok=True)
        return Child(
            self._command,
            {"PYTHONUNBUFFERED": "1", **os.environ, **threads_environment(place.threads), **place.environment()},
            name=self._place.node,
            lines=self._lines,
            whole=True,
            log=self._logs / f"{self._place.node}.log" if self._logs is not None else None,
        )  # fmt: skip

    def _attend(self, child: Child, watchdog: Watchdog, board: Board) -> str | None:
        """Until a process ends, or is ended; why it has to be started again, if it has."""
        while (code := child.poll()) is None:
            if self._told is not None:
                self._tell(f"{self._told.name}: {self._place.node} leaves")
                end([child], signal.SIGTERM, self._policy.drain)
                return None
            assert self._file is not None
            progress = Progress.read(self._file)
            states = state_of(child.pid) + (state_of(progress.pid) if progress.pid else "")
            why = watchdog.look(time.monotonic(), states, progress, board.cluster)
            if why is not None:
                child.kill()
                return why
            time.sleep(_LOOK_S)
        return None if code == 0 or self._told is not None else f"it {how(code)}"

    def _current(self) -> Line:
        """What the board shows."""
        line, file = self._line, self._file
        if file is None:
            return line
        progress = Progress.read(file)
        return replace(
            line,
            phase=progress.phase.name.lower(),
            pid=progress.pid or line.pid,
            steps=progress.steps,
        )

    def _number(self) -> int | None:
        """Of the next process; waits for the store. None where this was told to end before."""
        while self._told is None:
            try:
                return started(self._store, self._place.node)
            except Unreachable as error:
                if isinstance(error.__cause__, Refused):
                    raise
                self._tell(
                    f"{self._place.node} waits for the {self._store.where}: {error.__cause__}"
                )
        return None

    def _note(self, number: int, frame: Any) -> None:
        self._told = signal.Signals(number)

    def _sleep(self, seconds: float) -> None:
        """Until it has passed, or this was told to end."""
        until = time.monotonic() + seconds
        while self._told is None and time.monotonic() < until:
            time.sleep(min(_LOOK_S, seconds))


def _lament(deaths: int, why: str, child: Child, cluster: Cluster | None) -> str:
    said = "\n".join(f"    {line}" for line in child.last) or "    (nothing)"
    others = (
        "; others train on" if cluster is not None and cluster.epoch and not cluster.done else ""
    )
    return f"given up{others}: {deaths} times in a row the process got no step further; the last time {why}, and had said:\n{said}"
