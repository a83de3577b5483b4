"""Reference of Adafactor (1804.04235)."""

import numpy as np


def step(parameter, grad, state, *, step, lr, role, options):
    """One Adafactor step of one parameter, matrix by matrix."""
    shape = parameter.shape
    if parameter.ndim < 2:
        stack = parameter.reshape(1, 1, -1)
    elif options["layout"] == "conv" or (options["layout"] == "auto" and parameter.ndim > 3):
        stack = parameter.reshape(1, shape[0], -1)
    else:
        stack = parameter.reshape(-1, *shape[-2:])
    if min(stack.shape[1:]) < options["min_dim_factored"]:
        stack = stack.reshape(len(stack), 1, -1)
    matrices = zip(
        stack, grad.reshape(stack.shape), state.setdefault("matrices", [{} for _ in stack])
    )
    updates = [matrix_update(p, g, memory, step, lr, options) for p, g, memory in matrices]
    decayed = parameter * (1 - lr * options["weight_decay"])
    return decayed - np.stack(updates).reshape(shape)


def matrix_update(matrix, grad, state, step, lr, options):
    """What to subtract from one matrix."""
    beta2 = 1 - step ** -options["decay_exponent"]
    square = grad**2 + options["epsilon"]
    rows = beta2 * state.get("rows", 0.0) + (1 - beta2) * square.mean(axis=1)
    columns = beta2 * state.get("columns", 0.0) + (1 - beta2) * square.mean(axis=0)
    state["rows"], state["columns"] = rows, columns
    update = grad / np.sqrt(np.outer(rows, columns) / rows.mean())
    if options["clip_threshold"] is not None:
        update = update / max(1.0, rms(update) / options["clip_threshold"])
    size = min(lr, 1 / np.sqrt(step)) if options["relative_step"] else lr
    if options["scale_parameter"]:
        size = size * max(options["epsilon_scale"], rms(matrix))
    beta1 = options["beta1"]
    state["momentum"] = beta1 * state.get("momentum", 0.0) + (1 - beta1) * size * update
    return state["momentum"]


def rms(values):
    """Root mean square."""
    return np.sqrt((values**2).mean())
