"""Second moments shared by rows, columns or blocks of a tensor, and the steps that use them."""

import ctypes

from oarlock.native import _optim_abi
from oarlock.native import threads as _threads
from oarlock.native._optim_arguments import Tensors, factor, fraction, number, read, run


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
