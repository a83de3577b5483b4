"""MACE trained on one element, served to an experiment.

Runs in the peer's own environment, which has MACE, PyTorch and NumPy and nothing of ours.
"""

import os
import sys
from pathlib import Path

os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # e3nn 0.4.4 keeps its constants as pickles
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "torch"))

import force_training  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from e3nn import o3  # noqa: E402
from mace import modules  # noqa: E402

_state: dict = {}


def train(*, train, test, hidden, cutoff, neighbours, threads, seed, **options):
    """Args:
    train, test: .npz files.
    hidden: irreducible representations of the features.
    neighbours: what sums over edges are divided by.
    options: of `force_training.fit`.
    """
    torch.set_num_threads(threads)
    structures = force_training.Structures(train)
    model = _model(structures, hidden, cutoff, neighbours, seed)
    found = force_training.fit(model, _predict, structures, seed=seed, **options)
    found["parameters"] = sum(one.numel() for one in model.parameters())
    return found | force_training.errors(model, _predict, force_training.Structures(test))


def build(*, batch, hidden, cutoff, neighbours, threads, seed, **options):
    """One batch for `step`; options of `force_training.OneBatch`."""
    model = _model(force_training.Structures(batch), hidden, cutoff, neighbours, seed)
    _state["steps"] = force_training.OneBatch(model, _predict, batch, threads=threads, **options)
    return sum(one.numel() for one in model.parameters())


def step():
    return _state["steps"].step()


def _model(structures, hidden, cutoff, neighbours, seed):
    torch.manual_seed(seed)
    number = int(structures.arrays["numbers"][0])
    reference = float(np.mean(structures.arrays["energies"] / structures.atoms))
    scale = float(np.sqrt(np.mean(np.square(structures.arrays["forces"]))))
    interaction = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    return modules.ScaleShiftMACE(
        r_max=cutoff,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=interaction,
        interaction_cls_first=interaction,
        num_interactions=2,
        num_elements=1,
        hidden_irreps=o3.Irreps(hidden),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.array([reference]),
        avg_num_neighbors=neighbours,
        atomic_numbers=[number],
        correlation=3,
        gate=torch.nn.functional.silu,
        radial_MLP=[64, 64, 64],
        atomic_inter_scale=scale,
        atomic_inter_shift=0.0,
    ).float()


def _predict(model, given):
    atoms = given["atoms"]
    inputs = {
        "positions": given["positions"].clone().requires_grad_(True),
        "cell": given["cells"].reshape(-1, 3),
        "node_attrs": torch.ones(len(given["positions"]), 1),
        "edge_index": torch.stack([given["centers"], given["neighbours"]]),
        "shifts": given["shifts"],
        "unit_shifts": torch.zeros_like(given["shifts"]),
        "batch": given["structures"],
        "ptr": torch.cat([torch.zeros(1, dtype=torch.int64), torch.cumsum(atoms, 0)]),
        "head": torch.zeros(len(atoms), dtype=torch.int64),
    }
    found = model(inputs, training=model.training, compute_force=True)
    return found["energy"], found["forces"]
