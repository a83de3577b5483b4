"""A replica as a process: its beginning, whether it answers, and its end."""

import os
import signal
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from oarlock.fleet_ext.children import Child, Lines, how, threads_environment

_PROBE_PAUSE_S = 0.25
SILENT_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How a replica is started.

    Args:
        argv: program and arguments, in which {port} and {host} are replaced; {port} must be there.
        host: address on which it listens, by which routers reach it.
        health: path that answers 2xx as long as it can answer requests.
        threads: of the process; None for what it takes by itself.
        silent: seconds without an answer on that path after which it is hung.

    Raises:
        ValueError: an argument is not what it should be.
    """

    argv: tuple[str, ...]
    host: str = "127.0.0.1"
    health: str = "/health"
    threads: int | None = None
    silent: float = SILENT_S

    def __post_init__(self) -> None:
        if not self.argv or not any("{port}" in one for one in self.argv):
            raise ValueError(
                f"command must have {{port}} where the replica's port goes, not {' '.join(self.argv)!r}"
            )
        if not self.health.startswith("/"):
            raise ValueError(f"health must be a path such as /health, not {self.health!r}")
        if not self.silent > 0:
            raise ValueError(f"silent must be above 0 seconds, not {self.silent}")


class ReplicaProcess:
    """
    Args:
        command: to start.
        id: of the replica; it has it in OARLOCK_REPLICA.
        lines: where what it writes goes.

    Attributes:
        answers: whether the last health request was answered well.
    """

    def __init__(self, command: Command, id: str, lines: Lines) -> None:
        self.id, self.host, self.port = id, command.host, _free_port(command.host)
        self.begun = time.monotonic()
        self._command = command
        filled = [one.replace("{port}", str(self.port)).replace("{host}", self.host)
                  for one in command.argv]  # fmt: skip
        environment = {
            **threads_environment(command.threads), "PYTHONUNBUFFERED": "1", **os.environ,
            "OARLOCK_REPLICA": id,
        }  # fmt: skip
        self._child = Child(filled, environment, name=id, lines=lines)
        self.pid = self._child.pid
        self.answers = False
        self._failed, self._failing_since = 0, 0.0
        self._over = threading.Event()
        self._prober = threading.Thread(target=self._probe, name=f"health of {id}", daemon=True)
        self._prober.start()

    @property
    def code(self) -> int | None:
        """Of its exit, negative for a signal; None while it runs."""
        return self._child.poll()

    @property
    def stopped(self) -> bool:
        """Whether the system says that it does not run at all (SIGSTOP)."""
        try:
            with open(f"/proc/{self.pid}/stat", encoding="utf-8", errors="replace") as stat:
                return stat.read().rpartition(")")[2].split()[0] == "T"
        except (FileNotFoundError, ProcessLookupError):
            return False

    @property
    def silent(self) -> float:
        """Seconds for which no health request was answered well, by two or more; else 0."""
        return time.monotonic() - self._failing_since if self._failed >= 2 else 0.0

    @property
    def last_lines(self) -> Sequence[str]:
        self._child.settle(0.2)
        return list(self._child.last)

    def how(self) -> str:
        """Its end, in words."""
        code = self.code
        return "runs" if code is None else how(code)

    def end(self) -> None:
        """Asks it to."""
        self._child.send(signal.SIGTERM)

    def close(self) -> None:
        """Ends it and what it started, if they have not ended."""
        self._over.set()
        self._child.kill()
        try:
            os.killpg(self.pid, signal.SIGKILL)  # those that it left behind
        except ProcessLookupError:
            pass

    def _probe(self) -> None:
        url = f"http://{self.host}:{self.port}{self._command.health}"
        limit = self._command.silent / 2
        with httpx.Client(timeout=limit, trust_env=False) as client:
            while not self._over.is_set() and self.code is None:
                begun = time.monotonic()
                try:
                    well = client.get(url).is_success
                except httpx.HTTPError:
                    well = False
                if well:
                    self._failed = 0
                else:
                    # Two in a row: when this machine stood still, one alone says nothing of the replica.
                    self._failing_since = self._failing_since if self._failed else begun
                    self._failed += 1
                self.answers = well
                self._over.wait(_PROBE_PAUSE_S)


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as found:
        return found.getsockname()[1]
