"""Steps that update each element by itself, in one pass over memory."""

import ctypes

from oarlock.native import _optim_abi
from oarlock.native import threads as _threads
from oarlock.native._optim_arguments import (
    Tensors,
    factor,
    fraction,
    number,
    read,
    run,
    share,
    step_number,
)


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
        number("lr", lr),
        fraction("beta1", beta1),
        fraction("beta2", beta2),
        number("eps", eps),
        number("weight_decay", weight_decay),
        factor("grad_scale", grad_scale),
        step_number(step),
        _optim_abi.rounding(rounding_seed),
    )
    lists = read(params=params, grads=grads, m=m, v=v)
    run("oarlock_optim_adamw", lists, ctypes.byref(options), _threads.count(threads))


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
        number("lr", lr),
        fraction("beta1", beta1),
        fraction("beta2", beta2),
        number("weight_decay", weight_decay),
        factor("grad_scale", grad_scale),
        _optim_abi.rounding(rounding_seed),
    )
    lists = read(params=params, grads=grads, m=m)
    run("oarlock_optim_lion", lists, ctypes.byref(options), _threads.count(threads))


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
    momentum = fraction("momentum", momentum)
    if momentum_buffers is None and momentum:
        raise ValueError(f"momentum={momentum:g} needs momentum_buffers: float32 zeros like params")
    if momentum_buffers is not None and not momentum:
        raise ValueError("momentum_buffers are of no use with momentum=0; pass None")
    if nesterov and not momentum:
        raise ValueError("nesterov=True needs momentum > 0, not 0")
    options = _optim_abi.Sgd(
        number("lr", lr),
        momentum,
        share("dampening", dampening),
        number("weight_decay", weight_decay),
        factor("grad_scale", grad_scale),
        bool(nesterov),
        _optim_abi.rounding(rounding_seed),
    )
    lists = read(params=params, grads=grads)
    if momentum_buffers is None:
        lists.append(None)
    else:
        lists += read(momentum_buffers=momentum_buffers)
    run("oarlock_optim_sgd", lists, ctypes.byref(options), _threads.count(threads))


def sophia(
    params: Tensors,
    grads: Tensors,
    m: Tensors,
    h: Tensors,
    *,
    lr: float,
    beta1: float,
    gamma: float,
    eps: float,
    weight_decay: float,
    grad_scale: float = 1.0,
    rounding_seed: int | None = None,
    threads: int | None = None,
) -> None:
    r"""One step of Sophia: momentum over a diagonal of the Hessian, clipped for each element.

    .. math::
        m \leftarrow \beta_1 m + (1-\beta_1) g, \quad
        p \leftarrow (1 - \eta\lambda)\, p
        - \eta\, \mathrm{clip}\Bigl(\frac{m}{\max(\gamma h, \epsilon)}, -1, 1\Bigr)

    A NaN in the gradient or in :math:`h` makes the parameter NaN.

    Args:
        m: momentum, float32, updated in place; zeros before the first step.
        h: diagonal of the Hessian, float32, only read; ``sophia_hessian`` updates it.
        gamma: :math:`\gamma` >= 0; a smaller one clips more elements.
        eps: :math:`\epsilon` >= 0; with 0 an element whose m and h are 0 becomes NaN.

    The other arguments, and errors, are those of ``adamw``.

    Source: Liu et al., 2305.14342.
    """
    options = _optim_abi.Sophia(
        number("lr", lr),
        fraction("beta1", beta1),
        number("gamma", gamma),
        number("eps", eps),
        number("weight_decay", weight_decay),
        factor("grad_scale", grad_scale),
        _optim_abi.rounding(rounding_seed),
    )
    lists = read(params=params, grads=grads, m=m, h=h)
    run("oarlock_optim_sophia", lists, ctypes.byref(options), _threads.count(threads))


def sophia_hessian(
    grads: Tensors,
    h: Tensors,
    *,
    beta2: float,
    scale: float,
    grad_scale: float = 1.0,
    threads: int | None = None,
) -> None:
    r"""Moving average of Sophia's estimate of the Hessian's diagonal.

    With :math:`g` the gradient times ``grad_scale``, and ``scale`` = :math:`B`,

    .. math:: h \leftarrow \beta_2 h + (1-\beta_2)\, B\, g^2

    Args:
        grads: float32 or bfloat16; for the Gauss-Newton-Bartlett estimate those of the mean loss
            over B labels drawn from the model itself.
        h: averages, float32, of the same shapes, updated in place; zeros before the first one.
        beta2: in [0, 1).
        scale: :math:`B` >= 0, in samples.
        grad_scale: factor on the gradients.
        threads: number of threads; None for Paddle's, or without Paddle the physical cores. It
            does not change the result.

    Raises:
        ValueError: an argument is not as above; nothing was changed.

    Source: Liu et al., 2305.14342.
    """
    options = _optim_abi.SophiaHessian(
        fraction("beta2", beta2), number("scale", scale), factor("grad_scale", grad_scale)
    )
    lists = read(grads=grads, h=h)
    run("oarlock_optim_sophia_hessian", lists, ctypes.byref(options), _threads.count(threads))


def schedule_free_adamw(
    params: Tensors,
    grads: Tensors,
    z: Tensors,
    v: Tensors,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
    average_weight: float,
    grad_scale: float = 1.0,
    rounding_seed: int | None = None,
    threads: int | None = None,
) -> None:
    r"""One step of schedule-free AdamW, on the points where gradients are taken.

    The parameters hold :math:`y = (1-\beta_1) z + \beta_1 x` with :math:`x` the average of the
    :math:`z`. With ``step`` = :math:`t` and ``average_weight`` = :math:`c`,

    .. math::
        v \leftarrow \beta_2 v + (1-\beta_2) g^2, \quad
        u = \frac{g}{\sqrt{v / (1-\beta_2^t)} + \epsilon} + \lambda y

        y \leftarrow y + c\,(z - y) + \eta\,(\beta_1 (1-c) - 1)\, u, \quad
        z \leftarrow z - \eta\, u

    where the new :math:`y` takes the old :math:`z`. The average itself is
    :math:`x = z + (y - z) / \beta_1`.

    Args:
        params: :math:`y`, float32 or bfloat16, updated in place.
        z: float32, updated in place; a copy of the parameters before the first step.
        v: second moment, float32, updated in place; zeros before the first step.
        weight_decay: :math:`\lambda` >= 0, at :math:`y`.
        average_weight: :math:`c` in [0, 1], the weight of the new :math:`z` in the average: 1/t for
            a plain mean.

    The other arguments, and errors, are those of ``adamw``.

    Source: Defazio et al., 2405.15682.
    """
    options = _optim_abi.ScheduleFree(
        number("lr", lr),
        fraction("beta1", beta1),
        fraction("beta2", beta2),
        number("eps", eps),
        number("weight_decay", weight_decay),
        share("average_weight", average_weight),
        factor("grad_scale", grad_scale),
        step_number(step),
        _optim_abi.rounding(rounding_seed),
    )
    lists = read(params=params, grads=grads, z=z, v=v)
    name = "oarlock_optim_schedule_free_adamw"
    run(name, lists, ctypes.byref(options), _threads.count(threads))
