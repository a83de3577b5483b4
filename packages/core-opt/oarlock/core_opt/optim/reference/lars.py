"""Reference of LARS (1708.03888)."""

import numpy as np


def step(parameter, grad, state, *, step, lr, role, options):
    """One LARS step of one parameter."""
    mu, decay = options["momentum"], options["weight_decay"]
    weight_norm, grad_norm = np.linalg.norm(parameter.ravel()), np.linalg.norm(grad.ravel())
    ratio = 1.0
    if (parameter.ndim > 1 or options["adapt_vectors"]) and weight_norm and grad_norm:
        ratio = options["trust_coefficient"] * weight_norm / (grad_norm + decay * weight_norm)
    update = lr * ratio * (grad + decay * parameter)
    buffer = state["momentum"] = mu * state.get("momentum", 0.0) + update
    return parameter - (update + mu * buffer if options["nesterov"] else buffer)
