"""Deep Potentials of copper on a GPU and on all cores of the CPU: microseconds for an atom and steps a second.

    python native/benchmarks/cuda_deep_potential.py --out cuda_deep_potential.json

DeePMD-kit's default sizes (embedding 25-50-100, axis 16, fitting 3 × 240, 6 Å) with random parameters, and tables in
place of the embedding. The list has a skin of 1 Å, and atoms are moved from their lattice at random. A step is one
call with arrays of the host, transfers included, and the list as it was; "kernels" is what the GPU's clock says they
took. No PyTorch and no Paddle is needed.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import time

import numpy as np

from oarlock.native import deep_potential as dp
from oarlock.native import deep_potential_cuda, info

LATTICE, CUTOFF, SKIN = 3.615, 6.0, 1.0  # Å
# Random networks are smoother than trained ones: tables as large as those need for 1e-9 and 1e-6.
TOLERANCE = {"float64": 1e-12, "float32": 1e-9}
CELLS = [4, 10, 16, 30, 63]  # 256 to 1,000,188 atoms


def network(rng, widths, timestep):
    return [
        dp.Layer(
            weight=rng.normal(0, (inputs + outputs) ** -0.5, (inputs, outputs)),
            bias=rng.normal(0, 1, outputs),
            timestep=rng.normal(0.1, 0.001, outputs) if timestep and inputs == outputs else None,
        )
        for inputs, outputs in zip(widths[:-1], widths[1:])
    ]


def copper_model() -> dp.Model:
    rng = np.random.default_rng(0)
    return dp.Model(
        cutoff=CUTOFF,
        smooth=0.5,
        axis=16,
        one_side=True,
        mean=np.array([[0.05, 0.0, 0.0, 0.0]]),
        deviation=np.array([[0.08, 0.05, 0.05, 0.05]]),
        sel=np.array([100.0]),
        reference=np.array([-3.7]),
        scale=1.0,
        embeddings=[network(rng, (1, 25, 50, 100), False)],
        fittings=[network(rng, (1600, 240, 240, 240), True) + network(rng, (240, 1), False)],
    )


def copper_atoms(cells: int, seed: int = 0):
    """Positions, species, offsets, neighbours and shifts of a periodic box of cells³ cubic cells."""
    basis = np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1]])  # halves of the cell
    reach = int(np.ceil(2 * (CUTOFF + SKIN) / LATTICE))
    steps = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), -1)
    steps = steps.reshape(-1, 3)
    far = np.sqrt((steps**2).sum(1)) * LATTICE / 2
    steps = steps[(steps.sum(1) % 2 == 0) & (far > 0) & (far < CUTOFF + SKIN)]
    cell = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    half = (2 * cell + basis).reshape(-1, 3)  # of all atoms
    count, each = len(half), len(steps)
    number = np.full(8, -1)
    number[basis @ [4, 2, 1]] = np.arange(4)
    neighbours = np.empty((count, each), np.int32)
    shifts = np.empty((count, each, 3))
    for n, step in enumerate(steps):
        to = half + step
        wrap = to // (2 * cells)
        to = to - wrap * 2 * cells
        at, odd = to // 2, to % 2
        index = (at[:, 0] * cells + at[:, 1]) * cells + at[:, 2]
        neighbours[:, n] = index * 4 + number[odd @ [4, 2, 1]]
        shifts[:, n] = wrap * (cells * LATTICE)
    positions = half * (LATTICE / 2) + np.random.default_rng(seed).normal(0, 0.06, (count, 3))
    offsets = np.arange(count + 1, dtype=np.int64) * each
    lists = (np.zeros(count, np.int32), offsets, neighbours.reshape(-1))
    return positions, lists, shifts.reshape(-1, 3)


def median_time(step, seconds: float) -> float:
    """Of a step that has run before."""
    times: list[float] = []
    while not times or (sum(times) < seconds and len(times) < 200):
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def measure(cells: int, cpu_most: int, seconds: float) -> list[dict]:
    positions, lists, shifts = copper_atoms(cells)
    found = []
    for precision in ("float64", "float32"):
        model = copper_model()
        tables = dp.compress(model, closest=1.0, tolerance=TOLERANCE[precision])
        engine = deep_potential_cuda.DeepPotential(model, precision=precision, tables=tables)
        begin = time.perf_counter()
        engine.set_lists(*lists, shifts=shifts)
        result = engine.evaluate(positions)
        listed = time.perf_counter() - begin
        took = median_time(lambda: engine.evaluate(positions), seconds)
        times = engine.times
        row = {
            "atoms": len(positions),
            "listed_neighbours": len(lists[2]) // len(positions),
            "precision": precision,
            "intervals": len(tables[0].nodes) - 1,
            "gpu_us_per_atom": took / len(positions) * 1e6,
            "gpu_steps_per_second": 1 / took,
            "kernels_ms": times.compute,
            "upload_ms": times.upload,
            "download_ms": times.download,
            "share_outside_kernels": 1 - times.compute / (took * 1e3),
            "lists_and_first_step_s": listed,
        }
        if len(positions) <= cpu_most:
            known = dp.DeepPotential(model, precision=precision, tables=tables)
            cores = len(os.sched_getaffinity(0))

            def step():
                return known.evaluate(positions, *lists, shifts=shifts, threads=cores)

            expected = step()
            cpu = median_time(step, seconds)
            row |= {
                "cpu_us_per_atom": cpu / len(positions) * 1e6,
                "cpu_threads": cores,
                "times_faster": cpu / took,
                "force_difference": float(np.abs(result.forces - expected.forces).max()),
                "largest_force": float(np.abs(expected.forces).max()),
                "energy_difference": float(np.abs(result.energies - expected.energies).max()),
            }
        print(json.dumps(row), flush=True)
        found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, nargs="+", default=CELLS)
    parser.add_argument(
        "--cpu-most", type=int, default=2_000_000, help="atoms that the CPU goes through"
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--out")
    options = parser.parse_args()
    rows = [
        row for cells in options.cells for row in measure(cells, options.cpu_most, options.seconds)
    ]
    gpu = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
    ).stdout.strip()
    report = {
        "gpu": gpu,
        "cpu": next(
            (
                line.split(":")[1].strip()
                for line in open("/proc/cpuinfo")
                if line.startswith("model name")
            ),
            platform.machine(),
        ),
        "path": info().path,
        "rows": rows,
    }
    if options.out:
        with open(options.out, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
