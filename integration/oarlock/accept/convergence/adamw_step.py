"""AdamW steps of Paddle and of Oarlock on given parameter shapes, served to an experiment."""

import time
from typing import Any

import numpy as np
import paddle

from oarlock.core_opt import optim
from oarlock.native.paddle import accelerate

_arms: dict[str, tuple[list[Any], Any]] = {}


def build(
    *, shapes: list[list[int]], threads: int, seed: int, options: dict[str, Any]
) -> dict[str, Any]:
    """Make three arms, each with its own parameters and the same values and gradients.

    `paddle` is Paddle's AdamW, `oarlock` ours as it comes (it looks for NaN), `oarlock-unchecked`
    ours without that look, which none of the others takes.
    """
    report = accelerate(threads=threads)
    learning_rate, (beta1, beta2) = options["lr"], options["betas"]
    common = {
        "learning_rate": learning_rate,
        "beta1": beta1,
        "beta2": beta2,
        "epsilon": options["eps"],
        "weight_decay": options["weight_decay"],
    }
    for name in ("paddle", "oarlock", "oarlock-unchecked"):
        parameters = _parameters(shapes, seed)
        if name == "paddle":
            optimizer = paddle.optimizer.AdamW(parameters=parameters, **common)
        else:
            nonfinite = "propagate" if name.endswith("unchecked") else "raise"
            optimizer = optim.AdamW(parameters=parameters, nonfinite=nonfinite, **common)
        _arms[name] = (parameters, optimizer)
    return {"accelerate": str(report)}


def _parameters(shapes: list[list[int]], seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    layer, found = paddle.nn.Layer(), []
    for shape in shapes:
        parameter = layer.create_parameter(shape)
        parameter.set_value(rng.standard_normal(shape, dtype=np.float32))
        gradient = rng.standard_normal(shape, dtype=np.float32) * 0.01
        (parameter * paddle.to_tensor(gradient)).sum().backward()
        found.append(parameter)
    return found


def step(*, arm: str, count: int = 1) -> dict[str, float]:
    """Take `count` steps; wall and CPU seconds."""
    optimizer = _arms[arm][1]
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        optimizer.step()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def sample(*, arm: str, count: int) -> list[list[float]]:
    """The first values of every parameter, to compare with."""
    return [p.flatten()[:count].tolist() for p in _arms[arm][0]]
