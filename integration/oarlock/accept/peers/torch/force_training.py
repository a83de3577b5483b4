"""The training loop of PyTorch's potentials: the same loss, schedule and average as the Paddle loop has.

Used by the scripts of peers that bring PyTorch, in whose environments it is imported.
"""

import math
import time

import numpy as np
import torch

WARM_UP = 0.05  #: of the whole, at most; at most 50 steps


class Structures:
    """Structures of one .npz file (`dynamics/elements.py`), in batches."""

    def __init__(self, path):
        with np.load(path) as arrays:
            self.arrays = {name: arrays[name] for name in arrays.files}
        self.atoms, self.edges = self.arrays["atoms"], self.arrays["edges"]
        self.first_atom = np.concatenate([[0], np.cumsum(self.atoms)])
        self.first_edge = np.concatenate([[0], np.cumsum(self.edges)])

    def __len__(self):
        return len(self.atoms)

    def batch(self, indices):
        """Tensors of some structures: float32, and energies in float64."""
        a = self.arrays
        atom = [slice(self.first_atom[i], self.first_atom[i + 1]) for i in indices]
        edge = [slice(self.first_edge[i], self.first_edge[i + 1]) for i in indices]
        starts = np.concatenate([[0], np.cumsum(self.atoms[indices])])

        def ends(name):
            parts = [a[name][part].astype(np.int64) + start for part, start in zip(edge, starts)]
            return torch.from_numpy(np.concatenate(parts))

        def joined(name, parts):
            return torch.from_numpy(np.concatenate([a[name][part] for part in parts]))

        return {
            "numbers": joined("numbers", atom).long(),
            "positions": joined("positions", atom).float(),
            "forces": joined("forces", atom).float(),
            "cells": torch.from_numpy(a["cells"][indices]).float(),
            "energies": torch.from_numpy(a["energies"][indices]),
            "atoms": torch.from_numpy(self.atoms[indices].astype(np.int64)),
            "structures": torch.from_numpy(np.repeat(np.arange(len(indices)), self.atoms[indices])),
            "centers": ends("centers"),
            "neighbours": ends("neighbours"),
            "shifts": joined("shifts", edge).float(),
            "edge_counts": self.edges[indices],
        }


def fit(model, predict, structures, *, seconds, steps, batch, rate, energy_weight, decay, seed):
    """Adam with a cosine schedule and an average of the parameters, which the model has at the end.

    Args:
        predict: (model, batch) → energies [structures] in eV less reference, forces [atoms, 3] in eV/Å.
        seconds, steps: of processor time, or steps; one of them None.
        energy_weight: of energies per atom, mean squares; of forces it is 1.
        decay: of the average.

    Returns:
        steps done and seconds of processor time.
    """
    torch.set_flush_denormal(True)  # as a careful user has it: twice as fast for Gaussians
    model.train()
    order = np.random.default_rng(seed)
    parameters = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=rate)
    average = [one.detach().clone() for one in parameters]
    begin, step, waiting = time.process_time(), 0, []
    while True:
        spent = time.process_time() - begin
        part = spent / seconds if seconds is not None else step / steps
        if part >= 1:
            break
        warm = min(1.0, max((step + 1) / 50, part / WARM_UP))
        optimizer.param_groups[0]["lr"] = (
            rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * part)))
        )
        if len(waiting) < batch:
            waiting = list(order.permutation(len(structures)))
        given = structures.batch(np.array([waiting.pop() for _ in range(batch)]))
        update(model, predict, given, optimizer, energy_weight)
        step += 1
        keep = min(decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for kept, one in zip(average, parameters):
                kept.lerp_(one, 1 - keep)
    with torch.no_grad():
        for kept, one in zip(average, parameters):
            one.copy_(kept)
    model.eval()
    return {"steps": step, "seconds": time.process_time() - begin}


def update(model, predict, given, optimizer, energy_weight):
    """One step on a batch; returns the loss before it."""
    energies, forces = predict(model, given)
    wrong = (energies.double() - given["energies"]) / given["atoms"]
    loss = (
        energy_weight * wrong.square().mean().float() + (forces - given["forces"]).square().mean()
    )
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


class OneBatch:
    """Steps of Adam on one batch, all structures of a file, whose time is measured."""

    def __init__(self, model, predict, path, *, rate, energy_weight, threads):
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)
        structures = Structures(path)
        model.train()
        self.model, self.predict, self.energy_weight = model, predict, energy_weight
        self.given = structures.batch(np.arange(len(structures)))
        parameters = [one for one in model.parameters() if one.requires_grad]
        self.optimizer = torch.optim.Adam(parameters, lr=rate)

    def step(self):
        """The loss before the step; wall and CPU seconds."""
        wall, cpu = time.perf_counter(), time.process_time()
        loss = update(self.model, self.predict, self.given, self.optimizer, self.energy_weight)
        return {
            "wall_s": time.perf_counter() - wall,
            "cpu_s": time.process_time() - cpu,
            "loss": loss,
        }


def errors(model, predict, structures):
    """Mean absolute errors: energies in meV/atom, force components in meV/Å."""
    wrong_energies, wrong_forces = [], []
    for index in range(len(structures)):
        given = structures.batch(np.array([index]))
        energies, forces = predict(model, given)
        wrong_energies.append(
            ((energies.double() - given["energies"]) / given["atoms"]).abs().item()
        )
        wrong_forces.append((forces - given["forces"]).detach().abs().numpy().ravel())
    return {
        "energy": 1e3 * float(np.mean(wrong_energies)),
        "forces": 1e3 * float(np.concatenate(wrong_forces).mean()),
    }
