"""What messages over a slow link cost the processor, by how much of one wakes its reader.

Usage: python packages/fleet-ext/benchmarks/slow_link.py [--rate MBIT] [--megabytes N] [--wake BYTES,...] [--rounds N]

Four ranks with half a core each on hosts of a lab (root, network namespaces). A round is a job for each size, in turns; of
each the median of its operations is taken, summed over ranks. 4096 is a reader that is woken for each packet. Processor time
is what counts: how long an operation takes is the link's.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from oarlock.fleet_ext import join
from oarlock.fleet_ext.job import Place
from oarlock.fleet_ext.lab import Lab
from oarlock.fleet_ext.transport import link, new_token

RANKS, OPERATIONS, PORT = 4, 7, 6100


def rank(size: int, wake: int) -> None:
    """One process: says its seconds, and those of the processor, for an `all_reduce` of so many bytes."""
    link._WAKING_BYTES = wake
    group = join().group
    array = np.ones(size // 4, np.float32)
    group.all_reduce(array, "max").wait()  # connections that have not been used are slower
    walls, works = [], []
    for _ in range(OPERATIONS):
        group.barrier().wait()
        begin, before = time.perf_counter(), time.process_time()
        group.all_reduce(array, "max").wait()
        walls.append(time.perf_counter() - begin)
        works.append(time.process_time() - before)
    print(json.dumps([statistics.median(walls), statistics.median(works)]), flush=True)
    group.barrier().wait()


def timed(rate: float, size: int, wake: int) -> tuple[float, float]:
    """Seconds of an operation, and of the processor for each byte that a rank sends."""
    token = new_token()
    with TemporaryDirectory() as name, Lab(RANKS, rate=rate) as lab:
        folder, hosts = Path(name), lab.hosts
        store = ["-m", "oarlock.fleet_ext.rendezvous", "--host", hosts[0].address, "--port", str(PORT),
                 "--job", "link"]  # fmt: skip
        hosts[0].start([sys.executable, *store], log=folder / "store",
                       env=os.environ | {"OARLOCK_STORE_TOKEN": token})  # fmt: skip
        places = [
            Place(job="link", rank=number, size=RANKS, local_rank=0, store=(hosts[0].address, PORT),
                  token=token, host=host.address)
            for number, host in enumerate(hosts)
        ]  # fmt: skip
        command = [sys.executable, __file__, "--rank", str(size), "--wake", str(wake)]
        ranks = [
            host.start(command, log=folder / str(place.rank), env=os.environ | place.environment(), cpus=0.5)
            for host, place in zip(hosts, places)
        ]  # fmt: skip
        while any(one.poll() is None for one in ranks):
            time.sleep(0.1)
        said = [one.log.read_text() for one in ranks]
        if any(one.poll() != 0 for one in ranks):
            raise RuntimeError("\n".join(said))
    walls, works = zip(*(json.loads(one.splitlines()[-1]) for one in said))
    return max(walls), sum(works) / (2 * (RANKS - 1) * size)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=100, help="Mbit/s")
    parser.add_argument("--megabytes", type=float, default=4, help="of the array")
    parser.add_argument("--wake", default="4096,65536,131072,262144")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    wakes = [int(one) for one in given.wake.split(",")]
    if given.rank is not None:
        rank(given.rank, wakes[0])
        return
    found: dict[int, list[tuple[float, float]]] = {one: [] for one in wakes}
    for number in range(given.rounds):
        for wake in wakes[:: 1 if number % 2 else -1]:
            found[wake].append(timed(given.rate * 1e6, int(given.megabytes * 1e6), wake))
    print(f"{'woken at':>10} {'operation, ms':>14} {'processor, ns a byte sent':>26}")
    for wake, pairs in found.items():
        wall, work = (statistics.median(column) for column in zip(*pairs))
        rounds = ", ".join(f"{1e9 * one:.1f}" for _, one in pairs)
        print(f"{wake:>10} {1e3 * wall:>14.0f} {1e9 * work:>26.1f}   ({rounds})")


if __name__ == "__main__":
    main()
