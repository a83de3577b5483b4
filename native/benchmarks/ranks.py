"""What ranks cost and give: microseconds of a sum, and tokens a second of a decoder in parts.

Usage: python native/benchmarks/ranks.py [--kind shared|tcp] [--ranks N] [--shape NAME] [--format NAME] [--rounds N]
       [--slot-kib N] [--link-mbit N]

Sums of rows of float32 between N processes, and a decoder with random weights of which each process has a part, one
thread each, against one process with one thread and with N; rounds of all of them by turns. Wall-clock times, the
median and the least, and the processor time of the first rank, which tells what free cores would do where others use
them. TCP is over loopback, with `--link-mbit` no faster than so much (the kernel's own pacing: an emulated network);
`--slot-kib` is the size of the pieces that sums are sent in.
"""

import argparse
import dataclasses
import importlib.util
import os
import socket
import statistics
import time
from pathlib import Path

import numpy as np

from oarlock import native
from oarlock.native.decoder import Cache, Decoder, Model, Rows
from oarlock.native.ranks import Ranks, shared_file

SIZES = (1, 8, 64, 512)  # rows
WIDTH, PROMPT, STEPS = 768, 256, 8
SO_MAX_PACING_RATE = 47  # of Linux; Python has no name for it


def _shapes():
    spec = importlib.util.spec_from_file_location("shapes", Path(__file__).with_name("decoder.py"))
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def part_of(shapes, shape: str, format: str, rank: int, ranks: int) -> Model:
    """A model of the shape that a rank's part has; its numbers do not matter."""
    vocab, D, layers, heads, kv_heads, F = shapes.SHAPES[shape]
    sizes = (vocab, D, layers, heads // ranks, max(1, kv_heads // ranks), F // ranks)
    shapes.SHAPES["part"] = sizes
    # The width of a head stays.
    model = shapes.llama("part", format, D // heads)
    panels = -(-vocab // 32)
    first, last = (min(vocab, panels * one // ranks * 32) for one in (rank, rank + 1))
    return dataclasses.replace(model, head=model.head.columns(first, last))


def start(kind: str, count: int, slot_bytes: int, mbit: int) -> tuple[Ranks, list[int]]:
    """Make this process and its children ranks; the first returns last."""
    sockets = [{} for _ in range(count)]
    with socket.create_server(("127.0.0.1", 0)) as server:
        for low in range(count):
            for high in range(low + 1, count):
                sockets[high][low] = socket.create_connection(server.getsockname())
                sockets[low][high] = server.accept()[0]
    for one in sockets:
        for link in one.values() if mbit else ():
            link.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, mbit * 125_000)
    file = shared_file(count, slot_bytes)
    children: list[int] = []
    rank = 0
    for other in range(1, count):
        child = os.fork()
        if child == 0:
            rank, children = other, []
            break
        children.append(child)
    for other in range(count):
        if other != rank:
            for one in sockets[other].values():
                one.close()
    if kind == "tcp":
        return Ranks.tcp(sockets[rank], rank=rank, ranks=count, slot_bytes=slot_bytes), children
    watched = sockets[rank]
    return (
        Ranks.shared(file, rank=rank, ranks=count, watched=watched, slot_bytes=slot_bytes),
        children,
    )


class Load:
    """A prompt, or tokens one by one for some sequences."""

    def __init__(self, model: Model, ranks: Ranks | None, threads: int) -> None:
        self.decoder = Decoder(model, PROMPT, ranks=ranks)
        self.cache, self.threads = Cache(self.decoder, PROMPT // 16 + 32), threads
        self.tokens = np.arange(PROMPT) % model.vocab

    def prompt(self) -> int:
        pages = range(PROMPT // 16)
        rows = [Rows(self.tokens, 0, pages)]
        self.decoder.forward(self.cache, rows, wanted=[PROMPT - 1], threads=self.threads)
        return PROMPT

    def steps(self, sequences: int) -> int:
        for place in range(STEPS):
            rows = [Rows([place + i], place, [i]) for i in range(sequences)]
            self.decoder.forward(self.cache, rows, wanted=range(sequences), threads=self.threads)
        return STEPS * sequences

    def run(self) -> dict[str, tuple[int, float, float]]:
        """Tokens, seconds, and seconds of the processor, of each."""
        found = {}
        for name, call in (
            (f"prompt of {PROMPT}", self.prompt),
            *((f"{n} at once", lambda n=n: self.steps(n)) for n in (1, 8, 32)),
        ):
            begin, used = time.perf_counter(), time.process_time()
            tokens = call()
            found[name] = tokens, time.perf_counter() - begin, time.process_time() - used
        return found


def main() -> None:
    shapes = _shapes()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=("shared", "tcp"), default="shared")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--shape", choices=list(shapes.SHAPES), default="135m")
    parser.add_argument("--format", default="int8")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--slot-kib", type=int, default=1024)
    parser.add_argument("--link-mbit", type=int, default=0)
    arguments = parser.parse_args()
    count, rounds = arguments.ranks, arguments.rounds
    slot_bytes = arguments.slot_kib << 10
    ranks, children = start(arguments.kind, count, slot_bytes, arguments.link_mbit)
    if ranks.rank == 0:
        print(native.info())
    for rows in SIZES:
        part, out = (np.zeros((rows, WIDTH), np.float32) for _ in range(2))
        times = []
        for _ in range(200):
            begin = time.perf_counter()
            ranks.sum(part, out)
            times.append(time.perf_counter() - begin)
        if ranks.rank == 0:
            median, least = statistics.median(times) * 1e6, min(times) * 1e6
            print(f"sum of {rows:3} rows of {WIDTH}: {median:8.1f} us (best {least:.1f})")
    shape, format = arguments.shape, arguments.format
    parts = Load(part_of(shapes, shape, format, ranks.rank, count), ranks, 1)
    parts.run()
    before = ranks.stats()["waited_s"]
    go, took = np.zeros((1, 1), np.float32), []
    whole: dict[int, Load] = {}
    if ranks.rank == 0:
        model = shapes.llama(shape, format)
        whole = {threads: Load(model, None, threads) for threads in sorted({1, count})}
    for number in range(rounds + 1):
        for threads, load in whole.items():
            took.append((f"1 x {threads}", load.run(), number))
        ranks.sum(go, go.copy())  # the others wait here, asleep
        took.append((f"{count} x 1", parts.run(), number))
    if ranks.rank > 0:
        os._exit(0)
    names = list(took[0][1])
    print(
        f"tokens/s, {shape} {format}, ranks x threads ({arguments.kind}): median (best; of a token)"
    )
    for label in dict.fromkeys(one for one, _, _ in took):
        cells = []
        for name in names:
            runs = [found[name] for one, found, at in took if one == label and at]
            rates = [n / s for n, s, _ in runs]
            used = min(cpu / n for n, _, cpu in runs) * 1e3
            cells.append(
                f"{name} {statistics.median(rates):7.1f} ({max(rates):.1f}; CPU {used:.2f} ms)"
            )
        print(f"{label}: " + "  ".join(cells))
    spent = ranks.stats()["waited_s"] - before
    total = sum(s for one, found, _ in took if one == f"{count} x 1" for _, s, _ in found.values())
    print(f"of its time the first rank spent {spent / total:.3f} on handing over and waiting")
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
