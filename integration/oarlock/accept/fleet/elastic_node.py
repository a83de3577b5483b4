"""A node that trains with Paddle and `oarlock.fleet_ext.agent`: `python -m oarlock.accept.fleet.elastic_node ORDER LINES`.

The twin of `peers/paddle_elastic/train.py`.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from oarlock.fleet_ext.agent import enter
from oarlock.fleet_ext.elastic.model_training import ModelTraining


def main(order: dict[str, Any], lines: Path) -> None:
    paddle.seed(0)
    model = nn.Sequential(nn.Linear(64, order["width"]), nn.Tanh(), nn.Linear(order["width"], 32))
    optimizer = paddle.optimizer.Momentum(0.01, parameters=model.parameters())

    def loss(step: int, rank: int, size: int) -> paddle.Tensor:
        rng = np.random.default_rng([2, step])
        inputs = rng.standard_normal((order["batch"], 64)).astype(np.float32)
        wanted = np.sin(inputs[:, :32])
        found = model(paddle.to_tensor(inputs[rank::size]))
        return ((found - paddle.to_tensor(wanted[rank::size])) ** 2).mean()

    training = ModelTraining(model, optimizer, loss)
    with lines.open("a") as out, enter() as session:

        def after(step: int) -> None:
            time.sleep(order["pause"])
            out.write(json.dumps({"time": time.time(), "step": step, "pid": os.getpid()}) + "\n")
            out.flush()

        session.run(training, sys.maxsize, after=after)
    training.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
