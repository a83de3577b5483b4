"""Reference of Schedule-Free AdamW (2405.15682), with x, y and z kept apart."""

import numpy as np


def step(parameter, grad, state, *, step, lr, role, options):
    """One step of one parameter: y in, y out; ``state["x"]`` is the average."""
    beta1, beta2 = options["beta1"], options["beta2"]
    if options["warmup_steps"]:
        lr = lr * min(1.0, step / options["warmup_steps"])
    y, z, x = parameter, state.get("z", parameter), state.get("x", parameter)
    v = state["v"] = beta2 * state.get("v", 0.0) + (1 - beta2) * grad**2
    update = grad / (np.sqrt(v / (1 - beta2**step)) + options["epsilon"])
    update = update + options["weight_decay"] * y
    lrs = state.setdefault("lrs", [])
    lrs.append(lr)
    weights = np.maximum.accumulate(lrs) ** 2
    c = weights[-1] / weights.sum() if weights.sum() else 0.0
    state["z"] = z - lr * update
    state["x"] = (1 - c) * x + c * state["z"]
    return (1 - beta1) * state["z"] + beta1 * state["x"]
