"""A host of a lab: what can run on it, and what can happen to it."""

import math
import os
import signal
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

from oarlock.fleet_ext.lab.commands import tool
from oarlock.fleet_ext.lab.disk import Disk
from oarlock.fleet_ext.lab.keeper import NAMESPACES, inode, processes_in
from oarlock.fleet_ext.lab.network import Network
from oarlock.fleet_ext.lab.process import Process

#: Slower than this, in bit/s, a packet takes seconds.
LEAST_RATE = 10_000.0


def check_rate(rate: float | None) -> None:
    """Raises ValueError unless `rate` is None or a sensible number of bit/s."""
    if rate is not None and not (math.isfinite(rate) and rate >= LEAST_RATE):
        raise ValueError(
            f"rate={rate} has to be None (no limit) or at least {LEAST_RATE:g} bit/s; "
            "100e6 is 100 Mbit/s"
        )


class Host:
    """One host; made by `Lab`.

    Attributes:
        index: its place in the lab.
        address: its IPv4 address. The interface is called eth0.
        processes: all that were started, ended ones included.
    """

    def __init__(self, index: int, network: Network) -> None:
        self.index = index
        self.address = network.addresses[index]
        self.processes: list[Process] = []
        self._network = network
        self._space = network.spaces[index]
        self._quotas = count()

    def start(
        self,
        argv: Sequence[str],
        *,
        log: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        cpus: float | None = None,
        disk: Disk | None = None,
    ) -> Process:
        """Runs a command on this host, in a session and process group of its own.

        Args:
            argv: the program and its arguments.
            log: the file to which its output, errors included, is appended.
            env: its whole environment; None for that of this process.
            cwd: the directory it starts in; None for that of this process.
            cpus: how many cores it and its children may use on average, e.g. 0.3; None for no limit.
            disk: of this process and its children, empty at first.

        Raises:
            ValueError: there is no such program or directory, or `cpus` is too small.
            LabUnavailable: with `cpus`, where there are no CPU quotas.
        """
        inside = argv if disk is None else disk.command(argv)
        process = Process.start(
            argv,
            [tool("ip"), "netns", "exec", self._space, *inside],
            log=log,
            env=env,
            cwd=cwd,
            cpus=cpus,
            space=self._space,
            quota=f"{self._space}-{next(self._quotas)}",
        )
        self.processes.append(process)
        return process

    def crash(self) -> None:
        """SIGKILL to all that runs on this host, however it was started."""
        for pid in processes_in({inode(NAMESPACES / self._space)}):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # ended meanwhile

    def set_rate(self, rate: float | None) -> None:
        """Limits both directions of the link to `rate` bit/s each; None for no limit.

        Raises:
            ValueError: below 10 kbit/s.
        """
        check_rate(rate)
        self._network.shape(self.index, rate)

    def link(self, up: bool) -> None:
        """Pulls the network cable (False) or plugs it in (True).

        This host's kernel sees it, and keeps addresses, routes and connections; nobody else is told.
        """
        self._network.link(self.index, up)

    def loss(self, fraction: float) -> None:
        """Loses that fraction of the packets this host sends and of those it gets, at random.

        Raises:
            ValueError: not in [0, 1].
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"fraction={fraction} has to be in [0, 1]")
        self._network.lose(self.index, fraction)
