"""Nodes of which one is lost, with Paddle's own elastic mode and with ours: how long nobody takes a step."""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from oarlock.accept import peers
from oarlock.fleet_ext.lab import Host, Lab, Process

NODES = 3
ORDER = {"width": 256, "batch": 96, "pause": 0.05, "every": 10}
_ENOUGH = 20  #: steps of a node before one is lost, and of the others behind it
_BEGIN_S, _STORE_PORT, _ETCD_PORT = 180.0, 6200, 2379
#: That Paddle's launcher waits for more nodes, 30 by default. With 3 s it gave up at once: each that begins deletes the
#: heartbeats of the others, which come again within 5 s.
_TIMEOUT_S = 8
_TOKEN = "token-of-an-experiment"


def etcd() -> str | None:
    """The path of etcd, without which Paddle's elastic mode does nothing; None where it is not installed."""
    return shutil.which("etcd")


def paddle_elastic(how: str, limit: float) -> tuple[float, bool]:
    """See `_still`; of `paddle.distributed.launch --master etcd://... --elastic_level 2`."""

    def start(hosts: Sequence[Host], folder: Path) -> list[Process]:
        first, program = hosts[0], etcd()
        assert program is not None
        where = f"http://{first.address}:{_ETCD_PORT}"
        first.start([program, "--data-dir", str(folder / "etcd"), "--listen-client-urls", where,
                     "--advertise-client-urls", where, "--listen-peer-urls", f"http://{first.address}:2380"],
                    log=folder / "etcd.log")  # fmt: skip
        script = peers.scripts("paddle_elastic") / "train.py"
        environment = _without_ours() | {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
        return [
            host.start(
                [str(peers.python("paddle_elastic")), "-m", "paddle.distributed.launch", "--master",
                 f"etcd://{first.address}:{_ETCD_PORT}", "--host", host.address, "--nnodes", f"{NODES - 1}:{NODES}",
                 "--nproc_per_node", "1", "--elastic_level", "2", "--elastic_timeout", str(_TIMEOUT_S),
                 "--max_restart", "100", "--job_id", "experiment", "--log_dir", str(folder / f"logs-{host.index}"),
                 str(script), json.dumps(ORDER), str(folder), str(_lines(folder, host))],
                log=folder / f"{host.index}.log", env=environment,
            )
            for host in hosts[1:]
        ]  # fmt: skip

    return _still(start, how, limit)


def ours(how: str, limit: float) -> tuple[float, bool]:
    """See `_still`; of `oarlock-fleet agent`."""

    def start(hosts: Sequence[Host], folder: Path) -> list[Process]:
        first, token = hosts[0], folder / "token"
        token.write_text(_TOKEN)
        first.start([sys.executable, "-m", "oarlock.fleet_ext.rendezvous", "--host", first.address, "--port",
                     str(_STORE_PORT), "--token-file", str(token)], log=folder / "store.log")  # fmt: skip
        return [
            host.start(
                [sys.executable, "-m", "oarlock.fleet_ext.cli.main", "agent", "--store",
                 f"{first.address}:{_STORE_PORT}", "--token-file", str(token), "--node", f"node-{host.index}", "--host",
                 host.address, "--least", str(NODES - 1), "--most", str(NODES), "--",
                 sys.executable, "-m", "oarlock.accept.fleet.elastic_node", json.dumps(ORDER),
                 str(_lines(folder, host))],
                log=folder / f"{host.index}.log", env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
            for host in hosts[1:]
        ]  # fmt: skip

    return _still(start, how, limit)


def _still(
    start: Callable[[Sequence[Host], Path], list[Process]], how: str, limit: float
) -> tuple[float, bool]:
    """Seconds for which no node takes a step behind a loss, and whether training went on within the limit.

    Args:
        how: "kill" ends all that runs on a node (SIGKILL); "stop" stops its training process (SIGSTOP).
        limit: seconds to wait.

    Raises:
        RuntimeError: training did not begin.
    """
    with TemporaryDirectory() as name, Lab(1 + NODES) as lab:
        folder, hosts = Path(name), lab.hosts
        started = start(hosts, folder)
        files = [_lines(folder, host) for host in hosts[1:]]
        if not _wait(lambda: all(len(_read(one)) >= _ENOUGH for one in files), _BEGIN_S):
            said = "\n".join(one.log.read_text(errors="replace")[-2000:] for one in started)
            raise RuntimeError(f"nodes did not train within {_BEGIN_S:g} s:\n{said}")
        victim, at = _read(files[-1])[-1], time.time()
        if how == "kill":
            hosts[-1].crash()
        else:
            os.kill(victim["pid"], signal.SIGSTOP)

        def goes_on() -> bool:
            """Whether as many nodes take steps as were left, whichever they are."""
            later = [sum(one["time"] > at + 0.5 for one in _read(file)) for file in files]
            return sum(count >= _ENOUGH for count in later) >= NODES - 1

        went_on = _wait(goes_on, limit)
        times = sorted(one["time"] for file in files for one in _read(file))
        if not went_on:
            times.append(time.time())
        return max(b - a for a, b in zip(times, times[1:]) if b >= at), went_on


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.2)
    return False


def _lines(folder: Path, host: Host) -> Path:
    return folder / f"lines-{host.index}"


def _read(path: Path) -> list[dict[str, Any]]:
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]


def _without_ours() -> dict[str, str]:
    """This environment, but for what says where Python imports from."""
    places = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if name not in places}
    return kept | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "eth0"}
