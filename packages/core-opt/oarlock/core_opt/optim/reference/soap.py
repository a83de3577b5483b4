"""Reference of SOAP (2409.11321), with the momentum in the parameter's own coordinates."""

import numpy as np

from . import muon

NEGLIGIBLE = 2.0**-20  # eigenvalues below this times the largest are rounding in float32


def step(parameter, grad, state, *, step, lr, role, options):
    """One SOAP step of one parameter; AdamW's for embeddings, heads and vectors."""
    if role in ("embedding", "head", "vector"):
        lr = lr * options["adamw_lr_scale"]
        return muon.rest(parameter, grad, state, step=step, lr=lr, role=role, options=options)
    decayed = parameter * (1 - lr * options["weight_decay"])
    weights = muon.as_matrices(grad, role)
    flat = weights.reshape(-1, *weights.shape[-2:])
    matrices = state.setdefault("matrices", [{} for _ in flat])
    update = np.stack([direction(*pair, step, options) for pair in zip(flat, matrices)])
    return decayed - lr * update.reshape(parameter.shape)


def direction(grad, state, step, options):
    """The update of one matrix before the learning rate; the first step only sets the bases."""
    beta1, beta2, beta = options["beta1"], options["beta2"], options["shampoo_beta"]
    update = np.zeros_like(grad)
    if step > 1:
        left, right = (state[side][1] for side in ("left", "right"))
        m = state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * grad
        v = beta2 * state.get("v", 0.0) + (1 - beta2) * (left.T @ grad @ right) ** 2
        state["v"] = v
        m_hat = left.T @ m @ right / (1 - beta1 ** (step - 1))
        v_hat = v / (1 - beta2 ** (step - 1))
        update = left @ (m_hat / (np.sqrt(v_hat) + options["epsilon"])) @ right.T
    observe(grad, state, beta2 if beta is None else beta, options["max_precond_dim"])
    if step > 1 and (step - 1) % options["precondition_frequency"] == 0:
        state["v"] = refresh(state, state["v"])
    return update


def observe(grad, state, beta, limit):
    """Average G G' and G' G; at first, take their eigenbases. A side beyond the limit has none."""
    for side, square in (("left", grad @ grad.T), ("right", grad.T @ grad)):
        if len(square) > limit:
            state[side] = None, np.eye(len(square))
        elif side in state:
            average, basis = state[side]
            state[side] = beta * average + (1 - beta) * square, basis
        else:
            state[side] = (1 - beta) * square, eigenbasis(square)


def refresh(state, v):
    """Turn both bases; return v in the order of their columns."""
    for side in ("left", "right"):
        average, basis = state[side]
        if average is None:
            continue
        basis, order = refreshed(average, basis)
        state[side] = average, basis
        v = v[order] if side == "left" else v[:, order]
    return v


def eigenbasis(matrix):
    """Eigenvectors by falling eigenvalue; where those are zero, Householder's completion."""
    values, vectors = np.linalg.eigh(matrix)
    values, vectors = values[::-1], vectors[:, ::-1]
    return np.linalg.qr(vectors * (values > NEGLIGIBLE * values[0]))[0]


def refreshed(matrix, basis):
    """QR of one power iteration; columns that come out zero keep their direction."""
    product = matrix @ basis
    quotients = (basis * product).sum(0)
    quotients[quotients <= NEGLIGIBLE * quotients.max()] = 0
    order = np.argsort(-quotients, kind="stable")
    product, basis = product[:, order], basis[:, order]
    diagonal = np.abs(np.diag(np.linalg.qr(product)[1]))
    lost = diagonal <= NEGLIGIBLE * diagonal.max()
    return np.linalg.qr(np.where(lost, basis, product))[0], order
