"""A network of paced links where network namespaces are not permitted; no privilege is needed.

    with Paced(hosts=4, rate=100e6, delay=0.01) as network:
        workers = [host.start(argv, log=f"worker{host.index}.log") for host in network.hosts]

Hosts are processes of this machine on its loopback address. A small library, compiled when the network
begins and preloaded into them, leads their TCP connections through a relay, a process that gives each
host an upload and a download of the rate, shared by all its connections, and the delay. Programs,
whatever language they are in, do not notice: their sockets are the kernel's.

What it is not: TCP ends at the relay, so a connection opens at once, and neither loses packets nor has
to find out the rate of its link; only what arrives, and when, is a slow link's. The relay's work (it
copies every byte) is done by the same processors as the hosts'. UDP, Unix sockets and shared memory
are not paced, so ranks must be told not to share memory; there are no other hosts and no IPv6, and
programs that call the kernel without the C library go their own ways. Where the process that has the
network is killed, the relay ends all connections, but nobody ends the hosts' processes.
"""

import math
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from oarlock.fleet_ext.lab import keeper, paced_relay
from oarlock.fleet_ext.lab.cluster import LONGEST_DELAY
from oarlock.fleet_ext.lab.commands import CommandError, LabUnavailable, run
from oarlock.fleet_ext.lab.host import check_rate
from oarlock.fleet_ext.lab.network import MOST_HOSTS
from oarlock.fleet_ext.lab.process import Process

SOURCE = Path(__file__).with_name("paced_connect.c")
VARIABLE = "OARLOCK_PACED"  #: for `SOURCE`
#: Connects to a port that no host has; where this is not led through the relay, it succeeds.
PROBE = """
import socket, sys
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1]))).close()
except ConnectionRefusedError:
    print("refused")
"""


class PacedHost:
    """One host; made by `Paced`.

    Attributes:
        index: its place in the network.
        address: by which the others reach it; its ports are its own as long as nobody else has them.
        processes: all that were started, ended ones included.
    """

    address = "127.0.0.1"

    def __init__(self, index: int, network: "Paced") -> None:
        self.index = index
        self.processes: list[Process] = []
        self._network = network
        self._quotas = count()

    def start(
        self,
        argv: Sequence[str],
        *,
        log: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        cpus: float | None = None,
    ) -> Process:
        """Runs a command on this host, in a session and process group of its own.

        Args:
            argv: the program and its arguments.
            log: the file to which its output, errors included, is appended.
            env: its whole environment; None for that of this process.
            cwd: the directory it starts in; None for that of this process.
            cpus: how many cores it and its children may use on average; None for no limit.

        Raises:
            ValueError: there is no such program or directory, or `cpus` is too small.
            LabUnavailable: with `cpus`, where there are no CPU quotas (`quota.shares_unavailable`).
        """
        given = dict(os.environ if env is None else env)
        name = f"{self._network.name}-h{self.index}"
        process = Process.start(
            argv,
            argv,
            log=log,
            env=given | self._network.environment(self.index, given),
            cwd=cwd,
            cpus=cpus,
            space=name,
            quota=f"{name}-{next(self._quotas)}",
        )
        self.processes.append(process)
        return process


class Paced:
    """Hosts with paced links, for as long as the `with` block lasts; the face of `Lab`, without its faults.

    Args:
        hosts: how many, 1 to 250.
        rate: bit/s of each direction of each host's link; has to be given. As in a lab, headers of Ethernet count: TCP
            carries 96 % of it.
        delay: one-way, in s, between any two hosts.

    Attributes:
        hosts: the hosts, inside the block.
        name: of its CPU quotas, inside the block.

    Raises:
        ValueError: an argument is out of range.
        LabUnavailable: on entering, where there is no C compiler, or nothing can be preloaded.
    """

    def __init__(self, hosts: int = 4, *, rate: float | None, delay: float = 0.0) -> None:
        if not (isinstance(hosts, int) and 1 <= hosts <= MOST_HOSTS):
            raise ValueError(f"hosts={hosts!r} has to be a whole number from 1 to {MOST_HOSTS}")
        if rate is None:
            raise ValueError("rate=None has to be a number: without one nothing is to be paced")
        check_rate(rate)
        if not (math.isfinite(delay) and 0 <= delay <= LONGEST_DELAY):
            raise ValueError(f"delay={delay} has to be in [0, {LONGEST_DELAY:g}] seconds, one-way")
        self.hosts: list[PacedHost] = []
        self.name = ""
        self._count, self._rate, self._delay = hosts, rate, delay
        self._relay: subprocess.Popen[str] | None = None
        self._port = 0

    def __enter__(self) -> Self:
        if self.name:
            raise RuntimeError(f"this network has begun already, as {self.name}")
        # A lab of the same process counts from 0.
        self.name = keeper.name_for(os.getpid(), time.monotonic_ns())
        self._folder = TemporaryDirectory(prefix="oarlock-paced-")
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        failed = self._relay is not None and self._relay.poll() is not None
        self._remove()
        if failed and error is None:
            raise RuntimeError("the relay of the links ended before the network did")

    def environment(self, host: int, given: Mapping[str, str]) -> dict[str, str]:
        """What a process of a host needs beside what it was given."""
        preloaded = [str(self._library), *filter(None, [given.get("LD_PRELOAD")])]
        return {"LD_PRELOAD": " ".join(preloaded), VARIABLE: f"{host} {self._port} {self._control}"}

    @property
    def _library(self) -> Path:
        return Path(self._folder.name) / "connect.so"

    @property
    def _control(self) -> Path:
        return Path(self._folder.name) / "control"

    def _build(self) -> None:
        compile_library(self._library)
        script = str(Path(paced_relay.__file__).resolve())
        given = [self._rate, self._delay, self._count, self._control]
        self._relay = subprocess.Popen(
            [sys.executable, "-I", "-S", script, *map(str, given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            start_new_session=True,
        )
        assert self._relay.stdout is not None
        said = self._relay.stdout.readline()
        if not said.strip().isdigit():
            raise LabUnavailable(
                "the relay of the links did not begin; standard error has its words"
            )
        self._port = int(said)
        self._check()
        self.hosts = [PacedHost(index, self) for index in range(self._count)]

    def _check(self) -> None:
        """Looks whether processes are paced, since what cannot be preloaded is left out in silence."""
        with socket.create_server((PacedHost.address, 0)) as stranger:
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-c", PROBE, str(stranger.getsockname()[1])],
                env=os.environ | self.environment(0, os.environ),
                capture_output=True,
                text=True,
            )
        if done.stdout.strip() != "refused":
            words = done.stderr.strip() or "a connection went past the relay"
            raise LabUnavailable(f"{self._library} cannot be preloaded: {words}")

    def _remove(self) -> None:
        processes = [process for host in self.hosts for process in host.processes]
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
        for group in keeper.quotas(self.name):
            keeper.remove_quota(group)
        if self._relay is not None:
            self._relay.kill()
            self._relay.communicate()
        self._folder.cleanup()
        self.hosts, self.name, self._relay = [], "", None


def compile_library(path: Path) -> None:
    """Compiles what is preloaded.

    Raises:
        LabUnavailable: there is no C compiler, or it fails.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise LabUnavailable("a paced network needs a C compiler (cc, gcc or clang), of which none is installed")  # fmt: skip
    try:
        run([compiler, "-O2", "-shared", "-fPIC", "-o", str(path), str(SOURCE), "-ldl"])
    except CommandError as error:
        raise LabUnavailable(f"what a paced network preloads cannot be compiled: {error}") from error  # fmt: skip
