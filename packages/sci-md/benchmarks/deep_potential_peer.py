"""What `deep_potential.py` runs in the interpreter that has DeePMD-kit's PyTorch backend.

Arguments: a folder with model.dp and ATOMS.npz, threads, sel, and the numbers of atoms. Writes times.json.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from vesin import NeighborList


def extended(positions, cell, cutoff, width):
    """Positions with images, the atoms that they are images of, and lists of equal length."""
    search = NeighborList(cutoff=cutoff, full_list=True, sorted=True)
    i, j, steps = search.compute(points=positions, box=cell, periodic=True, quantities="ijS")
    i, j, steps = i.astype(int), j.astype(int), steps.astype(int)
    count = len(positions)
    away = np.flatnonzero(steps.any(axis=1))
    keys = np.concatenate([j[away, None], steps[away]], axis=1)
    unique, of_edge = np.unique(keys, axis=0, return_inverse=True)
    ends = j.copy()
    ends[away] = count + of_edge.ravel()
    parents = np.concatenate([np.arange(count), unique[:, 0]])
    images = positions[unique[:, 0]] + unique[:, 1:] @ cell
    counts = np.bincount(i, minlength=count)
    lists = np.full((count, width), -1)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    lists[i, np.arange(len(i)) - starts[i]] = ends
    return np.concatenate([positions, images]), parents, lists


def main() -> None:
    folder, threads, width = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    program = str(Path(sys.executable).with_name("dp"))
    plain, packed = str(folder / "model.pth"), str(folder / "compressed.pth")
    subprocess.run([program, "convert-backend", str(folder / "model.dp"), plain], check=True)
    subprocess.run([program, "--pt", "compress", "-i", plain, "-o", packed], check=True, cwd=folder)
    from deepmd.infer import DeepPot

    found = {}
    for form, path in (("networks", plain), ("tables", packed)):
        net = DeepPot(path).deep_eval.dp
        net = net.model["Default"] if hasattr(net, "model") else net
        for atoms in sys.argv[4:]:
            given = np.load(folder / f"{atoms}.npz")
            positions, parents, lists = extended(given["p"], given["c"], 6.0, width)
            arguments = [
                torch.tensor(positions[None]),
                torch.tensor(given["s"][parents][None]),
                torch.tensor(lists[None]),
                torch.tensor(parents[None]),
            ]
            wall = processor = float("inf")
            for _ in range(3):  # TorchScript compiles in the first calls
                net.forward_lower(*arguments)
            began, calls = time.perf_counter(), 0
            while calls < 3 or time.perf_counter() - began < 1.0:
                a, b = time.perf_counter(), time.process_time()
                result = net.forward_lower(*arguments)
                wall = min(wall, time.perf_counter() - a)
                processor = min(processor, time.process_time() - b)
                calls += 1
            forces = np.zeros((int(atoms), 3))
            np.add.at(forces, parents, result["extended_force"].detach().numpy()[0])
            times = [wall / int(atoms) * 1e6, processor / int(atoms) * 1e6]
            found[f"{form} {atoms}"] = {"times": times, "forces": forces.tolist()}
    (folder / "times.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
