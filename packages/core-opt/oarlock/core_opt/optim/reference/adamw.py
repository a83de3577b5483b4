"""Reference of AdamW (1711.05101)."""

import numpy as np


def step(parameter, grad, state, *, step, lr, role, options):
    """One AdamW step of one parameter."""
    beta1, beta2 = options["beta1"], options["beta2"]
    m = state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * grad
    v = state["v"] = beta2 * state.get("v", 0.0) + (1 - beta2) * grad**2
    m_hat = m / (1 - beta1**step)
    v_hat = v / (1 - beta2**step)
    decayed = parameter * (1 - lr * options["weight_decay"])
    return decayed - lr * m_hat / (np.sqrt(v_hat) + options["epsilon"])
