"""One rank of ``test_paddle_training.py``: trains with every optimiser and saves the parameters.

The global batch is the same for any number of ranks; each takes its own part of it.
"""

import sys

import numpy as np
import paddle
import paddle.distributed as dist
from oarlock.core_opt import optim

STEPS, BATCH = 3, 16


def network():
    with paddle.utils.unique_name.guard():
        paddle.seed(0)
        return paddle.nn.Sequential(
            paddle.nn.Linear(4, 8), paddle.nn.Tanh(), paddle.nn.Linear(8, 8), paddle.nn.Linear(8, 3)
        )


def part(step):
    """This rank's rows of the batch of a step."""
    rng = np.random.default_rng(step)
    x = rng.standard_normal([BATCH, 4]).astype("float32")
    y = (x[:, 0] > 0).astype("int64") + (x[:, 1] > 0)
    own = slice(dist.get_rank(), None, dist.get_world_size())
    return paddle.to_tensor(x[own]), paddle.to_tensor(y[own])


def loss(forward, x, y):
    value = paddle.nn.functional.cross_entropy(forward(x), y)
    value.backward()
    return value


def train(build, accumulate=False, closure=False):
    model = network()
    optimizer = build(model)
    forward = paddle.DataParallel(model)
    for step in range(STEPS):
        x, y = part(step)
        if closure:
            optimizer.step(lambda x=x, y=y: loss(forward, x, y))
        elif accumulate:
            with forward.no_sync():
                loss(forward, x[: len(x) // 2], y[: len(x) // 2])
            loss(forward, x[len(x) // 2 :], y[len(x) // 2 :])
            optimizer.step()
        else:
            loss(forward, x, y)
            optimizer.step()
        optimizer.clear_grad()
    return model


def main(path):
    dist.init_parallel_env()
    found = {}

    def keep(name, model):
        for key, parameter in model.named_parameters():
            found[f"{name}|{key}"] = parameter.numpy()

    for name in optim.list():
        # by default LARS's step is a thousandth of the rate: nothing would be seen but rounding
        options = {"trust_coefficient": 1.0} if name == "lars" else {}
        options["learning_rate"] = 0.02
        keep(name, train(lambda m, name=name, options=options: optim.create(name, m, **options)))
    keep(
        "ema of lookahead",
        train(lambda m: optim.EMA(optim.Lookahead(optim.create("adamw", m), k=2), decay=0.5)),
    )
    keep("sam", train(lambda m: optim.SAM(optim.create("adamw", m), rho=0.1), closure=True))
    keep("accumulated", train(lambda m: optim.create("adamw", m), accumulate=True))
    np.savez(path, **found)


if __name__ == "__main__":
    main(sys.argv[1])
