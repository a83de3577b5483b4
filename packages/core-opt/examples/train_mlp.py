"""Train a small network with every optimiser of the registry and print where each ends.

python examples/train_mlp.py --steps 300
"""

import argparse

import paddle
from oarlock.core_opt import optim
from oarlock.core_opt.optim import schedules

LEARNING_RATES = {"adamw": 0.03, "muon": 0.05}  # the best of a small grid


def build_model() -> paddle.nn.Layer:
    return paddle.nn.Sequential(
        paddle.nn.Linear(8, 64),
        paddle.nn.GELU(),
        paddle.nn.Linear(64, 64),
        paddle.nn.GELU(),
        paddle.nn.Linear(64, 1),
    )


def train(name: str, steps: int, seed: int) -> float:
    """Mean squared error of the last ten steps on a product of sines."""
    paddle.seed(seed)
    model = build_model()
    scheduler = schedules.WSD(LEARNING_RATES.get(name, 0.01), steps, warmup_steps=steps // 20)
    options = {"adamw_lr_scale": 0.15} if name == "muon" else {}
    optimizer = optim.create(name, model, learning_rate=scheduler, **options)
    losses = []
    for _ in range(steps):
        x = paddle.uniform([256, 8], min=-1, max=1)
        y = paddle.sin(3 * x[:, :1]) * paddle.sin(3 * x[:, 1:2]) + x[:, 2:3]
        loss = paddle.nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        scheduler.step()
        losses.append(loss.item())
    return sum(losses[-10:]) / 10


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(optim.roles(build_model()))
    for optimizer_name in optim.list():
        print(optimizer_name, f"{train(optimizer_name, arguments.steps, arguments.seed):.5f}")
