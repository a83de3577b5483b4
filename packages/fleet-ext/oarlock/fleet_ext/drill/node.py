"""A node of a drill: `python -m oarlock.fleet_ext.drill.node SETTINGS`, started by its agent.

Trains a network of two layers by NumPy, goes on from the last checkpoint, saves others on a disk of its own, and writes a
line of JSON for each step, each recovery, and each checkpoint.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from oarlock.fleet_ext.agent import NodeSession, enter
from oarlock.fleet_ext.checkpoints import CheckpointError, Checkpoints
from oarlock.fleet_ext.checkpoints.saving import Saving
from oarlock.fleet_ext.drill.settings import Settings
from oarlock.fleet_ext.elastic import restore
from oarlock.fleet_ext.transport import MeshGroup


class Network:
    """tanh(x A) B fits a fixed network, by SGD with momentum; a batch is divided over ranks."""

    def __init__(self, width: int, batch: int) -> None:
        rng = np.random.default_rng(0)
        self.weights = {
            "A": (rng.standard_normal((64, width)) / 8).astype(np.float32),
            "B": (rng.standard_normal((width, 32)) / np.sqrt(width)).astype(np.float32),
        }
        self.speed = {name: np.zeros_like(one) for name, one in self.weights.items()}
        self._teacher = np.random.default_rng(1).standard_normal((64, 32)).astype(np.float32) / 8
        self._batch = batch
        self.loss = 0.0

    def compute(self, step: int, group: MeshGroup) -> None:
        rng = np.random.default_rng([2, step])
        inputs = rng.standard_normal((self._batch, 64)).astype(np.float32)
        mine = slice(
            group.rank * self._batch // group.size, (group.rank + 1) * self._batch // group.size
        )
        inputs, wanted = inputs[mine], np.sin(inputs[mine] @ self._teacher)
        hidden = np.tanh(inputs @ self.weights["A"])
        error = hidden @ self.weights["B"] - wanted
        back = (error @ self.weights["B"].T) * (1 - hidden**2)
        self._means = {"A": inputs.T @ back, "B": hidden.T @ error}
        loss = np.array([np.square(error).sum()])
        works = [group.all_reduce(one) for one in (*self._means.values(), loss)]
        for work in works:
            work.wait()
        for one in self._means.values():
            one /= self._batch
        self.loss = float(loss[0]) / self._batch

    def apply(self, step: int) -> None:
        for name, mean in self._means.items():
            self.speed[name] = np.float32(0.9) * self.speed[name] + mean
            self.weights[name] = self.weights[name] - np.float32(0.01) * self.speed[name]

    def state(self) -> dict[str, np.ndarray]:
        return self.weights | {f"speed.{name}": one for name, one in self.speed.items()}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        self.weights = {name: state[name] for name in self.weights}
        self.speed = {name: state[f"speed.{name}"] for name in self.speed}


class Saves:
    """A node's checkpoints, each written beside training."""

    def __init__(self, folder: str, every: int) -> None:
        self._folder = folder
        self._checkpoints = Checkpoints(Path(folder), keep=2) if folder else None
        self._every = every
        self._saving: Saving | None = None

    def restore(self, network: Network) -> int:
        """The step that is next."""
        return restore(network, self._folder) if self._folder else 0

    def after(self, step: int, network: Network) -> None:
        self._look()
        if self._checkpoints is not None and self._saving is None and (step + 1) % self._every == 0:
            self._saving = self._checkpoints.save(network.state(), step + 1)

    def _look(self) -> None:
        """Says how the last one went, when it is over."""
        if self._saving is None or not self._saving.over_within(0.0):
            return
        try:
            self._saving.wait()
            say(saved=self._saving.step)
        except (CheckpointError, OSError) as error:
            say(unsaved=self._saving.step, why=str(error))
        self._saving = None


def say(**values: object) -> None:
    print(json.dumps({"time": time.time(), **values}), flush=True)


def train(session: NodeSession, settings: Settings) -> None:
    network = Network(settings.width, settings.batch)
    saves = Saves(settings.folder, settings.every)
    told = 0

    def after(step: int) -> None:
        nonlocal told
        for one in session.recoveries[told:]:
            say(
                recovery=one.why,
                step=one.step,
                epoch=one.epoch.number,
                nodes=one.epoch.nodes,
                seconds=one.seconds,
            )
        told = len(session.recoveries)
        say(step=step, loss=network.loss)
        saves.after(step, network)

    first = saves.restore(network)
    say(ready=session.membership.node, pid=os.getpid(), first=first)
    session.run(network, sys.maxsize, first=first, after=after)


if __name__ == "__main__":
    given = Settings.unpack(sys.argv[1])
    with enter(lease=given.lease, operation=given.operation) as entered:
        train(entered, given)
