"""Speed of the sparse kernels beside Paddle's dense product, and as a share of the measured peak.

Usage: python native/benchmarks/sparse.py [--rows M] [--inner K] [--outer N] [--rounds N] [--threads N]

The dense baseline is Paddle's matmul, which is MKL's, after ``accelerate()``; it is the peak too, where
nothing of ours is faster. Each sparse kernel does its share of the dense product's operations; "time"
is relative to the dense product of the same shape, so that sparsity pays below 1. The densities at
which it begins to pay are found by halving.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import paddle

from oarlock import native
from oarlock.native import sparse
from oarlock.native.paddle import accelerate


def seconds(
    arms: dict[str, Callable[[], object]], rounds: int, one_thread: bool
) -> dict[str, float]:
    """Median time of each arm, interleaved; processor time on one thread, for busy machines."""
    clock = time.thread_time if one_thread else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in arms}
    for index in range(rounds + 1):
        for name in list(arms)[:: 1 if index % 2 else -1]:
            start = clock()
            arms[name]()
            if index:  # the first round touches the memory
                times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def blocks(rng, K: int, N: int, size: int, density: float) -> tuple[np.ndarray, ...]:
    kept = np.zeros((K // size) * (N // size), bool)
    kept[rng.permutation(kept.size)[: round(density * kept.size)]] = True
    kept = kept.reshape(K // size, N // size)
    pointers = np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(np.int32)
    indices = np.nonzero(kept)[1].astype(np.int32)
    values = rng.standard_normal((len(indices), size, size), dtype=np.float32)
    return pointers, indices, values


def entries(rng, rows: int, columns: int, density: float) -> tuple[np.ndarray, ...]:
    x = rng.standard_normal((rows, columns), dtype=np.float32)
    x *= rng.random((rows, columns)) < density
    return sparse.csr_from_dense(x)


class Shapes:
    """Operands of one shape, and the arms over them."""

    def __init__(self, M: int, K: int, N: int, threads: int) -> None:
        self.M, self.K, self.N, self.threads = M, K, N, threads
        self.rng = np.random.default_rng(0)
        self.x = self.rng.standard_normal((M, K), dtype=np.float32)
        self.dy = self.rng.standard_normal((M, N), dtype=np.float32)
        self.w = self.rng.standard_normal((K, N), dtype=np.float32)
        self.y, self.dx = np.empty_like(self.dy), np.empty_like(self.x)
        self.dw = np.empty_like(self.w)

    def dense(self) -> dict[str, Callable[[], object]]:
        x, w, dy = map(paddle.to_tensor, (self.x, self.w, self.dy))
        return {"dense y = x w": lambda: paddle.matmul(x, w)} | {
            "dense dx = dy w^T": lambda: paddle.matmul(dy, w, transpose_y=True),
            "dense dw = x^T dy": lambda: paddle.matmul(x, dy, transpose_x=True),
        }

    def bsr(self, size: int, density: float) -> dict[str, Callable[[], object]]:
        pointers, indices, values = blocks(self.rng, self.K, self.N, size, density)
        out, given = np.empty_like(values), (pointers, indices)
        team: dict[str, Any] = {"threads": self.threads}
        return {
            "y = x w": lambda: sparse.bsr_matmul(self.x, *given, values, self.y, **team),
            "dx = dy w^T": lambda: sparse.bsr_matmul(
                self.dy, *given, values, self.dx, transpose=True, threads=self.threads
            ),
            "dw = x^T dy": lambda: sparse.bsr_sample(self.x, self.dy, *given, out, **team),
        }

    def activations(self, density: float) -> dict[str, Callable[[], object]]:
        """x as if it were mostly zero."""
        pointers, indices, values = entries(self.rng, self.M, self.K, density)
        given, out = (pointers, indices, values), values.copy()
        team: dict[str, Any] = {"threads": self.threads}
        return {
            "y = x w": lambda: sparse.csr_matmul(*given, self.w, self.y, **team),
            "dx = dy w^T": lambda: sparse.csr_sample(
                self.dy, self.w, pointers, indices, out, **team
            ),
            "dw = x^T dy": lambda: sparse.csr_matmul(
                *given, self.dy, self.dw, transpose=True, threads=self.threads
            ),
        }

    def weights(self, density: float) -> dict[str, Callable[[], object]]:
        """W in CSR."""
        pointers, indices, values = entries(self.rng, self.K, self.N, density)
        given, out = (pointers, indices, values), values.copy()
        turned: dict[str, Any] = {
            "transpose_dense": True,
            "transpose_out": True,
            "threads": self.threads,
        }
        return {
            "y = x w": lambda: sparse.csr_matmul(*given, self.x, self.y, transpose=True, **turned),
            "dx = dy w^T": lambda: sparse.csr_matmul(*given, self.dy, self.dx, **turned),
            "dw = x^T dy": lambda: sparse.csr_sample(
                self.x, self.dy, pointers, indices, out, transpose=True, threads=self.threads
            ),
        }

    def nm(self) -> dict[str, Callable[[], object]]:
        codes = np.tile(np.array([[0], [2]], np.uint8), (self.K // 4, self.N))
        values = self.rng.standard_normal(codes.shape, dtype=np.float32)
        out = values.copy()
        team: dict[str, Any] = {"threads": self.threads}
        return {
            "y = x w": lambda: sparse.nm_matmul(self.x, codes, values, self.y, **team),
            "dx = dy w^T": lambda: sparse.nm_matmul(
                self.dy, codes, values, self.dx, transpose=True, threads=self.threads
            ),
            "dw = x^T dy": lambda: sparse.nm_sample(self.x, self.dy, codes, out, **team),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--inner", type=int, default=512)
    parser.add_argument("--outer", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    accelerate(threads=arguments.threads)
    M, K, N = arguments.rows, arguments.inner, arguments.outer
    shapes = Shapes(M, K, N, arguments.threads)
    print(native.info())
    print(f"\nx [{M}, {K}], w [{K}, {N}], {arguments.threads} threads, median of rounds")
    print(f"{'':34}{'ms':>9}{'time':>8}{'GFLOP/s':>9}{'of peak':>9}")
    kinds: dict[str, tuple[float, dict[str, Callable[[], object]]]] = {}
    for size, density in ((16, 0.25), (16, 0.1), (32, 0.25), (64, 0.25)):
        kinds[f"BSR {size} x {size}, {density:.0%}"] = density, shapes.bsr(size, density)
    for density in (0.25, 0.1, 0.05):
        kinds[f"activations, {density:.0%}"] = density, shapes.activations(density)
    for density in (0.1, 0.05):
        kinds[f"CSR weights, {density:.0%}"] = density, shapes.weights(density)
    kinds["2:4 weights"] = 0.5, shapes.nm()
    dense, operations = shapes.dense(), 2e-9 * M * K * N
    for kind, (density, arms) in kinds.items():
        found = seconds(dense | arms, arguments.rounds, arguments.threads == 1)
        peak = operations / min(found[name] for name in dense)
        for name in arms:
            base, speed = found[f"dense {name}"], density * operations / found[name]
            print(
                f"{kind:20}{name:14}{1e3 * found[name]:9.2f}{found[name] / base:8.2f}"
                f"{speed:9.0f}{speed / peak:9.0%}"
            )


if __name__ == "__main__":
    main()
