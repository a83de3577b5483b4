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

from oarlock.native import threads as _threads
from oarlock.native._optim_arguments import Tensors, read, run
from oarlock.native._optim_elementwise import (
    adamw,
    lion,
    schedule_free_adamw,
    sgd,
    sophia,
    sophia_hessian,
)
from oarlock.native._optim_factored import adafactor, adam_mini, row_column_mean_squares
from oarlock.native._optim_layerwise import lamb, lars, mars_adamw

__all__ = [
    "adafactor",
    "adam_mini",
    "adamw",
    "lamb",
    "lars",
    "lion",
    "mars_adamw",
    "row_column_mean_squares",
    "schedule_free_adamw",
    "sgd",
    "sophia",
    "sophia_hessian",
    "squared_norm",
]


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
    lists = read(tensors=tensors)
    run("oarlock_optim_squared_norm", lists, ctypes.byref(total), _threads.count(threads))
    return total.value
