"""A process whose lines come out whole, each behind a name, and which does not outlive who started it."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
GRACE_S = 5.0  #: between asking a process to end and ending it
_LAST_LINES = 15  #: that are kept, to say why it ended


class Lines:
    """Where processes write to, line by line.

    Args:
        out: standard output where none is given.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out, self._lock = out or sys.stdout, threading.Lock()

    def write(self, name: str, line: str) -> None:
        with self._lock:
            self._out.write(f"[{name}] {line}\n")
            self._out.flush()


class Child:
    """A process in a session of its own. To be started from the main thread: it ends with the thread that starts it.

    Args:
        command: program and arguments.
        environment: all of it.
        name: before its lines.
        lines: where they go.
        log: a file that gets them, too.
        listens: whether it has the standard input of this process.
        whole: whether all that it started ends with it, which is seen to when `poll` finds it ended.

    Attributes:
        last: the latest of its lines.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, name: str, lines: Lines,
        log: Path | None = None, listens: bool = False, whole: bool = False,
    ) -> None:  # fmt: skip
        self.name, self._lines, self._whole = name, lines, whole
        self.last: deque[str] = deque(maxlen=_LAST_LINES)
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=None if listens else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # an interrupt comes to us, and we pass it on
            preexec_fn=_end_with_parent,
        )
        self.pid = self._process.pid
        file = log.open("a") if log is not None else None
        self._reader = threading.Thread(target=self._read, args=(file,), daemon=True)
        self._reader.start()

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if self._whole and self._process.returncode is None and self._over():
            self._signal(signal.SIGKILL)
        return self._process.poll()

    def send(self, what: signal.Signals) -> None:
        """A signal to it and to all that it started."""
        if self.poll() is None:
            self._signal(what)

    def kill(self) -> None:
        """Ends it for good, also where it is stopped."""
        self.send(signal.SIGKILL)
        self._process.wait()

    def _over(self) -> bool:
        """Whether it has ended. It is left for `poll` to collect: until then its group's number is its own."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _signal(self, what: signal.Signals) -> None:
        try:
            os.killpg(self.pid, what)
        except ProcessLookupError:
            pass  # the last of them ended just now

    def settle(self, seconds: float = GRACE_S) -> None:
        """Waits for the last lines of an ended process."""
        self._reader.join(seconds)

    def _read(self, log: TextIO | None) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                line = line.removesuffix("\n")
                self.last.append(line)
                self._lines.write(self.name, line)
                if log is not None:
                    log.write(line + "\n")
                    log.flush()
        if log is not None:
            log.close()


def end(children: Sequence[Child], first: signal.Signals, grace: float = GRACE_S) -> None:
    """Sends a signal, and ends for good who is still there after so many seconds."""
    for one in children:
        one.send(first)
    until = time.monotonic() + grace
    while any(one.poll() is None for one in children) and time.monotonic() < until:
        time.sleep(0.02)
    for one in children:
        one.kill()


def how(code: int) -> str:
    """An exit status in words: "was ended by SIGKILL"."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


def threads_environment(count: int | None) -> dict[str, str]:
    """For libraries that read their number of threads once; Paddle, which warns of OMP_NUM_THREADS, is told later."""
    if count is None:
        return {}
    if count == 1:
        return {"OMP_NUM_THREADS": "1"}
    return {"OPENBLAS_NUM_THREADS": str(count), "MKL_NUM_THREADS": str(count)}


def _end_with_parent() -> None:
    """In the child: it is killed when its starter is, however that happens."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
