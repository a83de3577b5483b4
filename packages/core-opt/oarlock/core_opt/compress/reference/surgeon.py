"""The optimal brain surgeon, one weight after the other, with inverses computed anew each time.

Fixing weight i to q costs (w_i - q)^2 / (2 [H^-1]_ii) and moves the free ones by
-(w_i - q) / [H^-1]_ii H^-1_{:, i}, where H is that of the free weights. Source: 2208.11580.
"""

from collections.abc import Callable

import numpy as np


def gptq(
    weight: np.ndarray,
    moment: np.ndarray,
    rounded: Callable[[float, int, int], float],
    order: np.ndarray | None = None,
) -> np.ndarray:
    """Rounded weights.

    Args:
        weight: [in, out].
        moment: damped E[x x^T].
        rounded: nearest value on the grid of (value, input, output).
        order: of rounding the inputs.
    """
    rows, out = weight.shape
    order = np.arange(rows) if order is None else order
    result = weight.astype(np.float64).copy()
    for o in range(out):
        free = list(order)
        while free:
            i = free[0]
            inverse = np.linalg.inv(moment[np.ix_(free, free)])
            value = rounded(result[i, o], i, o)
            result[free, o] -= (result[i, o] - value) / inverse[0, 0] * inverse[:, 0]
            result[i, o] = value
            free = free[1:]
    return result


def sparsegpt(weight: np.ndarray, moment: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """New values of the weights that a mask keeps, inputs fixed in their order."""
    rows, out = weight.shape
    result = weight.astype(np.float64).copy()
    for o in range(out):
        for i in range(rows):
            inverse = np.linalg.inv(moment[i:, i:])
            if not mask[i, o]:
                result[i:, o] -= result[i, o] / inverse[0, 0] * inverse[:, 0]
                result[i, o] = 0.0
    return result
