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
    positive,
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


def lars(
    params: Tensors,
    grads: Tensors,
    momentum_buffers: Tensors,
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    trust_coefficient: float,
    eps: float,
    nesterov: bool = False,
    grad_scale: float = 1.0,
    rounding_seed: int | None = None,
    threads: int | None = None,
) -> np.ndarray:
    r"""One step of LARS: momentum whose step is scaled for each tensor to the size of its weights.

    With momentum :math:`\mu` and trust coefficient :math:`\rho`,

    .. math::
        \phi = \rho\, \frac{\lVert p \rVert}
        {\lVert g \rVert + \lambda \lVert p \rVert + \epsilon}, \quad
        s = \eta\, \phi\, (g + \lambda p), \quad b \leftarrow \mu b + s

        p \leftarrow p - (s + \mu b) \text{ if nesterov, else } p - b

    where :math:`\phi = 1` if either norm is 0. Norms are summed in float64, in an order that
    depends on the sizes only; a NaN in a tensor makes all of that parameter NaN.

    Args:
        momentum_buffers: :math:`b`, float32, updated in place; zeros before the first step.
        momentum: :math:`\mu` in [0, 1).
        weight_decay: :math:`\lambda` >= 0, part of the direction.
        trust_coefficient: :math:`\rho` > 0.
        eps: :math:`\epsilon` >= 0.
        nesterov: needs ``momentum`` > 0.

    The other arguments, and errors, are those of ``adamw``.

    Returns:
        Trust ratios :math:`\phi`, float64 [len(params)].

    Source: You et al., 1708.03888.
    """
    momentum = fraction("momentum", momentum)
    if nesterov and not momentum:
        raise ValueError("nesterov=True needs momentum > 0, not 0")
    options = _optim_abi.Lars(
        number("lr", lr),
        momentum,
        number("weight_decay", weight_decay),
        positive("trust_coefficient", trust_coefficient),
        number("eps", eps),
        factor("grad_scale", grad_scale),
        bool(nesterov),
        _optim_abi.rounding(rounding_seed),
    )
    lists = read(params=params, grads=grads, momentum_buffers=momentum_buffers)
    ratios = np.ones(len(params))
    pointer = ctypes.c_void_p(ratios.ctypes.data)
    run("oarlock_optim_lars", lists, ctypes.byref(options), pointer, _threads.count(threads))
    return ratios


def mars_adamw(
    params: Tensors,
    grads: Tensors,
    previous: Tensors,
    m: Tensors,
    v: Tensors,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    gamma: float,
    weight_decay: float,
    step: int,
    max_norm: float | None = 1.0,
    grad_scale: float = 1.0,
    rounding_seed: int | None = None,
    threads: int | None = None,
) -> None:
    r"""One step of MARS-AdamW: AdamW on a gradient corrected by its change since the last step.

    With :math:`g` the gradient times ``grad_scale`` and :math:`g'` the one of the step before,

    .. math::
        c = g + \gamma \frac{\beta_1}{1-\beta_1} (g - g'), \quad
        c \leftarrow c \min(1, n / \lVert c \rVert), \quad g' \leftarrow g

    and AdamW's step with :math:`c` in place of :math:`g`. At ``step`` 1, :math:`c = g`. The norm is
    that of each tensor, summed in float64 in an order that depends on the sizes only; a NaN in a
    gradient makes all of that parameter NaN if there is a ``max_norm``.

    Args:
        previous: :math:`g'`, float32, updated in place; not looked at in step 1 or with gamma 0.
        gamma: :math:`\gamma` >= 0, the strength of the correction.
        max_norm: :math:`n` > 0; None for no limit, which saves a pass over memory.

    The other arguments, and errors, are those of ``adamw``.

    Source: Yuan et al., 2411.10438.
    """
    options = _optim_abi.Mars(
        number("lr", lr),
        fraction("beta1", beta1),
        fraction("beta2", beta2),
        number("eps", eps),
        number("gamma", gamma),
        number("weight_decay", weight_decay),
        factor("grad_scale", grad_scale),
        limit("max_norm", max_norm),
        step_number(step),
        _optim_abi.rounding(rounding_seed),
    )
    lists = read(params=params, grads=grads, previous=previous, m=m, v=v)
    run("oarlock_optim_mars_adamw", lists, ctypes.byref(options), _threads.count(threads))
