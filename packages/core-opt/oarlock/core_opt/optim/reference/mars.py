"""Reference of MARS-AdamW (2411.10438), the approximate variant."""

import numpy as np

from . import adamw


def step(parameter, grad, state, *, step, lr, role, options):
    """One MARS step of one parameter; AdamW's for vectors unless ``optimize_1d``."""
    if role == "vector" and not options["optimize_1d"]:
        names = ("beta1", "beta2", "epsilon", "weight_decay")
        adam = {name: options[f"adamw_{name}"] for name in names}
        lr = lr * options["adamw_lr_scale"]
        return adamw.step(parameter, grad, state, step=step, lr=lr, role=role, options=adam)
    beta1 = options["beta1"]
    previous = state.get("previous", grad)
    corrected = grad + options["gamma"] * beta1 / (1 - beta1) * (grad - previous)
    norm = np.sqrt((corrected**2).sum())
    if norm > options["max_norm"]:
        corrected = corrected * options["max_norm"] / norm
    state["previous"] = grad
    return adamw.step(parameter, corrected, state, step=step, lr=lr, role=role, options=options)
