"""SchNet and PaiNN beside SchNetPack's, SphereNet alone: forces, and training steps, of 256 atoms.

    python packages/sci-md/benchmarks/message_passing.py [--features 128] [--repeats 7] [MODEL …]

SchNetPack 2.1.1 and torch have to be installed beside this package. Both sides take turns in one
process, on one thread, with the same edges; a ratio above 1 means that ours is faster.
"""

import argparse
import time
import typing

import ase.build
import numpy as np
import paddle

from oarlock.native.paddle import accelerate
from oarlock.sci_md import keys
from oarlock.sci_md.graph import to_graph
from oarlock.sci_md.neighbours import find_neighbours
from oarlock.sci_md.potentials import build, config_from_dict
from oarlock.sci_md.structure import Structure

CUTOFF = 5.0


def copper(atoms):
    repeats = round((atoms / 4) ** (1 / 3))
    crystal = ase.build.bulk("Cu", cubic=True).repeat(repeats)
    crystal.rattle(0.05, seed=1)
    assert len(crystal) == atoms
    return Structure.from_ase(crystal)


def ours(name, structure, features):
    """What computes forces once, and what trains one step."""
    fields = {"features": features} if name != "spherenet" else {"layers": 2, "cutoff": 3.5}
    config = config_from_dict({"model": name, "elements": ["Cu"], "cutoff": CUTOFF, **fields})
    potential = build(config)
    lists = find_neighbours(structure, ("Cu",), config.cutoff)
    target = paddle.zeros([len(structure), 3])
    adam = paddle.optimizer.Adam(1e-4, parameters=potential.parameters())

    def infer():
        potential.eval()
        potential(to_graph([lists]))[keys.FORCES].numpy()

    def train():
        potential.train()
        result = potential(to_graph([lists]))
        loss = paddle.square(result[keys.FORCES] - target).mean()
        (loss + 1e-3 * paddle.square(result[keys.ENERGY]).sum().astype("float32")).backward()
        adam.step()
        adam.clear_grad()

    return infer, train, len(lists.neighbours)


def theirs(name, structure, features):
    import torch
    import torch.utils.data.dataloader

    torch.utils.data.dataloader.T_co = typing.TypeVar("T_co")  # schnetpack 2.1.1 looks for it there
    import schnetpack as spk
    import schnetpack.properties as names

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as a user would who had looked: twice as fast without them
    representation = getattr(spk.representation, {"schnet": "SchNet", "painn": "PaiNN"}[name])(
        n_atom_basis=features,
        n_interactions=3,
        radial_basis=spk.nn.GaussianRBF(20, CUTOFF),
        cutoff_fn=spk.nn.CosineCutoff(CUTOFF),
    )
    model = spk.model.NeuralNetworkPotential(
        representation,
        input_modules=[spk.atomistic.PairwiseDistances()],
        output_modules=[
            spk.atomistic.Atomwise(n_in=features, output_key="energy"),
            spk.atomistic.Forces(energy_key="energy", force_key="forces"),
        ],
    )
    lists = find_neighbours(structure, ("Cu",), CUTOFF)
    inputs = {
        names.Z: torch.tensor(np.array(structure.numbers)),
        names.idx_i: torch.tensor(lists.centers.astype(np.int64)),
        names.idx_j: torch.tensor(lists.neighbours.astype(np.int64)),
        names.idx_m: torch.zeros(len(structure), dtype=torch.long),
        names.n_atoms: torch.tensor([len(structure)]),
        names.offsets: torch.tensor(lists.shifts.astype(np.float32)),
    }
    positions = torch.tensor(structure.positions.astype(np.float32))
    target = torch.zeros(len(structure), 3)
    adam = torch.optim.Adam(model.parameters(), 1e-4)

    def infer():
        model.eval()
        model({**inputs, names.R: positions.clone()})["forces"].detach().numpy()

    def train():
        model.train()
        result = model({**inputs, names.R: positions.clone()})
        loss = (result["forces"] - target).square().mean()
        (loss + 1e-3 * result["energy"].square().sum()).backward()
        adam.step()
        adam.zero_grad()

    return infer, train


def seconds(work):
    start = time.process_time()
    work()
    return time.process_time() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["schnet", "painn", "spherenet"])
    parser.add_argument("--atoms", type=int, default=256)
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    accelerate(threads=1)
    structure = copper(arguments.atoms)
    for name in arguments.models:
        *mine, edges = ours(name, structure, arguments.features)
        peer = None if name == "spherenet" else theirs(name, structure, arguments.features)
        for step, label in enumerate(["forces", "training step"]):
            sides = [mine[step], *([] if peer is None else [peer[step]])]
            for side in sides:
                side()
            times = np.array([[seconds(side) for side in sides] for _ in range(arguments.repeats)])
            line = f"{name:9} {arguments.atoms} atoms, {edges} edges, {label:13} "
            line += f"{1e3 * np.median(times[:, 0]):8.1f} ms CPU"
            if peer is not None:
                ratios = times[:, 1] / times[:, 0]
                line += f", SchNetPack {1e3 * np.median(times[:, 1]):8.1f}, ratio {np.median(ratios):.2f}"
                line += f" ({ratios.min():.2f} to {ratios.max():.2f})"
            print(line, flush=True)


if __name__ == "__main__":
    main()
