"""DeePMD-kit's own training on its PyTorch backend, served to an experiment.

Runs in the peer's own environment, which has DeePMD-kit, PyTorch and NumPy and nothing of ours.
"""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np


def train(*, values, test, folder):
    """`dp --pt train` and `freeze`.

    Args:
        values: of input.json.
        test: an .npz file with positions, cells, energies, forces and types.

    Returns:
        steps, seconds of processor time, and mean absolute errors: energy in meV/atom, forces in meV/Å.
    """
    folder = Path(folder)
    folder.mkdir(parents=True)
    for part in (values["model"]["descriptor"], values["model"]["fitting_net"]):
        part["seed"] = values["training"]["seed"] + 1
    (folder / "input.json").write_text(json.dumps(values))
    dp = str(Path(sys.executable).with_name("dp"))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DP_INTRA_OP_PARALLELISM_THREADS": "1",
                                "DP_INTER_OP_PARALLELISM_THREADS": "1"}  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for command in (["train", "input.json"], ["freeze", "-o", "model.pth"]):
        done = subprocess.run([dp, "--pt", *command], cwd=folder, env=environment, capture_output=True, text=True)  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"dp --pt {' '.join(command)}: {done.stderr[-2000:]}")
        if command[0] == "train":
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
    from deepmd.infer import DeepPot

    model = DeepPot(str(folder / "model.pth"))
    wrong_energies, wrong_forces = [], []
    with np.load(test) as arrays:
        types = arrays["types"].tolist()
        for positions, cell, energy, forces in zip(
            arrays["positions"], arrays["cells"], arrays["energies"], arrays["forces"]
        ):
            e, f, _ = model.eval(positions.reshape(1, -1), cell.reshape(1, 9), types)
            wrong_energies.append(abs(e.item() - energy) / len(types))
            wrong_forces.append(np.abs(f[0] - forces).ravel())
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "steps": values["training"]["numb_steps"],
        "seconds": spent,
        "energy": 1e3 * float(np.mean(wrong_energies)),
        "forces": 1e3 * float(np.concatenate(wrong_forces).mean()),
    }
