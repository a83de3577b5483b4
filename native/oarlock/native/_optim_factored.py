"""Second moments shared by rows, columns or blocks of a tensor, and the steps that use them."""

import ctypes

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
        fraction("decay", decay), number("eps", eps), factor("grad_scale", grad_scale)
    )
    lists = read(grads=grads, rows=rows, columns=columns)
    name = "oarlock_optim_row_column_mean_squares"
    run(name, lists, ctypes.byref(options), _threads.count(threads))


def adafactor(
    params: Tensors,
    grads: Tensors,
    rows: Tensors,
    columns: Tensors,
    *,
    lr: float,
    clip_threshold: float | None,
    eps_scale: float,
    relative: bool,
    weight_decay: float,
    grad_scale: float = 1.0,
    rounding_seed: int | None = None,
    threads: int | None = None,
) -> None:
    r"""One step of Adafactor on matrices, with the factored second moments of this step.

    ``row_column_mean_squares`` updates the moments :math:`R, C` first. With threshold :math:`d`,

    .. math::
        u_{ij} = \frac{g_{ij}}{\sqrt{R_i C_j / \mathrm{mean}(R)}}, \quad
        u \leftarrow \frac{u}{\max(1, \mathrm{rms}(u) / d)}

        \alpha = \eta \max(\epsilon, \mathrm{rms}(p)) \text{ if relative, else } \eta, \quad
        p \leftarrow (1 - \eta\lambda)\, p - \alpha\, u

    where :math:`u_{ij} = 0` if :math:`R_i` or :math:`C_j` is 0: no gradient has been there, and a
    parameter that never gets one stays. A NaN in a gradient makes its parameter NaN, and all of the
    matrix if there is a ``clip_threshold``. Mean squares are summed in float64, in an order that
    depends on the shapes only.

    Args:
        params, grads: matrices [rows, columns]; reshape others, for example to [1, n].
        rows, columns: :math:`R` and :math:`C`, float32 vectors, only read.
        clip_threshold: :math:`d` > 0; None for no clipping.
        eps_scale: :math:`\epsilon` >= 0, the least size of the weights; used if ``relative``.
        relative: whether the step is relative to the size of the weights.
        weight_decay: :math:`\lambda` >= 0, decoupled.

    The other arguments, and errors, are those of ``adamw``.

    Source: Shazeer & Stern, 1804.04235.
    """
    options = _optim_abi.Adafactor(
        number("lr", lr),
        number("eps_scale", eps_scale),
        number("weight_decay", weight_decay),
        factor("grad_scale", grad_scale),
        limit("clip_threshold", clip_threshold),
        bool(relative),
        _optim_abi.rounding(rounding_seed),
    )
    lists = read(params=params, grads=grads, rows=rows, columns=columns)
    run("oarlock_optim_adafactor", lists, ctypes.byref(options), _threads.count(threads))


def adam_mini(
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
    r"""One step of Adam-mini: AdamW with one second moment for each block of a tensor.

    With ``step`` = :math:`t` and :math:`b` the block of an element,

    .. math::
        m \leftarrow \beta_1 m + (1-\beta_1) g, \quad
        v_b \leftarrow \beta_2 v_b + (1-\beta_2)\, \mathrm{mean}_b(g^2)

        p \leftarrow (1 - \eta\lambda)\, p
        - \eta\, \frac{m / (1-\beta_1^t)}{\sqrt{v_b / (1-\beta_2^t)} + \epsilon}

    Means are summed in float64, in an order that depends on the sizes only. A NaN in a gradient
    makes the parameters of its block NaN.

    Args:
        m: first moment like the parameters, float32, updated in place; zeros before the first step.
        v: float32 vectors [blocks], updated in place; zeros before the first step. The elements of
            tensor i in memory order divide evenly into its blocks. Of a tensor without elements
            they stay as they are.

    The other arguments, and errors, are those of ``adamw``.

    Source: Zhang et al., 2406.16793.
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
    run("oarlock_optim_adam_mini", lists, ctypes.byref(options), _threads.count(threads))
