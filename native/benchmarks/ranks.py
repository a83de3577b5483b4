"""What ranks cost and give: microseconds of a sum, and tokens a second of a decoder in parts.

Usage: python native/benchmarks/ranks.py [--kind shared|tcp] [--ranks N] [--shape NAME] [--format NAME] [--rounds N]
       [--slot-kib N ...] [--link-mbit N]

Sums of rows of float32 between N processes, and a decoder with random weights of which each process has a part, one
thread each, against one process with one thread and with N; rounds of all of them by turns. Wall-clock times, the
median and the least, and the processor time of the first rank, which tells what free cores would do where others use
them. TCP is over loopback, with `--link-mbit` no faster than so much (the kernel's own pacing: an emulated network);
`--slot-kib` is the most of a part: sums go in pieces of it, and prompts in halves where a half fits into it.
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


def pairs(count: int, mbit: int) -> list[dict[int, socket.socket]]:
    """Connections between each two ranks, by rank and by other rank."""
    sockets: list[dict[int, socket.socket]] = [{} for _ in range(count)]
    with socket.create_server(("127.0.0.1", 0)) as server:
        for low in range(count):
            for high in range(low + 1, count):
                sockets[high][low] = socket.create_connection(server.getsockname())
                sockets[low][high] = server.accept()[0]
    for one in sockets:
        for link in one.values() if mbit else ():
            link.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, mbit * 125_000)
    return sockets


def start(kind: str, count: int, slots: list[int], mbit: int) -> tuple[list[Ranks], list[int]]:
    """Make this process and its children ranks, once for each size of a slot; children of the first."""
    links = [pairs(count, mbit) for _ in slots]
    files = [shared_file(count, slot) for slot in slots]
    children: list[int] = []
    rank = 0
    for other in range(1, count):
        child = os.fork()
        if child == 0:
            rank, children = other, []
            break
        children.append(child)
    made = []
    for slot, file, sockets in zip(slots, files, links):
        for other in range(count):
            if other != rank:
                for one in sockets[other].values():
                    one.close()
        own = sockets[rank]
        if kind == "tcp":
            made.append(Ranks.tcp(own, rank=rank, ranks=count, slot_bytes=slot))
        else:
            made.append(Ranks.shared(file, rank=rank, ranks=count, watched=own, slot_bytes=slot))
    return made, children


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
    parser.add_argument("--slot-kib", type=int, nargs="+", default=[1024])
    parser.add_argument("--link-mbit", type=int, default=0)
    arguments = parser.parse_args()
    count, rounds = arguments.ranks, arguments.rounds
    slots = [kib << 10 for kib in arguments.slot_kib]
    groups, children = start(arguments.kind, count, slots, arguments.link_mbit)
    ranks = groups[0]
    if ranks.rank == 0:
        print(native.info())
    for rows in SIZES:
        part, out = (np.zeros((rows, WIDTH), np.float32) for _ in range(2))
        times = []
        for _ in range(200 if not arguments.link_mbit else 20):
            begin = time.perf_counter()
            ranks.sum(part, out)
            times.append(time.perf_counter() - begin)
        if ranks.rank == 0:
            median, least = statistics.median(times) * 1e6, min(times) * 1e6
            print(f"sum of {rows:3} rows of {WIDTH}: {median:8.1f} us (best {least:.1f})")
    shape, format = arguments.shape, arguments.format
    parts = {}
    for one, kib in zip(groups, arguments.slot_kib):
        label = f"{count} x 1, {kib} KiB"
        parts[label] = Load(part_of(shapes, shape, format, ranks.rank, count), one, 1)
        parts[label].run()
    go, took = np.zeros((1, 1), np.float32), []
    whole: dict[int, Load] = {}
    if ranks.rank == 0:
        model = shapes.llama(shape, format)
        whole = {threads: Load(model, None, threads) for threads in sorted({1, count})}
    for number in range(rounds + 1):
        for threads, load in whole.items():
            took.append((f"1 x {threads}", load.run(), number))
        for label, load in parts.items():
            ranks.sum(go, go.copy())  # the others wait here, asleep
            took.append((label, load.run(), number))
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
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
