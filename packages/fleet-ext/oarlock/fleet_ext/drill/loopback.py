"""Hosts without namespaces: processes of this machine, on its own address; no privilege is needed, and links are not slowed."""

import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self


class LoopbackProcess:
    """What a drill asks of a `lab.Process`."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self._popen, self.log, self.pid = popen, log, popen.pid

    def poll(self) -> int | None:
        return self._popen.poll()

    def wait(self) -> int:
        return self._popen.wait()

    def kill(self) -> None:
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)


class LoopbackHost:
    """What a drill asks of a `lab.Host`."""

    address = "127.0.0.1"

    def __init__(self, index: int) -> None:
        self.index = index
        self.processes: list[LoopbackProcess] = []

    def start(
        self, argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None
    ) -> LoopbackProcess:
        with log.open("ab") as output:
            popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env,
                                     start_new_session=True)  # fmt: skip
        self.processes.append(LoopbackProcess(popen, log))
        return self.processes[-1]


class Loopback:
    """What a drill asks of a `lab.Lab`; ends all processes with the `with` block."""

    def __init__(self, hosts: int) -> None:
        self.hosts = [LoopbackHost(index) for index in range(hosts)]

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
                process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]
