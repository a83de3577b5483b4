"""Speed of the gradient codes: share of the machine's bandwidth, beside NumPy's way and torch's.

Usage: python native/benchmarks/codec.py [--threads N] [--millions M] [--rounds N] [--path NAME]
       [--torch PYTHON]

The peak is the faster of two loops that only move memory, y += a x and a sum, in the same rounds. Bytes are
those that a code must read and write once: of the accumulator, of the code, of what it is added to.
Encoders have ``keep``, where the table says so. NumPy computes the same with one thread; with ``--torch``,
the python of an environment that has torch, so does torch, with as many threads as ours
(codec_torch.py). Times are medians of interleaved rounds, on one thread its processor time.
"""

import argparse
import ctypes
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from oarlock import native
from oarlock.native import _library, codec, threads

CHUNK, K = 4096, 32
SHARE = 100  # one in so many is sent of all, and at random
Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Arm:
    """A kernel: bytes it must touch for an element, the call, and NumPy's way."""

    size: float
    ours: Run
    numpy: Run | None = None


class Tensors:
    """What the arms work on."""

    def __init__(self, n: int, team: int) -> None:
        rng = np.random.default_rng(0)
        self.n, self.team = n, team
        self.gradient, self.acc, self.kept = (rng.standard_normal(n, np.float32) for _ in range(3))
        self.out = np.zeros(n, np.float32)
        self.code = np.zeros(n, np.uint16)
        self.numbers = rng.integers(0, 4096, n).astype(np.uint16)
        self.packed = np.zeros(codec.packed_size(n, 12), np.uint8)
        entries = codec.chunk_topk_size(n, chunk=CHUNK, k=K)
        self.indices, self.values = np.zeros(entries, np.uint16), np.zeros(entries, np.float32)
        codec.chunk_topk_encode(self.acc, self.indices, self.values, chunk=CHUNK, k=K)
        self.places, self.few = np.zeros(n // SHARE, np.uint32), np.zeros(n // SHARE, np.float32)
        self.sums = np.zeros(n // 65536 + 1, np.float32)

    def refill(self) -> None:
        """Encoders with ``keep`` leave less and less."""
        np.copyto(self.kept, self.gradient)

    def stream(self, name: str, *operands: np.ndarray) -> Run:
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in operands]
        rest = ctypes.c_int64(self.n), ctypes.c_float(1e-6), self.team
        return lambda: _library.load().call(f"oarlock_stream_{name}", *pointers, *rest)

    def blocks(self, bits: int) -> dict[str, Arm]:
        given: dict[str, Any] = {"bits": bits, "block": 256, "threads": self.team}
        codes, scales = (
            np.zeros(n, t) for n, t in zip(codec.blocks_sizes(self.n, bits=bits), "Bf")
        )
        size, most = 8 + bits / 8, {8: 127, 4: 7, 2: 3}[bits]

        def by_numpy() -> None:
            x = self.kept.reshape(-1, 256)
            scale = np.abs(x).max(1, keepdims=True) / np.float32(most)
            code = np.rint(x / scale).astype(np.int8)
            x -= code * scale
            if bits == 4:
                (code[:, ::2] & 15) | (code[:, 1::2] << 4)

        def add_by_numpy() -> None:
            self.out.reshape(-1, 256)[:] += 0.5 * (
                codes.view("b").reshape(-1, 256) * scales[:, None]
            )

        plain = bits != 2
        return {
            f"{bits} bits encode, keep": Arm(
                size,
                lambda: codec.blocks_encode(self.kept, codes, scales, keep=True, **given),
                by_numpy if plain else None,
            ),
            f"{bits} bits encode at random, keep": Arm(
                size,
                lambda: codec.blocks_encode(self.kept, codes, scales, keep=True, seed=1, **given),
            ),
            f"{bits} bits encode, gradients, keep": Arm(
                size + 4,
                lambda: codec.blocks_encode(
                    self.kept, codes, scales, gradients=[self.gradient], keep=True, **given
                ),
            ),
            f"{bits} bits write": Arm(
                4 + bits / 8, lambda: codec.blocks_write(codes, scales, [self.out], **given)
            ),
            f"{bits} bits add": Arm(
                size,
                lambda: codec.blocks_add(codes, scales, self.out, weight=0.5, **given),
                add_by_numpy if bits == 8 else None,
            ),
        }

    def arms(self) -> dict[str, Arm]:
        t, n = self, self.n
        team: dict[str, Any] = {"threads": self.team}
        given: dict[str, Any] = {"chunk": CHUNK, "k": K, "threads": self.team}
        bits, scales = (np.zeros(size, d) for size, d in zip(codec.signs_sizes(n), "Bf"))
        sent = 6 * K / CHUNK
        tall = self.acc.reshape(-1, 4).copy()
        matrix, out = t.acc.reshape(-1, 2048), t.out.reshape(-1, 2048)
        left, right = np.ones((len(matrix), 4), np.float32), np.ones((2048, 4), np.float32)
        back = np.empty_like(right)
        waves = np.random.default_rng(1).standard_normal((64, 64), np.float32)
        starts = np.repeat(np.arange(0, n, CHUNK), K)

        def bf16() -> None:
            t.kept -= t.kept.astype(ml_dtypes.bfloat16).astype(np.float32)

        def signs() -> None:
            x = t.kept.reshape(-1, 256)
            scale, negative = np.abs(x).mean(1, keepdims=True), np.signbit(x)
            np.packbits(negative, bitorder="little")
            x -= np.where(negative, -scale, scale)

        def chunks() -> None:
            x = t.acc.reshape(-1, CHUNK)
            found = np.sort(np.argpartition(np.abs(x), CHUNK - K, axis=1)[:, CHUNK - K :], axis=1)
            np.take_along_axis(x, found, 1)

        def exactly() -> None:
            least = codec.kth_magnitude(t.acc, n // SHARE, **team)
            codec.select(t.acc, least, t.places, t.few, most=n // SHARE, **team)

        def partition() -> None:
            found = np.sort(np.argpartition(np.abs(t.acc), n - n // SHARE)[n - n // SHARE :])
            t.acc[found]

        def take() -> None:
            x = t.kept.reshape(matrix.shape)
            x -= left @ right.T
            x += t.gradient.reshape(matrix.shape)
            x @ right

        def add_entries() -> None:
            t.out[starts + t.indices] += 0.5 * t.values

        def pack() -> None:
            low, high = t.numbers[::2], t.numbers[1::2]
            np.stack([low & 255, low >> 8 | (high & 15) << 4, high >> 4], 1).astype(np.uint8)

        found = {
            "peak: y += a x": Arm(12, t.stream("axpy", t.out, t.gradient)),
            "peak: sum": Arm(4, t.stream("sum", t.sums, t.gradient)),
            "accumulate": Arm(
                12,
                lambda: codec.accumulate(t.acc, t.gradient, 0.1, 0.9, **team),
                lambda: np.add(0.9 * t.acc, 0.1 * t.gradient, out=t.acc),
            ),
            "bf16 encode, keep": Arm(
                10, lambda: codec.bf16_encode(t.kept, t.code, keep=True, **team), bf16
            ),
            "bf16 add": Arm(10, lambda: codec.bf16_add(t.code, t.out, 0.5, **team)),
        }
        found |= self.blocks(8) | self.blocks(4) | self.blocks(2)
        found |= {
            "signs encode, keep": Arm(
                8.125, lambda: codec.signs_encode(t.kept, bits, scales, keep=True, **team), signs
            ),
            "signs add": Arm(8.125, lambda: codec.signs_add(bits, scales, t.out, **team)),
            "largest of chunks": Arm(
                4 + sent,
                lambda: codec.chunk_topk_encode(t.acc, t.indices, t.values, **given),
                chunks,
            ),
            "largest of chunks, add": Arm(
                sent + 8 * K / CHUNK,
                lambda: codec.chunk_topk_add(t.indices, t.values, t.out, weight=0.5, **given),
                add_entries,
            ),
            "k-th magnitude": Arm(4, lambda: codec.kth_magnitude(t.acc, n // SHARE, **team)),
            "largest of all": Arm(4, exactly, partition),
            "random": Arm(8 / SHARE, lambda: codec.random_k(t.acc, t.few, seed=1, **team)),
            "pack 12 bits": Arm(
                3.5, lambda: codec.pack_bits(t.numbers, t.packed, 12, **team), pack
            ),
            "unpack 12 bits": Arm(3.5, lambda: codec.unpack_bits(t.packed, t.code, 12, **team)),
            "orthogonal columns": Arm(
                8, lambda: codec.orthogonalise(tall, **team), lambda: np.linalg.qr(tall)
            ),
            "rank 4, take": Arm(
                12,
                lambda: codec.low_rank_take(
                    t.kept.reshape(matrix.shape),
                    left,
                    right,
                    gradient=t.gradient,
                    left=left.copy(),
                    right=right.copy(),
                    **team,
                ),
                take,
            ),
            "rank 4, back": Arm(
                4, lambda: codec.low_rank_back(matrix, left, back, **team), lambda: matrix.T @ left
            ),
            "rank 4, product": Arm(
                4,
                lambda: codec.low_rank_product(left, right, out, **team),
                lambda: np.matmul(left, right.T, out=out),
            ),
            "cosines of 64": Arm(
                8,
                lambda: codec.dct(t.acc, t.out, 64, **team),
                lambda: np.matmul(t.acc.reshape(-1, 64), waves),
            ),
        }
        return found


class Torch:
    """torch's way, in another process; ``names`` are the arms that it has."""

    def __init__(self, python: str, n: int, team: int) -> None:
        script = Path(__file__).with_name("codec_torch.py")
        sizes = {"elements": n, "chunk": CHUNK, "k": K, "share": n // SHARE, "threads": team}
        options = [f"--{name}={value}" for name, value in sizes.items()]
        self.process = subprocess.Popen(
            [python, str(script), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.names = self.process.stdout.readline().strip().split(";")

    def seconds(self, name: str) -> float:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(name, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=threads.count(None))
    parser.add_argument("--millions", type=float, default=16.0, help="elements")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--path", default=native.info().path, help="code path")
    parser.add_argument("--torch", metavar="PYTHON", help="python of an environment with torch")
    arguments = parser.parse_args()
    n = int(arguments.millions * 1e6) // 65536 * 65536
    tensors = Tensors(n, arguments.threads)
    found = tensors.arms()
    peer = Torch(arguments.torch, n, arguments.threads) if arguments.torch else None
    clock = time.thread_time if arguments.threads == 1 else time.perf_counter
    times: dict[tuple[str, str], list[float]] = {}

    def note(index: int, name: str, who: str, seconds: float) -> None:
        if index:  # the first round touches the memory
            times.setdefault((name, who), []).append(seconds)

    def timed(run: Run) -> float:
        start = clock()
        run()
        return clock() - start

    with native.forced_path(arguments.path):
        print(native.info())
        for index in range(arguments.rounds + 1):
            for name in list(found)[:: 1 if index % 2 else -1]:
                tensors.refill()
                note(index, name, "ours", timed(found[name].ours))
                by_numpy = found[name].numpy
                if by_numpy is not None and index < 4:
                    tensors.refill()
                    note(index, name, "numpy", timed(by_numpy))
                if peer is not None and name in peer.names:
                    note(index, name, "torch", peer.seconds(name))

    seconds = {key: statistics.median(values) for key, values in times.items()}
    speed = {name: arm.size * n / seconds[name, "ours"] / 1e9 for name, arm in found.items()}
    peak = max(value for name, value in speed.items() if name.startswith("peak"))
    print(f"\n{n / 1e6:.1f} M elements, {arguments.threads} threads, median of rounds")
    print(f"{'':34}{'ms':>9}{'GB/s':>8}{'of peak':>9}{'NumPy':>9}{'torch':>9}")
    for name, value in speed.items():
        ours = seconds[name, "ours"]
        others = [seconds.get((name, who)) for who in ("numpy", "torch")]
        ratios = "".join(f"{one / ours:8.1f}x" if one else " " * 9 for one in others)
        print(f"{name:34}{1e3 * ours:9.2f}{value:8.1f}{value / peak:9.0%}{ratios}")


if __name__ == "__main__":
    main()
