"""How much it matters to an optimizer's step what a code leaves out of each element of a gradient.

A step of SGD is as wrong as the gradient, so all elements count alike. Adam divides each by the root of the mean of its
squares: an error that is small beside the largest element may be many times the step of a small one. What low-rank
products and codes with one magnitude for many elements leave out is of that kind (measured: the package's log).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from oarlock.fleet_ext.transport.arrays import view_of

#: In names of Paddle's accumulators: of Adam and its kin, of RMSProp.
_SQUARES = ("_moment2_", "_mean_square_")
_LEAST = 0.01  #: of a tensor's mean, to which an optimizer's divisor is taken to be at least


def weights_behind(
    optimizer: Any, parameters: Sequence[Any], gradient: np.ndarray
) -> np.ndarray | None:
    """Of the square of each element's error.

    Args:
        optimizer: Paddle's, that has taken a step.
        parameters: of it, whose gradients lie one behind the other.
        gradient: these, float32 [n]; for optimizers whose divisors are not known, which are taken to be its elements.

    Returns:
        float32 [n]; None where all count alike.
    """
    import paddle  # where an optimizer is, it is there

    if isinstance(optimizer, (paddle.optimizer.SGD, paddle.optimizer.Momentum)):
        return None
    state = optimizer.state_dict()
    sizes, begin = np.abs(gradient), 0
    for parameter in parameters:
        part = sizes[begin : begin + int(np.prod(parameter.shape))]
        begin += part.size
        squares = _squares_of(parameter.name, state)
        if squares is not None:
            np.sqrt(squares, out=part)
        part += _LEAST * part.mean()
    return 1 / np.square(np.maximum(sizes, np.finfo(np.float32).tiny ** 0.25))


def _squares_of(name: str, state: Mapping[str, Any]) -> np.ndarray | None:
    """Means of squares of a parameter's gradient."""
    for key, one in state.items():
        if key.startswith(name + "_") and any(mark in key for mark in _SQUARES):
            return view_of(one).reshape(-1).astype(np.float32)
    return None
