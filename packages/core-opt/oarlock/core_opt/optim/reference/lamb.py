"""Reference of LAMB (1904.00962)."""

import numpy as np


def step(parameter, grad, state, *, step, lr, role, options):
    """One LAMB step of one parameter."""
    beta1, beta2 = options["beta1"], options["beta2"]
    m = state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * grad
    v = state["v"] = beta2 * state.get("v", 0.0) + (1 - beta2) * grad**2
    m_hat = m / (1 - beta1**step)
    v_hat = v / (1 - beta2**step)
    decay = options["weight_decay"]
    direction = m_hat / (np.sqrt(v_hat) + options["epsilon"]) + decay * parameter
    weight_norm = np.linalg.norm(parameter.ravel())
    direction_norm = np.linalg.norm(direction.ravel())
    ratio = 1.0
    if (decay or options["always_adapt"]) and weight_norm and direction_norm:
        ratio = weight_norm / direction_norm
        if options["max_trust_ratio"] is not None:
            ratio = min(ratio, options["max_trust_ratio"])
    return parameter - lr * ratio * direction
