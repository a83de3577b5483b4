"""Speed of checkpoints: how long training stands still, and how long until it is on the disk; beside Paddle's.

Usage: python packages/fleet-ext/benchmarks/checkpoints.py [--megabytes N] [--rounds N] [--folder PATH]
       oarlock-fleet launch --ranks 2 packages/fleet-ext/benchmarks/checkpoints.py [...]

The state is a transformer's in float32 with two moments of Adam, the same on all ranks. Ours: every rank copies and writes
its share, with checksums. Paddle's: rank 0 writes all, by paddle.save and by paddle.async_save, as its users do; fsync is
added to the first, as ours has it. Right after each call rank 0 changes a tensor, and the table says whether the file has the
values of the call. Rounds are interleaved; the table has medians. Rates are of the whole state's bytes.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from oarlock.fleet_ext import join
from oarlock.fleet_ext.checkpoints import Checkpoints, load
from oarlock.fleet_ext.transport import Group

WIDTH = 512


@dataclass
class Arm:
    """Seconds of each round, and whether files had what they should."""

    blocked: list[float] = field(default_factory=list)
    durable: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)
    kept: bool = True


class Bench:
    """One rank, or a process alone."""

    def __init__(self, folder: Path, megabytes: int, group: Group | None) -> None:
        self.folder, self.group = folder, group
        self.rank, self.size = (0, 1) if group is None else (group.rank, group.size)
        self.state = state_of(megabytes)
        self.other = {name: paddle.zeros_like(one) for name, one in self.state.items()}
        self.first = next(iter(self.state.values()))
        self.bytes = sum(one.size * 4 for one in self.state.values())
        self.arms = {"oarlock": Arm(), "paddle.save": Arm(), "paddle.async_save": Arm()}
        self.checkpoints = Checkpoints(folder / "ours", group, keep=1)

    def round(self, number: int) -> None:
        self.ours(number)
        for name in ("paddle.save", "paddle.async_save"):
            self.theirs(name, number)

    def ours(self, number: int) -> None:
        arm = self.arms["oarlock"]
        self.fill(number)
        begin = time.perf_counter()
        saving = self.checkpoints.save(self.state, number)
        arm.blocked.append(time.perf_counter() - begin)
        self.fill(-1)
        # With `keep`, the end is after reading back; the clock stops when it has its name.
        path = self.folder / "ours" / f"step-{number:06d}"
        while not path.exists() and not saving.done():
            time.sleep(0.002)
        arm.durable.append(time.perf_counter() - begin)
        saving.wait()
        forget(path)
        self.together()
        begin = time.perf_counter()
        load(path, self.other, self.group)
        arm.read.append(time.perf_counter() - begin)
        self.check(arm, self.other, number)

    def theirs(self, name: str, number: int) -> None:
        arm, path = self.arms[name], self.folder / "theirs.pdparams"
        self.fill(number)
        if self.rank == 0:
            begin = time.perf_counter()
            (paddle.save if name == "paddle.save" else paddle.async_save)(self.state, str(path))
            arm.blocked.append(time.perf_counter() - begin)
            self.fill(-1)
            if name == "paddle.async_save":
                paddle.clear_async_save_task_queue()
            else:
                with open(path, "rb+") as file:
                    os.fsync(file.fileno())
            arm.durable.append(time.perf_counter() - begin)
            forget(path)
        self.together()
        begin = time.perf_counter()
        found = paddle.load(str(path))
        arm.read.append(time.perf_counter() - begin)
        self.check(arm, found, number)
        self.together()
        if self.rank == 0:
            path.unlink()

    def fill(self, value: int) -> None:
        self.first.set_value(np.full(self.first.shape, value, np.float32))

    def check(self, arm: Arm, found: dict[str, Any], value: int) -> None:
        arm.kept &= bool((next(iter(found.values())).numpy() == value).all())

    def together(self) -> None:
        if self.group is not None:
            self.group.barrier().wait()

    def report(self) -> str:
        lines = [
            f"{self.bytes / 1e6:.0f} MB on {self.size} ranks, {self.folder}",
            "| | training stands still, ms | GB/s | on the disk, ms | GB/s | read, ms | GB/s | values of the call |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name, arm in self.arms.items():
            cells = []
            for times in (arm.blocked, arm.durable, arm.read):
                middle = statistics.median(times[1:])
                cells.append(f"{middle * 1e3:.1f} | {self.bytes / middle / 1e9:.2f}")
            lines.append(f"| {name} | {' | '.join(cells)} | {'yes' if arm.kept else 'no'} |")
        return "\n".join(lines)


def state_of(megabytes: int) -> dict[str, Any]:
    """Parameters and moments of so many layers that they have about these bytes."""
    shapes = {"attention": (WIDTH, 4 * WIDTH), "up": (WIDTH, 4 * WIDTH), "down": (4 * WIDTH, WIDTH), "norm": (WIDTH,)}  # fmt: skip
    layers = max(1, round(megabytes * 1e6 / (3 * 4 * sum(map(np.prod, shapes.values())))))
    rng = np.random.default_rng(0)
    return {
        f"{layer}.{name}.{kind}": paddle.to_tensor(rng.standard_normal(shape, np.float32))
        for kind in ("weight", "moment1", "moment2")
        for layer in range(layers)
        for name, shape in shapes.items()
    }


def forget(path: Path) -> None:
    """Asks the system to forget the pages of files, so that they are read from the disk."""
    for file in path.iterdir() if path.is_dir() else (path,):
        number = os.open(file, os.O_RDONLY)
        os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(number)


@contextmanager
def shared_folder(given: Path | None, group: Group | None) -> Iterator[Path]:
    """One of its own, of which all ranks know, and which goes in the end."""
    with tempfile.TemporaryDirectory(dir=given) as own:
        folder = own if group is None else group.broadcast_object(own).wait()
        yield Path(folder)
        if group is not None:
            group.barrier().wait()


def main(megabytes: int, rounds: int, folder: Path | None, group: Group | None) -> None:
    with shared_folder(folder, group) as own:
        bench = Bench(own, megabytes, group)
        for number in range(rounds + 1):  # the first warms up
            bench.round(number)
        bench.checkpoints.close()
        if bench.rank == 0:
            print(bench.report(), flush=True)


def _as_rank(run: Callable[[Group | None], None]) -> None:
    if "OARLOCK_FLEET_RANK" in os.environ:
        with join() as job:
            run(job.group)
    else:
        run(None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where; the system's folder for temporary files if not given")  # fmt: skip
    options = parser.parse_args()
    _as_rank(lambda group: main(options.megabytes, options.rounds, options.folder, group))
