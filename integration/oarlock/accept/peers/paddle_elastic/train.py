"""A rank that trains under Paddle's elastic launcher: `python train.py ORDER FOLDER LINES`.

Runs in the peer's own environment, which has Paddle and nothing of ours; the twin of `fleet/elastic_node.py`. All that a
restarted process knows is what it saved, as in Paddle's own examples: rank 0 saves every few steps, and all begin there.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import paddle
import paddle.distributed as dist
from paddle import nn


def model_of(width):
    return nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, 32))


def batch(step, rank, size, count):
    rng = np.random.default_rng([2, step])
    inputs = rng.standard_normal((count, 64)).astype(np.float32)
    wanted = np.sin(inputs[:, :32])
    return paddle.to_tensor(inputs[rank::size]), paddle.to_tensor(wanted[rank::size])


def main(order, folder, lines):
    dist.init_parallel_env()
    rank, size = dist.get_rank(), dist.get_world_size()
    paddle.seed(0)
    model = model_of(order["width"])
    optimizer = paddle.optimizer.Momentum(0.01, parameters=model.parameters())
    step, saved = 0, folder / "state"
    if saved.exists():
        state = paddle.load(str(saved))
        model.set_state_dict(state["model"])
        optimizer.set_state_dict(state["optimizer"])
        step = state["step"]
    parallel = paddle.DataParallel(model)
    with lines.open("a") as out:
        while True:
            inputs, wanted = batch(step, rank, size, order["batch"])
            loss = ((parallel(inputs) - wanted) ** 2).mean()
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            time.sleep(order["pause"])
            step += 1
            out.write(json.dumps({"time": time.time(), "step": step, "pid": os.getpid()}) + "\n")
            out.flush()
            if rank == 0 and step % order["every"] == 0:
                state = {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step,
                }
                paddle.save(state, str(folder / "part"))
                (folder / "part").replace(saved)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
