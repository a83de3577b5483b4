"""Time to a small gradient under slow workers, then local steps of a small network.

python examples/train_parallel.py --workers 100
"""

import argparse

import numpy as np
import paddle
from oarlock.core_opt import optim
from oarlock.core_opt.optim import parallel


def race(workers: int) -> None:
    """Three strategies on the quadratic of the lower bounds; worker i takes sqrt(i) seconds."""
    chain = parallel.problems.Chain(50, noise=0.13)
    threshold = parallel.bounds.threshold(variance=0.13**2, target=1e-3)
    strategies = {
        "synchronous": parallel.Synchronous(1.0),
        "asynchronous": parallel.Asynchronous(1 / workers),
        "ringmaster": parallel.Ringmaster(1.4 / threshold, threshold=threshold),
    }
    cluster = parallel.Cluster(parallel.delays.power_law(workers, 0.5))
    until = parallel.Until(seconds=2000.0, value=1e-3, window=3)
    for name, strategy in strategies.items():
        trace = cluster.run(
            strategy, chain, np.zeros(50), until=until, observe=chain.squared_norm, every=4
        )
        print(f"{name:13} reached {trace.reached} s, {trace.discarded + trace.stopped} discarded")


def local_steps(rounds: int) -> None:
    """Four workers, ten steps between exchanges of four bits a weight."""
    paddle.seed(0)
    model = paddle.nn.Sequential(paddle.nn.Linear(8, 64), paddle.nn.GELU(), paddle.nn.Linear(64, 1))
    print(optim.roles(model))
    muloco = parallel.MuLoCo(
        model,
        inner_options={"learning_rate": 0.02},
        workers=4,
        inner_steps=10,
        outer_momentum=0.6,
        bits=4,
    )

    def loss(replica: paddle.nn.Layer, worker: int) -> paddle.Tensor:
        x = paddle.uniform([256, 8], min=-1, max=1)
        return paddle.nn.functional.mse_loss(replica(x), paddle.sin(3 * x[:, :1]))

    losses = [muloco.round(loss) for _ in range(rounds)]
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.4f}, {muloco.bytes_sent} bytes from each worker")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    race(arguments.workers)
    local_steps(arguments.rounds)
