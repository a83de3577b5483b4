"""A whole training step of SchNet beside PyTorch's: energy and force loss, gradients, Adam.

    python packages/sci-md/benchmarks/schnet_training.py [--repeats 7] [--keep-denormals]

torch has to be installed beside this package. The same network is written with PyTorch's operators
(`schnet_torch.py`), starts from the same weights and sees the same edges; the largest difference of
forces is printed. Both sides take turns in one process, on one thread, in processor time. Gaussians far
from their centre make denormal numbers, which cost PyTorch as much again, so PyTorch flushes them to
zero unless they are to be kept. A ratio above 1 means that ours is faster.
"""

import argparse
import time

import numpy as np
import paddle
import torch
from schnet_torch import SchNet as TorchSchNet

from oarlock.native.paddle import accelerate
from oarlock.sci_md import keys
from oarlock.sci_md.graph import to_graph
from oarlock.sci_md.neighbours import find_neighbours
from oarlock.sci_md.ops import without_distances
from oarlock.sci_md.potentials import SchNetConfig, build
from oarlock.sci_md.structure import Structure

CUTOFF = 5.0


def structure(atoms: int, edges: int) -> Structure:
    """A rattled simple cubic crystal of about so many edges."""
    sphere = 4 / 3 * np.pi * CUTOFF**3
    side = (atoms * sphere * atoms / edges) ** (1 / 3)
    count = round(atoms ** (1 / 3))
    grid = np.stack(np.meshgrid(*[np.arange(count)] * 3, indexing="ij"), -1).reshape(-1, 3)
    moved = np.random.default_rng(0).normal(0, 0.25, grid.shape)
    return Structure(
        numbers=np.full(atoms, 29),
        positions=grid * (side / count) + moved,
        cell=side * np.eye(3),
        pbc=np.ones(3, dtype=bool),
    )


class Ours:
    def __init__(self, given: Structure, features: int, target: np.ndarray) -> None:
        config = SchNetConfig(elements=("Cu",), cutoff=CUTOFF, features=features)
        self.potential = build(config)
        self.potential.train()
        self.atoms = len(given)
        self.graph = to_graph([find_neighbours(given, ("Cu",), CUTOFF)])
        self.target = paddle.to_tensor(target)
        self.parameters = self.potential.parameters()
        self.optimizer = paddle.optimizer.Adam(1e-4, parameters=self.parameters)

    def step(self) -> None:
        result = self.potential(self.graph)
        energy = paddle.square(result[keys.ENERGY] / self.atoms).astype("float32").sum()
        loss = energy + paddle.square(result[keys.FORCES] - self.target).mean()
        with without_distances():
            gradients = paddle.grad([loss], self.parameters, allow_unused=True)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()

    def forces(self) -> np.ndarray:
        return self.potential(self.graph)[keys.FORCES].numpy()


class Theirs:
    def __init__(self, ours: Ours, features: int, target: np.ndarray) -> None:
        self.model = TorchSchNet(features, CUTOFF)
        self.model.take_over(
            {name: tensor.numpy() for name, tensor in ours.potential.state_dict().items()}
        )
        graph = ours.graph
        self.centers, self.neighbours = (
            torch.from_numpy(index.numpy()) for index in (graph.centers, graph.neighbours)
        )
        self.vectors = torch.from_numpy(graph.vectors.numpy())
        self.target = torch.from_numpy(target)
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-4)

    def energy_and_forces(self, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
        vectors = self.vectors.clone().requires_grad_(True)
        atoms = len(self.target)
        energy = self.model(atoms, vectors, self.centers, self.neighbours).sum()
        (slopes,) = torch.autograd.grad(energy, vectors, create_graph=train)
        zeros = torch.zeros(atoms, 3)
        forces = zeros.index_add(0, self.centers, slopes) - zeros.index_add(
            0, self.neighbours, slopes
        )
        return energy, forces

    def step(self) -> None:
        energy, forces = self.energy_and_forces(True)
        loss = torch.square(energy / len(forces)) + torch.square(forces - self.target).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def forces(self) -> np.ndarray:
        return self.energy_and_forces(False)[1].detach().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--keep-denormals", action="store_true")
    arguments = parser.parse_args()
    accelerate(threads=1)
    torch.set_num_threads(1)
    torch.set_flush_denormal(not arguments.keep_denormals)
    print(
        f"{'atoms':>6}{'edges':>8}{'width':>6}{'torch ms':>10}{'ours ms':>10}{'ratio':>7}  forces differ"
    )
    for atoms, edges, features in ((64, 1270, 64), (512, 16_600, 128)):
        given = structure(atoms, edges)
        target = np.random.default_rng(1).standard_normal((atoms, 3)).astype(np.float32)
        ours = Ours(given, features, target)
        theirs = Theirs(ours, features, target)
        differ = float(np.abs(ours.forces() - theirs.forces()).max())
        times: dict[object, list[float]] = {ours: [], theirs: []}
        for turn in range(arguments.repeats + 1):
            for side in (ours, theirs) if turn % 2 else (theirs, ours):
                start = time.process_time()
                side.step()
                if turn:
                    times[side].append(1e3 * (time.process_time() - start))
        mine, peer = min(times[ours]), min(times[theirs])
        print(
            f"{atoms:6}{ours.graph.edges:8}{features:6}{peer:10.1f}{mine:10.1f}{peer / mine:7.2f}"
            f"  {differ:.1e}"
        )


if __name__ == "__main__":
    main()
