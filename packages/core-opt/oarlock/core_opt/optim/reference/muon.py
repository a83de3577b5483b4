"""Reference of Muon (kellerjordan.github.io/posts/muon, 2502.16982, 2505.16932) and NorMuon."""

import numpy as np

from ..newton_schulz import SAFETY, coefficients
from . import adamw


def step(parameter, grad, state, *, step, lr, role, options):
    """One Muon step of one parameter; AdamW's for embeddings, heads and vectors."""
    if role in ("embedding", "head", "vector"):
        scale = options["adamw_lr_scale"]
        if scale is None:
            scale = 1.0 if options["update_scale"] == "rms" else 0.015
        return rest(parameter, grad, state, step=step, lr=lr * scale, role=role, options=options)
    update = momentum(grad, state, options)
    return matrix_step(parameter, update, state, lr=lr, role=role, options=options)


def rest(parameter, grad, state, *, step, lr, role, options):
    """AdamW with the options that bear its name."""
    names = ("beta1", "beta2", "epsilon", "weight_decay")
    adam = {name: options[f"adamw_{name}"] for name in names}
    return adamw.step(parameter, grad, state, step=step, lr=lr, role=role, options=adam)


def momentum(grad, state, options):
    """What is orthogonalised: the momentum, or Nesterov's."""
    mu = options["momentum"]
    average = state["momentum"] = mu * state.get("momentum", 0.0) + (1 - mu) * grad
    return (1 - mu) * grad + mu * average if options["nesterov"] else average


def matrix_step(parameter, update, state, *, lr, role, options):
    """Orthogonalise, scale, equalise the neurons, floor, and move."""
    decayed = parameter * (1 - lr * options["weight_decay"])
    weights = as_matrices(parameter, role)  # [..., rows, columns]
    update = as_matrices(update, role)
    rows, columns = update.shape[-2:]
    fan_in, fan_out = (columns, rows) if role == "conv" else (rows, columns)
    scale = np.sqrt(max(1, fan_out / fan_in))
    if options["update_scale"] == "rms":
        scale = 0.2 * np.sqrt(max(fan_in, fan_out))
    flat = update.reshape(-1, rows, columns)
    direction = scale * np.stack([newton_schulz(matrix, options) for matrix in flat])
    direction = direction.reshape(update.shape)
    inputs = -1 if role == "conv" else -2  # the axis of a neuron's inputs
    if options.get("variance") is not None:
        beta2 = options["beta2"]
        square = (direction**2).mean(inputs, keepdims=True)
        second = state["variance"] = beta2 * state.get("variance", 0.0) + (1 - beta2) * square
        even = direction / (np.sqrt(second) + 1e-10)
        direction = even * (norm(direction, (-2, -1)) / (norm(even, (-2, -1)) + 1e-10))
    floor = options.get("uw_floor", 0.0)
    if floor:
        axes = (-2, -1) if options["uw_floor_per"] == "matrix" else inputs
        ratio = norm(weights, axes) / np.maximum(norm(direction, axes), 1e-8)
        direction = direction * np.maximum(1, floor * ratio)
    return decayed - lr * direction.reshape(parameter.shape)


def as_matrices(tensor, role):
    """[out, in, ...] of a convolution as [out, in * ...]; others as they are."""
    return tensor.reshape(len(tensor), -1) if role == "conv" else tensor


def norm(tensor, axes):
    """Euclidean norm over the axes, which stay with length 1."""
    return np.sqrt((tensor**2).sum(axes, keepdims=True))


def newton_schulz(matrix, options):
    """Each singular value through the odd polynomials, by the singular value decomposition."""
    u, sigma, vt = np.linalg.svd(matrix, full_matrices=False)
    norm = np.sqrt((matrix**2).sum())
    sigma = sigma / (norm * SAFETY.get(options["coefficients"], 1.0) + 1e-7)
    for a, b, c in coefficients(options["coefficients"], options["ns_steps"]):
        sigma = a * sigma + b * sigma**3 + c * sigma**5
    return u * sigma @ vt
