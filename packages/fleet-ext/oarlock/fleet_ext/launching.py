"""Processes of a job on this machine: their beginning, what they say, and their end."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from oarlock.fleet_ext.job import Place

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
GRACE_S = 5.0  #: between asking a process to end and ending it
_LAST_LINES = 15  #: of who failed


class Ended(Exception):
    """This process was told to end.

    Attributes:
        signal: by which.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number


@dataclass(slots=True)
class Failure:
    """The first process that failed.

    Args:
        rank: which.
        code: of its exit, negative for a signal.
        said: its last lines.
    """

    rank: int
    code: int
    said: Sequence[str]

    def __str__(self) -> str:
        how = (
            f"was ended by {signal.Signals(-self.code).name}"
            if self.code < 0
            else f"ended with {self.code}"
        )
        if not self.said:
            return f"rank {self.rank} {how}, and had said nothing"
        return f"rank {self.rank} {how}; its last lines:\n" + "\n".join(
            f"    {line}" for line in self.said
        )


class Ranks:
    """Ranks as processes. Their lines come out whole, behind their rank.

    Args:
        command: program and arguments.
        places: of each process.
        threads: for each (OMP_NUM_THREADS), unless the environment says so already.
        logs: folder for a file of each rank's lines, too.
        out: where lines go.
    """

    def __init__(
        self, command: Sequence[str], places: Sequence[Place], *, threads: int, logs: Path | None = None,
        out: TextIO | None = None,
    ) -> None:  # fmt: skip
        self._out, self._writing = out or sys.stdout, threading.Lock()
        self._places = list(places)
        self._last: list[deque[str]] = [deque(maxlen=_LAST_LINES) for _ in places]
        if logs is not None:
            logs.mkdir(parents=True, exist_ok=True)
        self._processes: list[subprocess.Popen[str]] = []
        self._told: int | None = None  #: a signal that came to this process
        self._readers = []
        for place, last in zip(self._places, self._last):
            environment = {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1", **os.environ}
            process = subprocess.Popen(
                command,
                env=environment | place.environment(),
                stdin=None if place.local_rank == 0 else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # an interrupt comes to us, and we pass it on
                preexec_fn=_end_with_parent,
            )
            self._processes.append(process)
            log = (logs / f"rank-{place.rank}.log").open("a") if logs is not None else None
            reader = threading.Thread(
                target=self._read, args=(process, place, last, log), daemon=True
            )
            reader.start()
            self._readers.append(reader)

    def wait(self) -> Failure | None:
        """Until all have ended; where one fails, the others are ended too.

        Raises:
            Ended: this process was told to end, and has ended them.
        """
        failure = None
        before = {one: signal.signal(one, self._tell) for one in _ENDS}
        try:
            while failure is None and any(one.poll() is None for one in self._processes):
                failure = self._failed()
                if self._told is not None:
                    self.end(signal.Signals(self._told))
                    raise Ended(self._told)
                time.sleep(0.05)
            failure = failure or self._failed()
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
        if failure is not None:
            self.end(signal.SIGTERM)
        for reader in self._readers:
            reader.join(GRACE_S)
        return failure

    def end(self, first: signal.Signals) -> None:
        """Sends a signal, and ends for good who is still there after a while."""
        self._send(first)
        until = time.monotonic() + GRACE_S
        while any(one.poll() is None for one in self._processes) and time.monotonic() < until:
            time.sleep(0.02)
        self._send(signal.SIGKILL)
        for one in self._processes:
            one.wait()

    def _tell(self, number: int, frame: Any) -> None:
        self._told = number

    def _send(self, what: signal.Signals) -> None:
        for one in self._processes:
            if one.poll() is None:
                try:
                    os.killpg(one.pid, what)
                except ProcessLookupError:
                    pass  # it ended just now

    def _failed(self) -> Failure | None:
        for place, process, last in zip(self._places, self._processes, self._last):
            if process.poll() not in (None, 0):
                time.sleep(0.1)  # for its last lines
                return Failure(place.rank, process.returncode, list(last))
        return None

    def _read(
        self, process: subprocess.Popen[str], place: Place, last: deque[str], log: TextIO | None
    ) -> None:
        assert process.stdout is not None
        width = len(str(place.size - 1))
        for line in process.stdout:
            last.append(line.rstrip("\n"))
            with self._writing:
                self._out.write(
                    f"[{place.rank:>{width}}] {line if line.endswith(chr(10)) else line + chr(10)}"
                )
                self._out.flush()
            if log is not None:
                log.write(line)
                log.flush()
        if log is not None:
            log.close()


def _end_with_parent() -> None:
    """In the child: it is killed when its launcher is, however that happens."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
