"""Reference of Muon (kellerjordan.github.io/posts/muon, 2502.16982, 2505.16932)."""

import numpy as np

from ..newton_schulz import SAFETY, coefficients
from . import adamw


def step(parameter, grad, state, *, step, lr, role, options):
    """One Muon step of one parameter; AdamW's for embeddings, heads and vectors."""
    if role in ("embedding", "head", "vector"):
        scale = options["adamw_lr_scale"]
        if scale is None:
            scale = 1.0 if options["update_scale"] == "rms" else 0.015
        names = ("beta1", "beta2", "epsilon", "weight_decay")
        adam = {name: options[f"adamw_{name}"] for name in names}
        return adamw.step(parameter, grad, state, step=step, lr=lr * scale, role=role, options=adam)
    mu = options["momentum"]
    momentum = state["momentum"] = mu * state.get("momentum", 0.0) + (1 - mu) * grad
    update = (1 - mu) * grad + mu * momentum if options["nesterov"] else momentum
    decayed = parameter * (1 - lr * options["weight_decay"])
    if role == "conv":
        update = update.reshape(len(update), -1)
        fan_out, fan_in = update.shape
    else:
        fan_in, fan_out = update.shape[-2:]
    scale = np.sqrt(max(1, fan_out / fan_in))
    if options["update_scale"] == "rms":
        scale = 0.2 * np.sqrt(max(fan_in, fan_out))
    if update.ndim == 3:
        direction = np.stack([newton_schulz(matrix, options) for matrix in update])
    else:
        direction = newton_schulz(update, options)
    return decayed - lr * scale * direction.reshape(parameter.shape)


def newton_schulz(matrix, options):
    """Each singular value through the odd polynomials, by the singular value decomposition."""
    u, sigma, vt = np.linalg.svd(matrix, full_matrices=False)
    norm = np.sqrt((matrix**2).sum())
    sigma = sigma / (norm * SAFETY.get(options["coefficients"], 1.0) + 1e-7)
    for a, b, c in coefficients(options["coefficients"], options["ns_steps"]):
        sigma = a * sigma + b * sigma**3 + c * sigma**5
    return u * sigma @ vt
