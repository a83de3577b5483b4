"""Where sparse products begin to pay on this machine: measured, as a table, a text and a plot."""

import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import paddle
from oarlock.native import info
from oarlock.native.paddle import openmp_threads
from oarlock.native.paddle import sparse as kernels

from .. import _checks
from ._base import SparseMatrix
from .formats import BSR, CSR, NM

KINDS = ("bsr", "csr", "nm", "activations")
DENSITIES = (0.05, 0.1, 0.25, 0.5, 0.75)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Time of a training step's products (forward and both gradients) at one density, seconds."""

    kind: str
    density: float
    sparse: float
    dense: float

    @property
    def speedup(self) -> float:
        """Above 1 sparse wins."""
        return self.dense / self.sparse


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Crossover:
    """What was measured, and where sparse begins to win."""

    tokens: int
    shape: tuple[int, int]
    block: tuple[int, int]
    rounds: int
    machine: str
    rows: tuple[Row, ...]

    def wins_above(self, kind: str) -> float | None:
        """The least sparsity from which the sparse product is faster; None if it never was.

        Between measured densities the time is interpolated linearly.
        """
        rows = sorted((row for row in self.rows if row.kind == kind), key=lambda row: row.density)
        if not rows:
            raise ValueError(f"kind must be one that was measured, got {kind!r}.")
        found = None
        for index, row in enumerate(rows):
            if row.speedup <= 1:
                if index == 0:
                    return None
                before = rows[index - 1]
                low, high = before.sparse / before.dense, row.sparse / row.dense
                part = (1 - low) / (high - low)
                return 1 - (before.density + part * (row.density - before.density))
            found = 1 - row.density
        return found

    def text(self) -> str:
        """A table, and a sentence for each kind."""
        lines = [
            f"Products of a training step, {self.tokens} tokens, weight {self.shape[0]} x "
            f"{self.shape[1]}, {self.machine}; median of {self.rounds}.",
            f"{'':14}{'sparsity':>10}{'dense ms':>10}{'sparse ms':>11}{'speed-up':>10}",
        ]
        for row in self.rows:
            lines.append(
                f"{row.kind:14}{1 - row.density:>10.0%}{1e3 * row.dense:>10.2f}"
                f"{1e3 * row.sparse:>11.2f}{row.speedup:>9.2f}x"
            )
        for kind in dict.fromkeys(row.kind for row in self.rows):
            above = self.wins_above(kind)
            name = f"bsr {self.block[0]} x {self.block[1]}" if kind == "bsr" else kind
            never = f"{name}: sparse did not win at any sparsity measured here"
            lines.append(never if above is None else f"{name}: sparse wins above {above:.0%} here")
        return "\n".join(lines)

    __str__ = text

    def plot(self, path: str | os.PathLike) -> None:
        """Speed-up over sparsity, as a picture of the type that the ending of ``path`` names."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for kind in dict.fromkeys(row.kind for row in self.rows):
            rows = sorted((row for row in self.rows if row.kind == kind), key=lambda r: r.density)
            axes.plot([1 - r.density for r in rows], [r.speedup for r in rows], "o-", label=kind)
        axes.axhline(1, color="grey", linewidth=1)
        axes.set(
            xlabel="sparsity",
            ylabel="speed-up over the dense products",
            yscale="log",
            title=f"{self.tokens} tokens, weight {self.shape[0]} x {self.shape[1]}",
        )
        axes.legend()
        figure.savefig(path)


def crossover(
    *,
    tokens: int,
    in_features: int,
    out_features: int,
    kinds: Sequence[str] = KINDS,
    densities: Sequence[float] = DENSITIES,
    block: tuple[int, int] = (16, 16),
    rounds: int = 5,
    seed: int = 0,
) -> Crossover:
    """Measure products of a training step, dense and sparse, interleaved.

    The dense products are Paddle's; call ``oarlock.native.paddle.accelerate()`` first, or the
    baseline is not the best there is. One thread is measured by processor time, several by the clock.

    Args:
        tokens: rows of activations.
        in_features, out_features: sizes of the weight.
        kinds: of ``"bsr"``, ``"csr"``, ``"nm"`` (2 of 4, one density) and ``"activations"``, where
            not the weight but the input is mostly zero.
        densities: shares that are kept, in (0, 1].
        block: of BSR.
        rounds: repetitions; medians are taken.
        seed: of the random structures.

    Raises:
        ValueError: an argument is not as above.
    """
    K, N = _checks.whole("in_features", in_features, 1), _checks.whole(
        "out_features", out_features, 1
    )
    M = _checks.whole("tokens", tokens, 1)
    for kind in kinds:
        _checks.choice("kinds", kind, KINDS)
    for density in densities:
        _checks.real("densities", density, 0.0, 1.0, open_low=True)
    _checks.whole("rounds", rounds, 1)
    rng = np.random.default_rng(_checks.whole("seed", seed, 0))
    x = paddle.to_tensor(rng.standard_normal((M, K)).astype("float32"), stop_gradient=False)
    w = paddle.to_tensor(rng.standard_normal((K, N)).astype("float32"), stop_gradient=False)
    dy = paddle.to_tensor(rng.standard_normal((M, N)).astype("float32"))
    rows = []
    for kind in kinds:
        for density in (0.5,) if kind == "nm" else densities:
            step, kept = _step(kind, density, x, w, dy, block, rng)
            dense, sparse = _times([lambda: _train(paddle.matmul, x, w, dy), step], rounds)
            rows.append(Row(kind=kind, density=kept, sparse=sparse, dense=dense))
    return Crossover(
        tokens=M, shape=(K, N), block=block, rounds=rounds, machine=_machine(), rows=tuple(rows)
    )


def _step(kind: str, density: float, x, w, dy, block, rng) -> tuple[Callable[[], object], float]:
    """A training step's sparse products, and the share that they keep."""
    if kind == "activations":
        kept = paddle.to_tensor((rng.random(x.shape) < density).astype("float32"))
        sparse_x = (x.detach() * kept).detach()
        sparse_x.stop_gradient = False
        return lambda: _train(kernels.skip_zeros_matmul, sparse_x, w, dy), float(
            kept.numpy().mean()
        )
    matrix: SparseMatrix
    if kind == "nm":
        matrix = NM.from_dense(w.detach())
    elif kind == "csr":
        matrix = CSR.from_dense(w.detach(), mask=_choose(rng, tuple(w.shape), density))
    else:
        grid = (w.shape[0] // block[0], w.shape[1] // block[1])
        matrix = BSR.from_dense(w.detach(), block=block, mask=_choose(rng, grid, density))
    values = matrix.values.detach()
    values.stop_gradient = False
    matrix = matrix.with_values(values)
    return lambda: _train(lambda x, _: matrix.matmul(x, path="native"), x, w, dy), matrix.density


def _choose(rng, shape: tuple[int, int], density: float) -> np.ndarray:
    size = shape[0] * shape[1]
    mask = np.zeros(size, dtype=bool)
    mask[rng.permutation(size)[: max(1, round(density * size))]] = True
    return mask.reshape(shape)


def _train(product, x, w, dy) -> None:
    product(x, w).backward(dy)
    x.clear_gradient(False)
    w.clear_gradient(False)


def _times(arms: list[Callable[[], object]], rounds: int) -> list[float]:
    clock = time.thread_time if openmp_threads() == 1 else time.perf_counter
    times: list[list[float]] = [[] for _ in arms]
    for index in range(rounds + 1):
        for arm, found in list(zip(arms, times))[:: 1 if index % 2 else -1]:
            begun = clock()
            arm()
            if index:  # the first round touches the memory
                found.append(clock() - begun)
    return [statistics.median(found) for found in times]


def _machine() -> str:
    threads = openmp_threads()
    return f"{info().path}, {threads} thread{'s' if threads > 1 else ''}"
