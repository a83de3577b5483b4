"""What the equivariant potential costs: 256 copper atoms, µs per atom of processor time, one thread.

python packages/sci-md/benchmarks/equivariant.py [--atoms 256] [--repeats 10]

Inference is energies, forces and virial; a training step is those, a loss of energies and forces, and
its gradients by the parameters. The best of the repeats is printed, since the machine may be shared.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import paddle
from ase.build import bulk

from oarlock.native.paddle import accelerate
from oarlock.sci_md import keys
from oarlock.sci_md.graph import Graph, to_graph
from oarlock.sci_md.neighbours import find_neighbours
from oarlock.sci_md.potentials import EquivariantConfig, Potential, build
from oarlock.sci_md.structure import Structure

CASES: dict[str, dict[str, Any]] = {
    "default (64 channels, degree 3, messages 1)": {},
    "32 channels": {"features": 32},
    "degree 2": {"degree": 2},
    "messages of degree 2": {"message_degree": 2},
    "128 channels, messages of degree 2": {"features": 128, "message_degree": 2},
    "one layer": {"layers": 1},
}


def copper(atoms: int) -> Structure:
    """Rattled; as near to that many atoms as cubes of cells come."""
    times = max(round((atoms / 4) ** (1 / 3)), 2)
    crystal = bulk("Cu", cubic=True) * (times, times, times)
    crystal.rattle(0.1, seed=0)
    return Structure(
        numbers=crystal.numbers,
        positions=crystal.positions,
        cell=crystal.cell.array,
        pbc=crystal.pbc,
    )


def best(run: Callable[[], None], repeats: int) -> float:
    """Seconds of processor time."""
    run()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def step(potential: Potential, graph: Graph) -> None:
    said = potential(graph)
    loss = paddle.square(said[keys.FORCES]).sum().astype("float64") + said[keys.ENERGY].sum()
    paddle.grad([loss], potential.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atoms", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=10)
    given = parser.parse_args()
    accelerate(threads=1)
    structure = copper(given.atoms)
    atoms = len(structure)
    print(f"{atoms} atoms {'inference':>45} {'training step':>15}   µs/atom")
    for name, fields in CASES.items():
        paddle.seed(0)
        potential = build(EquivariantConfig(elements=("Cu",), **fields))
        graph = to_graph([find_neighbours(structure, ("Cu",), potential.cutoff)])
        potential.eval()
        inference = best(lambda: potential(graph), given.repeats)  # noqa: B023
        potential.train()
        training = best(lambda: step(potential, graph), given.repeats)  # noqa: B023
        print(f"{name:45} {inference / atoms * 1e6:12.0f} {training / atoms * 1e6:15.0f}")


if __name__ == "__main__":
    main()
