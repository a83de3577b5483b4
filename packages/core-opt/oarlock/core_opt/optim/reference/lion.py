"""Reference of Lion (2302.06675)."""

import numpy as np


def step(parameter, grad, state, *, step, lr, role, options):
    """One Lion step of one parameter."""
    beta1, beta2 = options["beta1"], options["beta2"]
    old = state.get("momentum", 0.0)
    state["momentum"] = beta2 * old + (1 - beta2) * grad
    decayed = parameter * (1 - lr * options["weight_decay"])
    return decayed - lr * np.sign(beta1 * old + (1 - beta1) * grad)
