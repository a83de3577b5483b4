"""The lab itself: its beginning and its end, and partitions."""

import math
import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from oarlock.fleet_ext.lab import keeper
from oarlock.fleet_ext.lab.commands import CommandError, LabUnavailable, tool
from oarlock.fleet_ext.lab.host import Host, check_rate
from oarlock.fleet_ext.lab.network import MOST_HOSTS, Network

#: Seconds, the longest one-way delay.
LONGEST_DELAY = 10.0

_serials = count()


class Lab:
    """Hosts on a network of their own, for as long as the `with` block lasts.

    Args:
        hosts: how many, 1 to 250.
        rate: bit/s of each direction of each host's link; None for no limit. Headers count: plain
            TCP carries about 95 % of it.
        delay: one-way, in s, between any two hosts. A user-space process carries the packets then.

    Attributes:
        hosts: the hosts, inside the block.
        name: what everything of the lab on this machine is named after, inside the block.

    Raises:
        ValueError: an argument is out of range.
        LabUnavailable: on entering, where this cannot be had.
    """

    def __init__(self, hosts: int = 4, *, rate: float | None = None, delay: float = 0.0) -> None:
        if not (isinstance(hosts, int) and 1 <= hosts <= MOST_HOSTS):
            raise ValueError(f"hosts={hosts!r} has to be a whole number from 1 to {MOST_HOSTS}")
        check_rate(rate)
        if not (math.isfinite(delay) and 0 <= delay <= LONGEST_DELAY):
            raise ValueError(f"delay={delay} has to be in [0, {LONGEST_DELAY:g}] seconds, one-way")
        self.hosts: list[Host] = []
        self.name = ""
        self._count = hosts
        self._rate = rate
        self._delay = delay
        self._keeper: subprocess.Popen[bytes] | None = None
        self._router: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        if self.name:
            raise RuntimeError(f"this lab has begun already, as {self.name}")
        if os.geteuid() != 0:
            raise LabUnavailable("network namespaces and shaped links need root")
        for program in ("ip", "tc"):
            tool(program)
        self._owner = os.getpid()
        self.name = keeper.name_for(self._owner, next(_serials))
        try:
            self._build()
        except CommandError as error:
            self._remove()
            raise LabUnavailable(f"this machine refuses a part of the lab: {error}") from error
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
        if os.getpid() != self._owner:
            return  # a forked child, which does not own it
        router = self._router
        failed = router is not None and router.poll() is not None
        self._remove()
        if failed and error is None:
            raise RuntimeError("the router that delays packets ended before the lab did")

    def partition(self, *groups: Sequence[int]) -> None:
        """Lets no packet pass between hosts of different groups, in place of an earlier partition.

        Established connections go silent; none is reset. Packets in queues, or on their way through
        the delay, still arrive. Hosts in no group reach all others.

        Args:
            groups: of indices of hosts, e.g. ``[0, 1], [2, 3]``.

        Raises:
            ValueError: an index out of range, or given twice.
        """
        members = [index for group in groups for index in group]
        for index in members:
            if index not in range(len(self.hosts)):
                raise ValueError(f"groups: {index!r} has to be in [0, {len(self.hosts)}), a host")
            if members.count(index) > 1:
                raise ValueError(f"groups: host {index} has to be in one group, once")
        blocked: list[set[str]] = [set() for _ in self.hosts]
        for group in groups:
            others = {self.hosts[index].address for index in set(members) - set(group)}
            for index in group:
                blocked[index] = others
        self._network.block(blocked)

    def heal(self) -> None:
        """Ends a partition. Losses and links that are down stay."""
        self.partition()

    def _build(self) -> None:
        script = Path(keeper.__file__).resolve()
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(script), self.name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        self._network = network = Network(self.name, self._count)
        network.build()
        if self._rate is not None:
            for host in range(self._count):
                network.shape(host, self._rate)
        if self._delay:
            self._router = network.add_delay(self._delay)
        self.hosts = [Host(host, network) for host in range(self._count)]

    def _remove(self) -> None:
        """Removes everything; if interrupted, the keeper will when this process ends."""
        processes = [process for host in self.hosts for process in host.processes]
        for process in processes:
            process.kill()  # also those that are not in their namespace yet
        keeper.remove(self.name)
        for process in processes:
            process.wait()
        if self._router is not None:
            self._router.communicate()
        if self._keeper is not None:
            self._keeper.terminate()
            self._keeper.wait()
        self.hosts, self.name, self._router, self._keeper = [], "", None, None


def unavailable() -> str | None:
    """Why this machine cannot have a lab, found out by trying one; None where it can.

    A delay and a CPU quota need more (a TUN device, a cgroup controller) and are not tried: where
    they are missing, what asks for them raises LabUnavailable.
    """
    try:
        with Lab(hosts=2, rate=100e6):
            return None
    except LabUnavailable as error:
        return str(error)
