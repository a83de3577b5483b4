"""Ranks of `paddle.distributed` that are processes, as a launcher starts them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

_FOLDER = Path(__file__).parent
_SECONDS = 120


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def run_ranks(size, script, *arguments):
    """The JSON lines that a script of this folder writes on each of so many ranks."""
    *ports, master = free_ports(size + 1)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    ranks = []
    for rank in range(size):
        environment = os.environ | {
            "PADDLE_TRAINER_ID": str(rank),
            "PADDLE_TRAINERS_NUM": str(size),
            "PADDLE_TRAINER_ENDPOINTS": ",".join(addresses),
            "PADDLE_CURRENT_ENDPOINT": addresses[rank],
            "PADDLE_MASTER": f"127.0.0.1:{master}",
            "OMP_NUM_THREADS": "1",
            "GLOG_minloglevel": "2",
        }
        ranks.append(
            subprocess.Popen(
                [sys.executable, "-W", "ignore", str(_FOLDER / script), *arguments],
                env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
        )
    try:
        said = [one.communicate(timeout=_SECONDS) for one in ranks]
    finally:
        for one in ranks:
            one.kill()
    for rank, (one, (_, errors)) in enumerate(zip(ranks, said)):
        assert one.returncode == 0, f"rank {rank}: {errors[-3000:]}"
    return [
        [json.loads(line) for line in out.splitlines() if line.startswith("{")] for out, _ in said
    ]
