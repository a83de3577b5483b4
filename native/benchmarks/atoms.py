"""Speed of the kernels of atoms: lists of neighbours, sums over edges, radial filters.

Usage: python native/benchmarks/atoms.py [--rounds N] [--threads N] [--edges N] [--features N]

Copper with thermal displacements, cut-off 5 Å. Lists are compared with vesin and ASE; arms are
interleaved, and times are the least of all rounds, of processor time on one thread. The gradients of
edges are those of training by forces: value, force, and the derivative of a loss of forces by the
weights, compared with the same function of Paddle's own operators after ``accelerate()``.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import paddle
from ase.build import bulk
from ase.neighborlist import primitive_neighbor_list
from vesin import NeighborList

from oarlock import native
from oarlock.native import atoms
from oarlock.native.paddle import accelerate
from oarlock.native.paddle import atoms as layers

CUTOFF = 5.0


def milliseconds(
    arms: dict[str, Callable[[], object]], rounds: int, threads: int
) -> dict[str, float]:
    """The least time of each arm, interleaved."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    least = dict.fromkeys(arms, float("inf"))
    for index in range(rounds + 1):
        for name in list(arms)[:: 1 if index % 2 else -1]:
            start = clock()
            arms[name]()
            if index:  # the first round touches the memory
                least[name] = min(least[name], 1e3 * (clock() - start))
    return least


def lists(repeat: int, rounds: int, threads: int) -> None:
    crystal = bulk("Cu", cubic=True) * ((repeat,) * 3)
    crystal.rattle(0.05, seed=1)
    positions, cell, periodic = crystal.positions, crystal.cell.array, (True,) * 3
    vesin = NeighborList(cutoff=CUTOFF, full_list=True)
    given: dict[str, Any] = {"cutoff": CUTOFF, "threads": threads}
    arms: dict[str, Callable[[], object]] = {
        "full": lambda: atoms.neighbour_list(positions, cell, periodic, **given),
        "half": lambda: atoms.neighbour_list(positions, cell, periodic, half=True, **given),
        "vesin": lambda: vesin.compute(positions, cell, True, "ijS"),
    }
    if len(crystal) <= 4000:
        arms["ase"] = lambda: primitive_neighbor_list("ijS", periodic, cell, positions, CUTOFF)
    found = milliseconds(arms, max(2, rounds * 256 // len(crystal)), threads)
    edges = len(atoms.neighbour_list(positions, cell, periodic, **given).neighbours)
    times = "".join(
        f"{found.get(name, float('nan')):10.2f}" for name in ("full", "half", "vesin", "ase")
    )
    print(f"{len(crystal):7}{edges:10}{times}{found['vesin'] / found['full']:12.2f}")


class Edges:
    """A continuous-filter convolution of random features over the edges of random pairs."""

    def __init__(self, edges: int, features: int) -> None:
        rng = np.random.default_rng(0)
        self.count = max(edges // 40, 1)
        self.first, self.second = (
            paddle.to_tensor(rng.integers(0, self.count, edges)) for _ in range(2)
        )
        self.distances = paddle.to_tensor(rng.uniform(1, CUTOFF, edges).astype(np.float32))
        self.distances.stop_gradient = False
        self.x = self._normals(rng, self.count, features)
        shapes = ((20, features), (features,), (features, features), (features,))
        self.weights = [self._normals(rng, *shape) for shape in shapes]
        self.centers = paddle.linspace(0, CUTOFF, 20)
        self.radial = layers.Radial(cutoff=CUTOFF, width=CUTOFF / 19)

    @staticmethod
    def _normals(rng: np.random.Generator, *shape: int) -> paddle.Tensor:
        values = rng.standard_normal(shape).astype(np.float32) / 10
        return paddle.to_tensor(values, stop_gradient=False)

    def kernels(self) -> paddle.Tensor:
        w1, b1, w2, b2 = self.weights
        w = layers.radial_filters(self.distances, self.radial, self.centers, [(w1, b1), (w2, b2)])
        return layers.convolve(self.x, w, self.first, self.second, count=self.count)

    def composed(self) -> paddle.Tensor:
        w1, b1, w2, b2 = self.weights
        offset = (self.distances.unsqueeze(-1) - self.centers) / (CUTOFF / 19)
        basis = paddle.exp(paddle.square(offset) * -0.5)
        hidden = paddle.nn.functional.softplus(paddle.matmul(basis, w1) + b1) - float(np.log(2))
        cut = 0.5 * (paddle.cos(self.distances * (np.pi / CUTOFF)) + 1.0)
        w = (paddle.matmul(hidden, w2) + b2) * cut.unsqueeze(-1)
        messages = paddle.gather(self.x, self.second) * w
        zeros = paddle.zeros([self.count, messages.shape[1]])
        return paddle.index_add(zeros, self.first, 0, messages)

    def force(self, sums: Callable[[], paddle.Tensor], train: bool) -> None:
        energy = paddle.square(sums()).sum()
        with layers.without_weights():
            (force,) = paddle.grad([energy], [self.distances], create_graph=train)
        if train:
            paddle.square(force).sum().backward()

    def report(self, rounds: int, threads: int) -> None:
        for what, train in (("value and force", False), ("loss of forces, gradients", True)):
            arms: dict[str, Callable[[], object]] = {
                "kernels": partial(self.force, self.kernels, train),
                "paddle": partial(self.force, self.composed, train),
            }
            found = milliseconds(arms, rounds, threads)
            ratio = found["paddle"] / found["kernels"]
            print(f"{what:28}{found['kernels']:10.2f}{found['paddle']:10.2f}{ratio:10.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--edges", type=int, default=16_000)
    parser.add_argument("--features", type=int, default=128)
    arguments = parser.parse_args()
    accelerate(threads=arguments.threads)
    print(native.info())
    print(
        f"\nneighbours within {CUTOFF} Å, ms on {arguments.threads} threads (vesin and ASE on one)"
    )
    names = ("full", "half", "vesin", "ase")
    print(f"{'atoms':>7}{'edges':>10}{''.join(f'{name:>10}' for name in names)}{'vesin/full':>12}")
    for repeat in (4, 6, 10, 20):
        lists(repeat, arguments.rounds, arguments.threads)
    print(f"\n{arguments.edges} edges, {arguments.features} features, float32, ms")
    print(f"{'':28}{'kernels':>10}{'Paddle':>10}{'ratio':>10}")
    Edges(arguments.edges, arguments.features).report(
        max(arguments.rounds // 4, 2), arguments.threads
    )


if __name__ == "__main__":
    main()
