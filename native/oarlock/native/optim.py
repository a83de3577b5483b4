"""Optimiser steps in place over lists of tensors, each in one pass over memory.

Parameters are float32 or bfloat16, gradients float32 or of their parameter's type, state float32.
Tensors are Paddle's, NumPy's (bfloat16 as ``ml_dtypes.bfloat16``) or anything with ``__dlpack__``;
contiguous, on one device, without shared memory. Arithmetic is float32 in the order of the formulas
and never contracted: results are the same bits for any number of threads and on every code path.

>>> from oarlock.native import optim
>>> optim.adamw([p], [g], [m], [v], lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.1,
...             step=1)
"""

import ctypes
import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from oarlock.native import _abi, _library, _optim_abi, cuda
from oarlock.native import threads as _threads
from oarlock.native._tensors import TensorList

Tensors = Sequence[Any]


def adamw(
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
    grad_scale: float = 1.0,
    rounding_seed: int | None = None,
    threads: int | None = None,
) -> None:
    r"""One step of AdamW.

    With :math:`g` the gradient times ``grad_scale``, and ``step`` = :math:`t`,

    .. math::
        m \leftarrow \beta_1 m + (1-\beta_1) g, \quad v \leftarrow \beta_2 v + (1-\beta_2) g^2

        p \leftarrow (1 - \eta\lambda)\, p
        - \eta\, \frac{m / (1-\beta_1^t)}{\sqrt{v / (1-\beta_2^t)} + \epsilon}

    Args:
        params: float32 or bfloat16 tensors, updated in place.
        grads: gradients of the same shapes, float32 or of the parameter's type.
        m, v: moments, float32, updated in place; zeros before the first step.
        lr: :math:`\eta` >= 0.
        beta1, beta2: in [0, 1).
        eps: :math:`\epsilon` >= 0.
        weight_decay: :math:`\lambda` >= 0, decoupled.
        step: number of this step, from 1.
        grad_scale: factor on the gradients, such as that of clipping.
        rounding_seed: rounds bfloat16 parameters stochastically, by a hash of the seed, the index
            of the tensor in the list and the index of the element; None rounds to nearest.
        threads: number of threads; None for Paddle's, or without Paddle the physical cores. It
            does not change the result.

    Raises:
        ValueError: an argument is not as above; nothing was changed.

    Source: Loshchilov & Hutter, 1711.05101.
    """
    options = _optim_abi.Adamw(
        _number("lr", lr),
        _fraction("beta1", beta1),
        _fraction("beta2", beta2),
        _number("eps", eps),
        _number("weight_decay", weight_decay),
        _factor("grad_scale", grad_scale),
        _step(step),
        _optim_abi.rounding(rounding_seed),
    )
    lists = _read(params=params, grads=grads, m=m, v=v)
    _run("oarlock_optim_adamw", lists, ctypes.byref(options), _threads.count(threads))


def lion(
    params: Tensors,
    grads: Tensors,
    m: Tensors,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    weight_decay: float,
    grad_scale: float = 1.0,
    rounding_seed: int | None = None,
    threads: int | None = None,
) -> None:
    r"""One step of Lion.

    .. math::
        p \leftarrow (1 - \eta\lambda)\, p
        - \eta\, \mathrm{sign}(\beta_1 m + (1-\beta_1) g), \quad
        m \leftarrow \beta_2 m + (1-\beta_2) g

    where the new :math:`p` takes the old :math:`m`. A NaN in the gradient makes the parameter NaN.

    Args:
        m: momentum, float32, updated in place; zeros before the first step.

    The other arguments, and errors, are those of ``adamw``.

    Source: Chen et al., 2302.06675.
    """
    options = _optim_abi.Lion(
        _number("lr", lr),
        _fraction("beta1", beta1),
        _fraction("beta2", beta2),
        _number("weight_decay", weight_decay),
        _factor("grad_scale", grad_scale),
        _optim_abi.rounding(rounding_seed),
    )
    lists = _read(params=params, grads=grads, m=m)
    _run("oarlock_optim_lion", lists, ctypes.byref(options), _threads.count(threads))


def sgd(
    params: Tensors,
    grads: Tensors,
    momentum_buffers: Tensors | None = None,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    grad_scale: float = 1.0,
    rounding_seed: int | None = None,
    threads: int | None = None,
) -> None:
    r"""One step of gradient descent with momentum and decoupled weight decay.

    With momentum :math:`\mu` and dampening :math:`\tau`,

    .. math::
        b \leftarrow \mu b + (1-\tau) g, \quad
        u = g + \mu b \text{ if nesterov, else } b, \quad
        p \leftarrow (1 - \eta\lambda)\, p - \eta\, u

    Without momentum :math:`u = g`.

    Args:
        momentum_buffers: :math:`b`, float32, updated in place; zeros before the first step. None
            if ``momentum`` is 0.
        momentum: :math:`\mu` in [0, 1).
        dampening: :math:`\tau` in [0, 1].
        nesterov: needs ``momentum`` > 0.

    The other arguments, and errors, are those of ``adamw``.
    """
    momentum = _fraction("momentum", momentum)
    if momentum_buffers is None and momentum:
        raise ValueError(f"momentum={momentum:g} needs momentum_buffers: float32 zeros like params")
    if momentum_buffers is not None and not momentum:
        raise ValueError("momentum_buffers are of no use with momentum=0; pass None")
    if nesterov and not momentum:
        raise ValueError("nesterov=True needs momentum > 0, not 0")
    dampening = _number("dampening", dampening)
    if dampening > 1:
        raise ValueError(f"dampening must be in [0, 1], not {dampening!r}")
    options = _optim_abi.Sgd(
        _number("lr", lr),
        momentum,
        dampening,
        _number("weight_decay", weight_decay),
        _factor("grad_scale", grad_scale),
        bool(nesterov),
        _optim_abi.rounding(rounding_seed),
    )
    lists = _read(params=params, grads=grads)
    if momentum_buffers is None:
        lists.append(None)
    else:
        lists += _read(momentum_buffers=momentum_buffers)
    _run("oarlock_optim_sgd", lists, ctypes.byref(options), _threads.count(threads))


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
    limit = 0.0 if max_trust_ratio is None else _number("max_trust_ratio", max_trust_ratio)
    if max_trust_ratio is not None and not limit:
        raise ValueError("max_trust_ratio must be > 0 or None, not 0")
    options = _optim_abi.Lamb(
        _number("lr", lr),
        _fraction("beta1", beta1),
        _fraction("beta2", beta2),
        _number("eps", eps),
        _number("weight_decay", weight_decay),
        _factor("grad_scale", grad_scale),
        limit,
        _step(step),
        _optim_abi.rounding(rounding_seed),
    )
    lists = _read(params=params, grads=grads, m=m, v=v)
    ratios = np.ones(len(params))
    pointer = ctypes.c_void_p(ratios.ctypes.data)
    _run("oarlock_optim_lamb", lists, ctypes.byref(options), pointer, _threads.count(threads))
    return ratios


def squared_norm(tensors: Tensors, *, threads: int | None = None) -> float:
    """Sum of the squares of all elements, accumulated in float64; NaN and Inf propagate.

    Args:
        tensors: float32 or bfloat16.
        threads: number of threads; None for Paddle's, or without Paddle the physical cores. It
            does not change the result.

    Returns:
        The sum; 0.0 for no elements.

    Raises:
        ValueError: an argument is not as above.
    """
    total = ctypes.c_double(0.0)
    lists = _read(tensors=tensors)
    _run("oarlock_optim_squared_norm", lists, ctypes.byref(total), _threads.count(threads))
    return total.value


def row_column_mean_squares(
    grads: Tensors,
    rows: Tensors,
    columns: Tensors,
    *,
    decay: float,
    eps: float = 0.0,
    grad_scale: float = 1.0,
    threads: int | None = None,
) -> None:
    r"""Moving averages of the mean squares of each row and column, for factored second moments.

    .. math::
        R_i \leftarrow \beta R_i + (1-\beta) (\tfrac1C \sum_j g_{ij}^2 + \epsilon), \quad
        C_j \leftarrow \beta C_j + (1-\beta) (\tfrac1R \sum_i g_{ij}^2 + \epsilon)

    Sums are in float64. The factored second moment is :math:`R_i C_j / \mathrm{mean}(R)`.

    Args:
        grads: matrices [rows, columns], float32 or bfloat16.
        rows, columns: averages, float32 vectors, updated in place. Of a matrix without elements
            they stay as they are.
        decay: :math:`\beta` in [0, 1); 0 gives the means themselves.
        eps: :math:`\epsilon` >= 0.
        grad_scale: factor on the gradients.
        threads: number of threads; None for Paddle's, or without Paddle the physical cores. It
            does not change the result.

    Raises:
        ValueError: an argument is not as above; nothing was changed.

    Source: Shazeer & Stern (Adafactor), 1804.04235.
    """
    options = _optim_abi.RowColumn(
        _fraction("decay", decay), _number("eps", eps), _factor("grad_scale", grad_scale)
    )
    lists = _read(grads=grads, rows=rows, columns=columns)
    name = "oarlock_optim_row_column_mean_squares"
    _run(name, lists, ctypes.byref(options), _threads.count(threads))


def _read(**lists: Tensors) -> list[TensorList | None]:
    return [TensorList(name, tensors) for name, tensors in lists.items()]


def _run(name: str, lists: list[TensorList | None], *rest) -> None:
    arguments = [None if one is None else ctypes.byref(one.argument) for one in lists]
    _library_for(name, lists).call(name, *arguments, *rest)


def _library_for(name: str, lists: list[TensorList | None]) -> _library.Library:
    """That of the first tensor's device; the kernel checks that the others are there too."""
    first = next((one for one in lists if one is not None and len(one.items)), None)
    if first is None or first.items[0].device != _abi.CUDA:
        return _library.load()
    return cuda.library_for(name, first.stream())


def _real(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(f"{name} must be a number, not {value!r}")
    return float(value)


def _number(name: str, value: float) -> float:
    number = _real(name, value)
    if not 0.0 <= number < math.inf:
        raise ValueError(f"{name} must be finite and >= 0, not {value!r}")
    return number


def _fraction(name: str, value: float) -> float:
    number = _real(name, value)
    if not 0.0 <= number < 1.0:
        raise ValueError(f"{name} must be in [0, 1), not {value!r}")
    return number


def _factor(name: str, value: float) -> float:
    number = _real(name, value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, not {value!r}")
    return number


def _step(step: int) -> int:
    if isinstance(step, bool) or not isinstance(step, numbers.Integral) or step < 1:
        raise ValueError(f"step must be an integer >= 1, the number of this step, not {step!r}")
    return int(step)
