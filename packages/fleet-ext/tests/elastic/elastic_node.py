"""A node that trains a small model by NumPy, and says at the end what it has and what happened to it.

Called with the store's port, its name, least and most nodes, steps, and seconds of a step.
"""

import json
import sys
import time

import numpy as np
from oarlock.fleet_ext.elastic import Session, Size
from oarlock.fleet_ext.rendezvous import TcpStore
from oarlock.fleet_ext.transport import Listener


def gradient(weights, rank, step):
    """Of least squares on a batch of the rank's own."""
    rng = np.random.default_rng([rank, step])
    features = rng.standard_normal((8, weights.size)).astype(np.float32)
    return features.T @ (features @ weights - 1.0) / 8


class Model:
    def __init__(self, seconds=0.0, started=lambda step: None, width=20):
        self.weights, self.speed = np.zeros(width, np.float32), np.zeros(width, np.float32)
        self.seconds, self.started = seconds, started

    def compute(self, step, group):
        self.started(step)
        time.sleep(self.seconds)
        self.mean = gradient(self.weights, group.rank, step)
        group.all_reduce(self.mean, "mean").wait()

    def apply(self, step):
        self.speed = np.float32(0.9) * self.speed + self.mean
        self.weights = self.weights - np.float32(0.01) * self.speed

    def state(self):
        return {"weights": self.weights, "speed": self.speed}

    def load(self, state):
        self.weights, self.speed = state["weights"], state["speed"]


def main(port, name, least, most, steps, seconds):
    store = TcpStore("127.0.0.1", port, job="test", token="token")
    listener = Listener(job="test", token="token")
    size = Size(least=least, most=most)
    model = Model(seconds)

    def after(step):
        print(f"step {step}", flush=True)

    with Session(
        store, listener, token="token", node=name, size=size, operation=20.0, lease=3.0,
        patience=None,
    ) as session:  # fmt: skip
        session.run(model, steps, after=after)
        found = [
            [one.why, one.step, one.epoch.number, len(one.epoch.nodes), one.seconds]
            for one in session.recoveries
        ]
    print(
        json.dumps({"weights": model.weights.tolist(), "step": session.step, "recoveries": found}),
        flush=True,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6]), float(sys.argv[6]))
