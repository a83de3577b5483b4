"""Steps scaled for each tensor by norms of the whole tensor, in two passes over memory."""

import ctypes

import numpy as np

from oarlock.native import _optim_abi
from oarlock.native import threads as _threads
from oarlock.native._optim_arguments import (
    Tensors,
    factor,
    fraction,
    limit,
    number,
    read,
    run,
    step_number,
)


def lamb(
    params: Tensors,
    grads: Tensors,
    m: Tensors,
    v: Tensors,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
    max_trust_ratio: float | None = None,
    grad_scale: float = 1.0,
    rounding_seed: int | None = None,
    threads: int | None = None,
) -> np.ndarray:
    r"""One step of LAMB: AdamW's direction, scaled for each tensor to the size of its weights.

    With AdamW's moments and bias-corrected :math:`\hat m`, :math:`\hat v`,

    .. math::
        r = \hat m / (\sqrt{\hat v} + \epsilon) + \lambda p, \quad
        \phi = \lVert p \rVert / \lVert r \rVert, \quad p \leftarrow p - \eta\, \phi\, r

    where :math:`\phi = 1` if either norm is 0. Norms are summed in float64.

    Args:
        weight_decay: :math:`\lambda` >= 0, part of the direction.
        max_trust_ratio: upper limit of :math:`\phi`, > 0; None for none.

    The other arguments, and errors, are those of ``adamw``.

    Returns:
        Trust ratios :math:`\phi`, float64 [len(params)].

    Source: You et al., 1904.00962.
    """
    options = _optim_abi.Lamb(
        number("lr", lr),
        fraction("beta1", beta1),
        fraction("beta2", beta2),
        number("eps", eps),
        number("weight_decay", weight_decay),
        factor("grad_scale", grad_scale),
        limit("max_trust_ratio", max_trust_ratio),
        step_number(step),
        _optim_abi.rounding(rounding_seed),
    )
    lists = read(params=params, grads=grads, m=m, v=v)
    ratios = np.ones(len(params))
    pointer = ctypes.c_void_p(ratios.ctypes.data)
    run("oarlock_optim_lamb", lists, ctypes.byref(options), pointer, _threads.count(threads))
    return ratios
