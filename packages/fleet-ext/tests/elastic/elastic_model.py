"""A node that trains a Paddle model, and says at the end what it has.

Called with the store's port, its name, least and most nodes, steps, and the way to average.
"""

import json
import sys
import time

import numpy as np
import paddle
from oarlock.fleet_ext.compress import averaging_of
from oarlock.fleet_ext.elastic import Session, Size
from oarlock.fleet_ext.elastic.model_training import ModelTraining
from oarlock.fleet_ext.rendezvous import TcpStore
from oarlock.fleet_ext.transport import Listener


def training_of(way, pause=0.0):
    paddle.seed(7)
    net = paddle.nn.Sequential(paddle.nn.Linear(6, 24), paddle.nn.Tanh(), paddle.nn.Linear(24, 2))
    schedule = paddle.optimizer.lr.CosineAnnealingDecay(0.02, 200)
    optimizer = paddle.optimizer.AdamW(schedule, parameters=net.parameters())

    def loss(step, rank, size):
        rng = np.random.default_rng([step, rank])
        features = rng.standard_normal((5, 6)).astype(np.float32)
        wanted = np.stack([features.sum(axis=1), features[:, 0] ** 2], axis=1)
        return paddle.square(net(paddle.to_tensor(features)) - paddle.to_tensor(wanted)).mean()

    training = ModelTraining(net, optimizer, loss, averaging=averaging_of(way), bucket_bytes=400)
    apply = training.apply

    def apply_and_schedule(step):
        time.sleep(pause)
        apply(step)
        schedule.step()

    training.apply = apply_and_schedule
    return training, net


def weights_of(net):
    return np.concatenate([one.numpy().reshape(-1) for one in net.parameters()])


def main(port, name, least, most, steps, way):
    training, net = training_of(way, pause=0.02)
    store = TcpStore("127.0.0.1", port, job="test", token="token")
    store.set(f"ready/{name}", b"")
    store.wait([f"go/{name}"], 120.0)
    listener = Listener(job="test", token="token")
    size = Size(least=least, most=most)
    with Session(
        store, listener, token="token", node=name, size=size, lease=3.0, patience=None
    ) as session:
        session.run(training, steps, after=lambda step: print(f"step {step}", flush=True))
        found = [
            [one.why, one.step, one.epoch.number, len(one.epoch.nodes), one.seconds]
            for one in session.recoveries
        ]
    training.close()
    losses = [training.losses[step] for step in sorted(training.losses)]
    said = {
        "weights": weights_of(net).tolist(),
        "step": session.step,
        "recoveries": found,
        "losses": losses,
    }
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6]), sys.argv[6])
