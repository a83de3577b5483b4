"""Reference of Shampoo (1802.09568, 2309.06497), block by block."""

import itertools

import numpy as np

from . import muon
from .soap import NEGLIGIBLE


def step(parameter, grad, state, *, step, lr, role, options):
    """One Shampoo step of one parameter; AdamW's for embeddings, heads and vectors."""
    if role in ("embedding", "head", "vector"):
        lr = lr * options["adamw_lr_scale"]
        return muon.rest(parameter, grad, state, step=step, lr=lr, role=role, options=options)
    decayed = parameter * (1 - lr * options["weight_decay"])
    grad = muon.as_matrices(grad, role)
    rows, columns = grad.shape[-2:]
    size = options["block_size"]
    update = np.empty_like(grad).reshape(-1, rows, columns)
    corners = itertools.product(range(0, rows, size), range(0, columns, size))
    for index, (top, left) in itertools.product(range(len(update)), corners):
        block = np.s_[index, top : top + size, left : left + size]
        own = state.setdefault((index, top, left), {})
        update[block] = direction(grad.reshape(update.shape)[block], own, step, options)
    return decayed - lr * update.reshape(parameter.shape)


def direction(grad, state, step, options):
    """The update of one block before the learning rate."""
    beta1, beta2, every = options["beta1"], options["beta2"], options["precondition_frequency"]
    m = state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * grad
    v = state["v"] = beta2 * state.get("v", 0.0) + (1 - beta2) * grad**2
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    adam = m_hat / (np.sqrt(v_hat) + options["grafting_epsilon"])
    for side, square in (("left", grad @ grad.T), ("right", grad.T @ grad)):
        state[side] = beta2 * state.get(side, 0.0) + (1 - beta2) * square
    start = options["start_preconditioning_step"]
    if start is None:
        start = 1 if options["grafting"] is None else every
    sides = ("left", "right")
    if options["sides"] == "smaller":
        sides = ("left",) if grad.shape[0] <= grad.shape[1] else ("right",)
    if step == start or (step > start and step % every == 0):
        for side in sides:
            exponent = options["exponent"] or 1 / (2 * len(sides))
            state[side, "root"] = root(state[side] / (1 - beta2**step), exponent, options)
    if step < start:
        return adam
    update = m_hat
    if "left" in sides:
        update = state["left", "root"] @ update
    if "right" in sides:
        update = update @ state["right", "root"]
    if options["grafting"] is None:
        return update
    return update * np.linalg.norm(adam) / (np.linalg.norm(update) + 1e-16)


def root(matrix, exponent, options):
    """matrix^-exponent, with epsilon or as a pseudo-inverse."""
    values, vectors = np.linalg.eigh(matrix)
    if options["pseudo_inverse"]:
        kept = values > NEGLIGIBLE * values[-1]
        return vectors[:, kept] * values[kept] ** -exponent @ vectors[:, kept].T
    values = values - min(values[0], 0) + options["epsilon"]
    return vectors * values**-exponent @ vectors.T
