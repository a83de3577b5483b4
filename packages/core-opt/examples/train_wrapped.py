"""Choose a batch size by the noise scale, then train with wrappers and evaluate the average.

python examples/train_wrapped.py --steps 200
"""

import argparse

import paddle
from oarlock.core_opt import optim
from oarlock.core_opt.optim import schedules


def build_model() -> paddle.nn.Layer:
    return paddle.nn.Sequential(
        paddle.nn.Linear(8, 64),
        paddle.nn.GELU(),
        paddle.nn.Linear(64, 64),
        paddle.nn.GELU(),
        paddle.nn.Linear(64, 1),
    )


def batch(examples: int) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Inputs, and a product of sines of them with noise."""
    x = paddle.uniform([examples, 8], min=-1, max=1)
    y = paddle.sin(3 * x[:, :1]) * paddle.sin(3 * x[:, 1:2]) + x[:, 2:3]
    return x, y + 0.3 * paddle.randn(y.shape)


def measure(model: paddle.nn.Layer, steps: int) -> optim.GradientNoiseScale:
    """The noise scale while AdamW trains on batches of four micro-batches."""
    meter = optim.GradientNoiseScale()
    optimizer = optim.create("adamw", model, learning_rate=0.003)
    for _ in range(steps):
        for _ in range(4):
            x, y = batch(32)
            (paddle.nn.functional.mse_loss(model(x), y) / 4).backward()
            meter.micro(model.parameters(), 32)
        meter.step()
        optimizer.step()
        optimizer.clear_grad()
    return meter


def train(model: paddle.nn.Layer, examples: int, steps: int) -> optim.EMA:
    """SAM around the average around Lookahead around AdamW with cautious weight decay."""
    schedule = schedules.PowerCool(0.01, steps, warmup_steps=steps // 20)
    inside = optim.create("adamw", model, learning_rate=schedule, weight_decay=0.1)
    average = optim.EMA(optim.Lookahead(optim.cautious_weight_decay(inside)), decay=0.98)
    sam = optim.SAM(average, rho=0.02)
    for _ in range(steps):
        x, y = batch(examples)

        def closure(x=x, y=y):
            loss = paddle.nn.functional.mse_loss(model(x), y)
            loss.backward()
            return loss

        sam.step(closure)
        schedule.step()
    return average


def main(steps: int, seed: int) -> None:
    paddle.seed(seed)
    model = build_model()
    meter = measure(model, steps)
    print(meter)
    found = meter.recommend(multiple_of=16)
    print(found)
    average = train(model, min(found.batch, 1024), steps)
    x, y = batch(4096)
    with paddle.no_grad():
        print(f"loss {paddle.nn.functional.mse_loss(model(x), y).item():.4f}")
        with average.average():
            print(f"loss of the average {paddle.nn.functional.mse_loss(model(x), y).item():.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    main(arguments.steps, arguments.seed)
