"""Times of collectives: ours between ranks of one machine, beside Paddle's gloo.

Usage: oarlock-fleet launch --ranks 4 packages/fleet-ext/benchmarks/transport.py [--rounds N] [--sizes BYTES,...]

Ours goes through memory that ranks share, as it does where it may, and through TCP, as gloo does. Arrays are of float32. All
work in the same processes one after the other, in interleaved rounds that each begin with a barrier; a round's time is that
of the slowest rank. The table has medians. Paddle has no `all_to_all` and no `reduce_scatter` on gloo.
"""

import argparse
import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager

import numpy as np
import paddle

from oarlock.fleet_ext import join
from oarlock.fleet_ext.job import Job, Place
from oarlock.fleet_ext.transport import Group, Listener, MeshGroup, connect

SIZES = (1 << 10, 1 << 16, 1 << 20, 1 << 24)
Calls = Mapping[str, Callable[[], object]]


def of_ours(group: Group, count: int) -> Calls:
    """Each operation on arrays of so many elements on each rank."""
    array, rows = np.ones(count, np.float32), np.ones((group.size, count), np.float32)
    came = np.empty_like(rows)
    return {
        "all_reduce": lambda: group.all_reduce(array, "max").wait(),
        "all_gather": lambda: group.all_gather(array).wait(),
        "broadcast": lambda: group.broadcast(array).wait(),
        "reduce_scatter": lambda: group.reduce_scatter(rows).wait(),
        "all_to_all": lambda: group.all_to_all(list(rows), list(came)).wait(),
        "barrier": lambda: group.barrier().wait(),
    }


def of_gloo(size: int, count: int) -> Calls:
    """The same by `paddle.distributed`."""
    distributed = paddle.distributed
    array = paddle.ones([count], "float32")

    def gather() -> None:
        parts: list[paddle.Tensor] = []
        distributed.all_gather(parts, array)

    return {
        "all_reduce": lambda: distributed.all_reduce(array, distributed.ReduceOp.MAX),
        "all_gather": gather,
        "broadcast": lambda: distributed.broadcast(array, 0),
        "barrier": distributed.barrier,
    }


def timed(arms: Mapping[str, Calls], group: Group, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of a call: median of rounds, each of the slowest rank."""
    times: dict[str, dict[str, list[float]]] = {arm: {} for arm in arms}
    for number in range(rounds + 2):  # two warm up
        for operation in next(iter(arms.values())):
            for arm, calls in list(arms.items())[:: 1 if number % 2 else -1]:
                if operation not in calls:
                    continue
                group.barrier().wait()
                begin = time.perf_counter()
                calls[operation]()
                spent = np.array([time.perf_counter() - begin])
                slowest = float(group.all_reduce(spent, "max").wait()[0])
                if number >= 2:
                    times[arm].setdefault(operation, []).append(slowest)
    return {
        arm: {name: statistics.median(one) for name, one in found.items()}
        for arm, found in times.items()
    }


def begin_gloo(job: Job) -> None:
    """Paddle's own group of the same ranks."""
    first = job.group.broadcast_object(_free_port() if job.rank == 0 else None).wait()
    os.environ |= {
        "PADDLE_TRAINER_ID": str(job.rank), "PADDLE_TRAINERS_NUM": str(job.size), "PADDLE_DISTRI_BACKEND": "gloo",
        "PADDLE_MASTER": f"127.0.0.1:{first}", "PADDLE_CURRENT_ENDPOINT": f"127.0.0.1:{first + 1 + job.rank}",
        "PADDLE_TRAINER_ENDPOINTS": ",".join(f"127.0.0.1:{first + 1 + rank}" for rank in range(job.size)),
    }  # fmt: skip
    paddle.distributed.init_parallel_env()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@contextmanager
def over_tcp(job: Job) -> Iterator[Group]:
    """The same ranks without memory that they share."""
    place = job.place
    listener = Listener(job=place.job, token=place.token, host=place.host, shared=False)
    with closing(listener):
        mesh = connect(job.store, listener, rank=place.rank, size=place.size, token=place.token, epoch=1)  # fmt: skip
        with mesh, MeshGroup(mesh, range(mesh.size), "over TCP") as group:
            yield group


def main(rounds: int, sizes: list[int]) -> None:
    with join(Place.read()) as job, over_tcp(job) as tcp:
        begin_gloo(job)
        lines = ["| bytes of a rank | operation | memory, µs | TCP, µs | gloo, µs | gloo / memory | gloo / TCP |",
                 "|---|---|---|---|---|---|---|"]  # fmt: skip
        for size in sizes:
            count = max(1, size // 4)
            arms = {"memory": of_ours(job.group, count), "tcp": of_ours(tcp, count), "gloo": of_gloo(job.size, count)}  # fmt: skip
            found = timed(arms, job.group, rounds)
            for operation in found["memory"]:
                memory, by_tcp = (found[arm][operation] for arm in ("memory", "tcp"))
                gloo = found["gloo"].get(operation)
                beside = f"{gloo * 1e6:.0f} | {gloo / memory:.2f} | {gloo / by_tcp:.2f}" if gloo else "| |"  # fmt: skip
                lines.append(f"| {size} | {operation} | {memory * 1e6:.0f} | {by_tcp * 1e6:.0f} | {beside} |")  # fmt: skip
        if job.rank == 0:
            print("\n".join(lines), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--sizes", type=lambda text: [int(one) for one in text.split(",")], default=list(SIZES))  # fmt: skip
    options = parser.parse_args()
    main(options.rounds, options.sizes)
