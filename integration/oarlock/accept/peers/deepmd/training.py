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

TRIED = (100, 500)  #: steps by which the time of one is known


def train(*, values, test, folder, seconds=None):
    """`dp --pt train` and `freeze`.

    Args:
        values: of input.json.
        test: an .npz file (`dynamics/elements.py`).
        seconds: of processor time, instead of the number of steps that `values` have.

    Returns:
        steps, seconds of processor time, and mean absolute errors: energy in meV/atom, forces in meV/Å.
    """
    folder = Path(folder)
    folder.mkdir(parents=True)
    for part in (values["model"]["descriptor"], values["model"]["fitting_net"]):
        part["seed"] = values["training"]["seed"] + 1
    if seconds is not None:
        few, many = (_dp_train(values, steps, folder) for steps in TRIED)
        values["training"]["numb_steps"] = round(seconds * (TRIED[1] - TRIED[0]) / (many - few))
    steps = values["training"]["numb_steps"]
    spent = _dp_train(values, steps, folder)
    _dp(["freeze", "-o", "model.pth"], folder)
    return {"steps": steps, "seconds": spent} | _errors(str(folder / "model.pth"), values, test)


def _dp_train(values, steps, folder):
    """Seconds of processor time of a training of so many steps."""
    training = {**values["training"], "numb_steps": steps, "disp_freq": steps, "save_freq": steps}
    rate = {**values["learning_rate"], "decay_steps": max(1, steps // 50)}
    (folder / "input.json").write_text(
        json.dumps({**values, "training": training, "learning_rate": rate})
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _dp(["train", "input.json"], folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _dp(arguments, folder):
    dp = str(Path(sys.executable).with_name("dp"))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DP_INTRA_OP_PARALLELISM_THREADS": "1",
                                "DP_INTER_OP_PARALLELISM_THREADS": "1"}  # fmt: skip
    done = subprocess.run(
        [dp, "--pt", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"dp --pt {' '.join(arguments)}: {done.stderr[-2000:]}")


def _errors(model, values, test):
    from ase.data import atomic_numbers
    from deepmd.infer import DeepPot

    model = DeepPot(model)
    kinds = {atomic_numbers[name]: index for index, name in enumerate(values["model"]["type_map"])}
    wrong_energies, wrong_forces = [], []
    with np.load(test) as loaded:
        arrays = dict(loaded)
    first = np.concatenate([[0], np.cumsum(arrays["atoms"])])
    for index, (begin, end) in enumerate(zip(first[:-1], first[1:])):
        types = [kinds[number] for number in arrays["numbers"][begin:end].tolist()]
        positions, cell = arrays["positions"][begin:end], arrays["cells"][index]
        energy, forces, _ = model.eval(positions.reshape(1, -1), cell.reshape(1, 9), types)
        wrong_energies.append(abs(energy.item() - arrays["energies"][index]) / len(types))
        wrong_forces.append(np.abs(forces[0] - arrays["forces"][begin:end]).ravel())
    return {
        "energy": 1e3 * float(np.mean(wrong_energies)),
        "forces": 1e3 * float(np.concatenate(wrong_forces).mean()),
    }
