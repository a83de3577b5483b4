"""Reference of Adam-mini (2406.16793)."""

import numpy as np

AXES = {  # over which a block runs
    "hidden_matrix": (0,),
    "head": (0,),
    "experts": (1,),
    "embedding": (1,),
    "conv": (1, 2, 3, 4),
}


def step(parameter, grad, state, *, step, lr, role, options):
    """One Adam-mini step of one parameter, with ``options["num_heads"]`` its heads or None."""
    beta1, beta2 = options["beta1"], options["beta2"]
    m = state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * grad
    if options.get("num_heads"):
        heads = grad.reshape(len(grad), options["num_heads"], -1)  # [in, heads, width]
        means = np.broadcast_to((heads**2).mean(axis=(0, 2), keepdims=True), heads.shape)
        means = means.reshape(grad.shape)
    else:
        axes = AXES.get(role, range(grad.ndim))
        means = (grad**2).mean(axis=tuple(a for a in axes if a < grad.ndim), keepdims=True)
    v = state["v"] = beta2 * state.get("v", 0.0) + (1 - beta2) * means
    update = (m / (1 - beta1**step)) / (np.sqrt(v / (1 - beta2**step)) + options["epsilon"])
    return parameter * (1 - lr * options["weight_decay"]) - lr * update
