"""Ranks beside each other on this machine's own address, where nothing is slowed and no privilege is needed."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self


class LocalProcess:
    """What is asked of a `lab.Process`."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self._popen, self.log = popen, log

    def poll(self) -> int | None:
        return self._popen.poll()

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait()


class LocalHost:
    """What is asked of a `lab.Host`."""

    address = "127.0.0.1"

    def __init__(self) -> None:
        self.processes: list[LocalProcess] = []

    def start(
        self, argv: Sequence[str], *, log: Path, env: Mapping[str, str], cpus: float | None = None
    ) -> LocalProcess:
        assert cpus is None, "shares of a processor need a lab"
        with log.open("ab") as output:
            popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=dict(env))  # fmt: skip
        self.processes.append(LocalProcess(popen, log))
        return self.processes[-1]


class Loopback:
    """What is asked of a `lab.Lab`."""

    def __init__(self, hosts: int) -> None:
        self.hosts = [LocalHost() for _ in range(hosts)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for host in self.hosts:
            for process in host.processes:
                process.kill()
