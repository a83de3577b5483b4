"""A node of a drill: `python -m oarlock.fleet_ext.drill.node SETTINGS NAME`.

Trains a network of two layers by NumPy, and writes a line of JSON for each step and each recovery.
"""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np

from oarlock.fleet_ext.elastic import Session, Size
from oarlock.fleet_ext.rendezvous import TcpStore
from oarlock.fleet_ext.transport import Listener, MeshGroup

JOB = "drill"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What all nodes are told.

    Args:
        store: host and port.
        token: of the job.
        host: of this node.
        least, most: nodes that train.
        width: of the hidden layer.
        batch: of all nodes together.
        seconds: how long to train.
        lease, operation: of `Session`.
    """

    store: tuple[str, int]
    token: str
    host: str
    least: int
    most: int
    width: int = 512
    batch: int = 96
    seconds: float = 60.0
    lease: float = 1.0
    operation: float = 2.0

    def pack(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def unpack(cls, packed: str) -> Self:
        given = json.loads(packed)
        return cls(**given | {"store": tuple(given["store"])})


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


def say(**values: object) -> None:
    print(json.dumps({"time": time.time(), **values}), flush=True)


def main(settings: Settings, name: str) -> None:
    store = TcpStore(*settings.store, job=JOB, token=settings.token)
    listener = Listener(job=JOB, token=settings.token, host=settings.host)
    network = Network(settings.width, settings.batch)
    size = Size(least=settings.least, most=settings.most)
    with Session(store, listener, token=settings.token, node=name, size=size, lease=settings.lease,
                 operation=settings.operation) as session:  # fmt: skip
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

        say(ready=name)
        session.run(network, sys.maxsize, after=after)


if __name__ == "__main__":
    main(Settings.unpack(sys.argv[1]), sys.argv[2])
