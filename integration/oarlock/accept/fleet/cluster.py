"""Ranks on the hosts of a lab: real processes, each with its own addresses, network and share of the processor.

Where there can be no lab, its links are paced sockets (`lab.paced`), which the evidence says.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from oarlock.accept import peers
from oarlock.accept.fleet.task import Arm, Order, Task
from oarlock.fleet_ext.drill.loopback import Loopback
from oarlock.fleet_ext.job import Place
from oarlock.fleet_ext.lab import Host, Lab, LabUnavailable
from oarlock.fleet_ext.lab.paced import Paced, PacedHost
from oarlock.fleet_ext.lab.quota import shares_unavailable

_PORT = 6100
_TOKEN = "token-of-an-experiment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Between ranks.

    Args:
        rate: bit/s of each rank, both ways; None for what the machine can do.
        delay: seconds, one way.
        cpus: share of a core that each rank has; None for no limit.
        paced: why there are no namespaces here, and sockets are paced; "" where there are.
        unlimited: why ranks have no shares of the processor here; "" where they have those wanted.
    """

    rate: float | None = None
    delay: float = 0.0
    cpus: float | None = None
    paced: str = ""
    unlimited: str = ""

    @property
    def name(self) -> str:
        if self.rate is None:
            return "not slowed"
        size = f"{self.rate / 1e9:g} Gbit/s" if self.rate >= 1e9 else f"{self.rate / 1e6:g} Mbit/s"
        return size + (f", {1e3 * self.delay:g} ms one way" if self.delay else "")

    @property
    def means(self) -> str:
        """What slows ranks down, for notes of evidence."""
        links = (
            f"paced sockets, no network namespaces ({self.paced})"
            if self.paced
            else "network namespaces"
        )
        share = "no limit to" if self.cpus is None else f"{self.cpus:g} of a core for"
        return f"{links}; {share} each rank" + (f" ({self.unlimited})" if self.unlimited else "")


def here(network: Network, told: Callable[[str], None]) -> Network:
    """The network as this machine can have it, found out by trying.

    Where namespaces are not permitted its sockets are paced; where shares of a processor are not, ranks go without.

    Args:
        told: called with what is not permitted.

    Raises:
        LabUnavailable: its sockets cannot be paced either.
    """
    try:
        with Lab(2, rate=network.rate, delay=network.delay):
            pass
    except LabUnavailable as refused:
        with Paced(2, rate=network.rate, delay=network.delay):
            network = replace(network, paced=str(refused))
    if network.cpus is not None and (why := shares_unavailable()) is not None:
        network = replace(network, cpus=None, unlimited=why)
    if network.paced or network.unlimited:
        told(f"ranks have {network.means}")
    return network


def write_inputs(task: Task, text: str, seed: int, folder: Path) -> tuple[str, str]:
    """Files of weights, for PyTorch, and of text."""
    from oarlock.accept.workers import Worker

    words, weights = folder / "text.npy", folder / f"weights-{seed}.npz"
    write_text(text, words)
    with Worker.start("oarlock.accept.fleet.weights", env={"OMP_NUM_THREADS": "1"}) as worker:
        worker.call("write", shape=task.shape, seed=seed, path=str(weights))
    return str(weights), str(words)


def write_text(text: str, path: Path) -> None:
    np.save(path, np.frombuffer(text.encode(), np.uint8))


def trained(
    arm: Arm, task: Task, network: Network | None, *, weights: str, text: str, seed: int, time_only: bool,
    limit: float,
) -> list[dict[str, Any]]:  # fmt: skip
    """What each rank says at the end.

    Args:
        network: as `here` gives it; None for this machine's own address, not slowed.
        limit: seconds for all.

    Raises:
        RuntimeError: a rank failed, or took too long; with its last lines.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        order = Order(task=task, arm=arm, seed=seed, weights=weights, text=text, out=str(folder),
                      time_only=time_only).write(folder / "order.json")  # fmt: skip
        place: Any = _place(network, task.ranks)
        share = {} if network is None else {"cpus": network.cpus}
        port = _PORT if isinstance(place, Lab) else _free_ports(task.ranks + 1)
        hosts = stack.enter_context(place).hosts
        if arm.library == "ours":
            _start_store(hosts[0], port, folder)
        ranks = [
            host.start(
                [*_command(arm), str(order), str(rank)], log=folder / f"{rank}.log",
                env=_environment(arm, rank, hosts, port), **share,
            )
            for rank, host in enumerate(hosts)
        ]  # fmt: skip
        _wait(ranks, limit, arm)
        return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(task.ranks)]


def _place(network: Network | None, ranks: int) -> Lab | Loopback | Paced:
    if network is None:
        return Loopback(ranks)
    kind = Paced if network.paced else Lab
    return kind(ranks, rate=network.rate, delay=network.delay)


def _wait(ranks: Sequence[Any], limit: float, arm: Arm) -> None:
    until = time.monotonic() + limit
    while any(one.poll() is None for one in ranks):
        failed = next((one for one in ranks if one.poll() not in (None, 0)), None)
        late = time.monotonic() > until
        if failed is not None or late:
            chosen = failed or next(one for one in ranks if one.poll() is None)
            said = chosen.log.read_text(errors="replace")[-3000:]
            why = f"took more than {limit:g} s" if failed is None else f"ended with {failed.poll()}"
            raise RuntimeError(f"{arm.name}: rank {ranks.index(chosen)} {why}:\n{said}")
        time.sleep(0.1)


def _start_store(host: Any, port: int, folder: Path) -> None:
    command = [sys.executable, "-m", "oarlock.fleet_ext.rendezvous", "--host", host.address,
               "--port", str(port), "--job", "experiment"]  # fmt: skip
    host.start(command, log=folder / "store.log", env=os.environ | {"OARLOCK_STORE_TOKEN": _TOKEN})


def _free_ports(count: int) -> int:
    """The first of so many that nobody has, one behind the other."""
    while True:
        with ExitStack() as stack:
            first = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            try:
                for port in range(first + 1, first + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return first


def _command(arm: Arm) -> list[str]:
    if arm.library == "torch":
        return [str(peers.python("torch")), str(peers.scripts("torch") / "distributed.py")]
    return [sys.executable, "-m", "oarlock.accept.fleet.rank"]


def _environment(arm: Arm, rank: int, hosts: Sequence[Any], port: int) -> Mapping[str, str]:
    common = os.environ | {"OMP_NUM_THREADS": "1", "GLOG_v": "0"}
    common |= {"GLOO_SOCKET_IFNAME": "eth0" if isinstance(hosts[0], Host) else "lo"}
    size, own = len(hosts), hosts[rank].address
    if arm.library == "torch":
        return common | {"MASTER_ADDR": hosts[0].address, "MASTER_PORT": str(port)}
    if arm.library == "paddle":
        ends = [f"{host.address}:{port + 1 + number}" for number, host in enumerate(hosts)]
        return common | {
            "PADDLE_TRAINER_ID": str(rank), "PADDLE_TRAINERS_NUM": str(size), "PADDLE_TRAINER_ENDPOINTS": ",".join(ends),
            "PADDLE_CURRENT_ENDPOINT": ends[rank], "PADDLE_MASTER": f"{hosts[0].address}:{port}",
            "PADDLE_DISTRI_BACKEND": "gloo",
        }  # fmt: skip
    # Memory that ranks share would be a way around paced sockets.
    apart: dict[str, Any] = {"shared": False} if isinstance(hosts[0], PacedHost) else {}
    place = Place(job="experiment", rank=rank, size=size, local_rank=0, store=(hosts[0].address, port),
                  token=_TOKEN, host=own, **apart)  # fmt: skip
    return common | place.environment()
