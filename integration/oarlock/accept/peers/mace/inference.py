"""MACE with random parameters for one system, served to an experiment.

Runs in the peer's own environment, which has MACE, PyTorch and NumPy and nothing of ours.
"""

import os
import time

os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # e3nn 0.4.4 keeps its constants as pickles

import numpy as np  # noqa: E402
import torch  # noqa: E402
from e3nn import o3  # noqa: E402
from mace import modules  # noqa: E402

_state: dict = {}


def build(*, case, threads, hidden, cutoff, neighbours, seed):
    """Args:
    hidden: irreducible representations of the features, such as "64x0e" or "128x0e + 128x1o".
    neighbours: what sums over edges are divided by.
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # as a careful user has it: twice as fast for Gaussians
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(seed)
    with np.load(case) as arrays:
        system = dict(arrays)
    model = modules.ScaleShiftMACE(
        r_max=cutoff,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        num_interactions=2,
        num_elements=1,
        hidden_irreps=o3.Irreps(hidden),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(1),
        avg_num_neighbors=neighbours,
        atomic_numbers=[29],
        correlation=3,
        gate=torch.nn.functional.silu,
        radial_MLP=[64, 64, 64],
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    from e3nn.util.jit import script

    _state["model"] = script(model)
    atoms = len(system["numbers"])
    steps = np.rint(system["shifts"] @ np.linalg.inv(system["cell"]))
    _state["inputs"] = {
        "positions": torch.from_numpy(system["positions"]).float(),
        "cell": torch.from_numpy(system["cell"]).float(),
        "pbc": torch.ones(1, 3, dtype=torch.bool),
        "node_attrs": torch.ones(atoms, 1),
        "edge_index": torch.from_numpy(
            np.stack([system["centers"], system["neighbours"]]).astype(np.int64)
        ),
        "shifts": torch.from_numpy(system["shifts"]).float(),
        "unit_shifts": torch.from_numpy(steps).float(),
        "batch": torch.zeros(atoms, dtype=torch.int64),
        "ptr": torch.tensor([0, atoms]),
        "head": torch.zeros(1, dtype=torch.int64),
    }
    step()
    return {"torch": torch.__version__, "parameters": sum(p.numel() for p in model.parameters())}


def step():
    """Energy, forces and virial once; wall and CPU seconds."""
    inputs = dict(_state["inputs"])
    inputs["positions"] = inputs["positions"].clone().requires_grad_(True)
    wall, cpu = time.perf_counter(), time.process_time()
    _state["model"](inputs, training=False, compute_force=True, compute_virials=True)
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
