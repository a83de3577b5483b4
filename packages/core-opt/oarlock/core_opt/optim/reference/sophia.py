"""Reference of Sophia-G (2305.14342)."""

import numpy as np


def step(parameter, grad, state, *, step, lr, role, options):
    """One Sophia-G step of one parameter."""
    beta1 = options["beta1"]
    m = state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * grad
    curvature = np.maximum(options["gamma"] * state.get("h", 0.0), options["epsilon"])
    decayed = parameter * (1 - lr * options["weight_decay"])
    return decayed - lr * np.clip(m / curvature, -1, 1)


def update_hessian(grad, state, *, num_tokens, options):
    """Take the gradient of the mean loss with sampled labels into the Hessian's diagonal."""
    beta2 = options["beta2"]
    state["h"] = beta2 * state.get("h", 0.0) + (1 - beta2) * num_tokens * grad**2
