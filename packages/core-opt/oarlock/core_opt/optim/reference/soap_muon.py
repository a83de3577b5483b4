"""Reference of SOAP-Muon (modded-nanogpt, pull requests 278 and 321)."""

import numpy as np

from . import muon, soap


def step(parameter, grad, state, *, step, lr, role, options):
    """One SOAP-Muon step of one parameter; AdamW's for embeddings, heads and vectors."""
    if role in ("embedding", "head", "vector"):
        return muon.step(parameter, grad, state, step=step, lr=lr, role=role, options=options)
    update = muon.momentum(grad, state, options)
    grad, shaped = (muon.as_matrices(tensor, role) for tensor in (grad, update))
    size = shaped.shape[-2:]
    states = state.setdefault("matrices", [{} for _ in shaped.reshape(-1, *size)])
    triples = zip(shaped.reshape(-1, *size), grad.reshape(-1, *size), states)
    update = np.stack([whitened(*triple, step, options) for triple in triples])
    update = update.reshape(parameter.shape)
    return muon.matrix_step(parameter, update, state, lr=lr, role=role, options=options)


def whitened(update, grad, state, step, options):
    """The update of one matrix over its root mean square in the eigenbases so far."""
    beta = options["soap_beta"]
    if step > 1:
        left, right = (state[side][1] for side in ("left", "right"))
        turned = left.T @ update @ right
        v = state["v"] = beta * state.get("v", 0.0) + (1 - beta) * turned**2
        update = left @ (turned / (np.sqrt(v) + options["epsilon"])) @ right.T
    soap.observe(grad, state, beta, options["max_precond_dim"])
    if step > 1 and (step - 1) % options["precondition_frequency"] == 0:
        state["v"] = soap.refresh(state, state["v"])
    return update
