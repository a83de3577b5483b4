"""Deep Potential on our native engine beside DeePMD-kit's PyTorch backend, the same parameters in both.

    python packages/sci-md/benchmarks/deep_potential.py --peer PYTHON [--threads 1] [--atoms 256 864 4000]

PYTHON is an interpreter with deepmd-kit 3.2.0, the torch that its wheel was built for (2.11.0), mpich, vesin and
ase; without it only ours is timed. Prints microseconds an atom, energies, forces and virial, lists of neighbours
given to both: networks against TorchScript, tables against ``dp --pt compress``. On a machine with other work
look at processor time (one thread only); with several threads there is only the wall clock.

Copper: a shaken crystal, 78 neighbours within 6 Å. Water: hydrogen and oxygen at random places of a grid at
0.1 atoms per Å³, 90 neighbours. Embedding 25-50-100, axis 16, fitting 240-240-240, parameters as they are drawn.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import ase
import numpy as np
import paddle
from ase.build import bulk
from deepmd.dpmodel.utils.serialization import load_dp_model, save_dp_model
from oarlock.sci_md.deepmd import save_deepmd
from oarlock.sci_md.evaluate import NativeDeepPotential
from oarlock.sci_md.neighbours import find_neighbours
from oarlock.sci_md.potentials import DeepPotential, DeepPotentialConfig, build
from oarlock.sci_md.structure import Structure

CELLS = {256: (4, 4, 4), 864: (6, 6, 6), 4000: (10, 10, 10)}
SHAPES = {"copper": ("Cu",), "water": ("O", "H")}
SEL = {"copper": (96,), "water": (48, 80)}


def system(shape: str, atoms: int) -> ase.Atoms:
    """A crystal of copper, or its sites stretched to the density of water and named O and H."""
    found = bulk("Cu", cubic=True).repeat(CELLS[atoms])
    if shape == "water":
        found.set_cell(found.cell * (found.get_volume() / len(found) * 0.1) ** (-1 / 3), True)
        found.numbers[:] = np.where(np.arange(atoms) % 3 == 0, 8, 1)
    found.rattle(0.05, seed=1)
    return found


def potential_of(shape: str, dtype: str) -> DeepPotential:
    paddle.seed(1)
    config = DeepPotentialConfig(elements=SHAPES[shape], sel=SEL[shape], dtype=dtype)
    potential = build(config)
    lists = find_neighbours(Structure.from_ase(system(shape, 256)), config.elements, config.cutoff)
    potential.fit_statistics([lists])
    return potential


def timed(call, least: float = 1.0) -> tuple[float, float]:
    """The shortest wall time and the shortest processor time of a call, s."""
    wall = processor = float("inf")
    call()
    began = time.perf_counter()
    while time.perf_counter() - began < least:
        a, b = time.perf_counter(), time.process_time()
        call()
        wall = min(wall, time.perf_counter() - a)
        processor = min(processor, time.process_time() - b)
    return wall, processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--atoms", type=int, nargs="+", default=list(CELLS))
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES))
    given = parser.parse_args()
    print(
        "shape   atoms dtype   form     | ours wall  cpu | peer wall  cpu | largest difference in force"
    )
    for shape in given.shapes:
        for dtype in ("float64", "float32"):
            potential = potential_of(shape, dtype)
            peers = peer_times(given, shape, dtype, potential) if given.peer else {}
            for atoms in given.atoms:
                structure = Structure.from_ase(system(shape, atoms))
                lists = find_neighbours(structure, potential.elements, potential.cutoff)
                for form in ("networks", "tables"):
                    engine = NativeDeepPotential(
                        potential, compressed=form == "tables", threads=given.threads
                    )
                    ours = [t / atoms * 1e6 for t in timed(lambda: engine.evaluate(lists))]
                    line = (
                        f"{shape:7s} {atoms:5d} {dtype} {form:8s} | {ours[0]:9.1f} {ours[1]:5.1f}"
                    )
                    if peers:
                        theirs = peers[f"{form} {atoms}"]
                        forces = engine.evaluate(lists).forces
                        apart = np.abs(forces - np.array(theirs["forces"])).max()
                        wall, processor = theirs["times"]
                        line += f" | {wall:9.1f} {processor:5.1f} | {apart:.1e}"
                    print(line, flush=True)


def peer_times(given, shape: str, dtype: str, potential: DeepPotential) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        save_deepmd(potential, f"{folder}/model.dp")
        model = load_dp_model(f"{folder}/model.dp")  # compression asks for the closest distance
        model |= {"min_nbor_dist": 1.0, "@variables": {"min_nbor_dist": np.array(1.0)}}
        save_dp_model(f"{folder}/model.dp", model)
        for atoms in given.atoms:
            one = system(shape, atoms)
            species = [SHAPES[shape].index(symbol) for symbol in one.symbols]
            np.savez(f"{folder}/{atoms}.npz", p=one.positions, c=one.cell.array, s=species)
        script = Path(__file__).with_name("deep_potential_peer.py")
        command = [str(given.peer), str(script), folder, str(given.threads), str(sum(SEL[shape]))]
        subprocess.run([*command, *map(str, given.atoms)], check=True, stdout=subprocess.DEVNULL)
        return json.loads(Path(f"{folder}/times.json").read_text())


if __name__ == "__main__":
    main()
