"""Layers of autograd of radial filters.

Filters are functions of one number, so that the kernels give their derivative by it, the slope, along
with the value. `_Attach` makes the slope the gradient of the value; it is a tensor with a gradient of its
own (by the weights, and through `_Bend` by the distance), which is what training by forces needs.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

import paddle
from paddle import Tensor

from oarlock.native import _atoms_radial as kernels
from oarlock.native._atoms_radial import Radial
from oarlock.native.paddle._atoms_forms import Layer, RowDots, apply_to, dense, empty, wanted

_WITHOUT_WEIGHTS: ContextVar[bool] = ContextVar("without weights", default=False)
_WITHOUT_DISTANCES: ContextVar[bool] = ContextVar("without distances", default=False)


@contextmanager
def _set(flag: ContextVar[bool]) -> Iterator[None]:
    token = flag.set(True)
    try:
        yield
    finally:
        flag.reset(token)


def without_weights() -> AbstractContextManager[None]:
    """Inside, gradients by the weights of radial filters are not computed.

    For ``paddle.grad`` by positions, distances and the like, which would compute and drop them.
    """
    return _set(_WITHOUT_WEIGHTS)


def without_distances() -> AbstractContextManager[None]:
    """Inside, gradients by the distances of radial filters are not computed.

    For ``paddle.grad`` of a loss by parameters, which would compute and drop them.
    """
    return _set(_WITHOUT_DISTANCES)


class _Network(Layer):
    """The filters, and with `slopes` their derivatives by the distances: both functions of weights."""

    @staticmethod
    def compute(weights, radial, distances, parameters, slopes):
        out = empty([distances.shape[0], weights[-1].shape[0]], distances)
        slope = empty(out.shape, out) if slopes else None
        kernels.radial_filters(radial, distances, [parameters, *_four(weights)], out, slope)
        return (out, slope) if slopes else out

    @staticmethod
    def gradients(weights, wanted, grads, radial, distances, parameters, slopes):
        if _WITHOUT_WEIGHTS.get():
            return [None if one.is_leaf else paddle.zeros_like(one) for one in weights]
        found = [empty(one.shape, one) for one in weights]
        a, b = (None if one is None else dense(one) for one in (*grads, None)[:2])
        four = [parameters, *_four(weights)]
        kernels.radial_gradients(radial, distances, four, a, b, _four(found))
        by = weights[wanted.index(True)]
        return [_once(one, by) if need else None for one, need in zip(found, wanted, strict=True)]


def _four(weights: list[Any]) -> list[Any]:
    """W₁, b₁, W₂ and b₂, the first two None where there is no hidden layer."""
    return [None, None, *weights][-4:]


class _Bend(Layer):
    """The slope as a function of the distance; the same tensor, in place."""

    @staticmethod
    def compute(tensors, radial, weights, parameters):
        return tensors[1]

    @staticmethod
    def gradients(tensors, wanted, grads, radial, weights, parameters):
        if _WITHOUT_DISTANCES.get():  # what made the distances is run even so
            return paddle.zeros_like(tensors[0]), grads[0]
        distances, grad = tensors[0], dense(grads[0])
        out = empty(distances.shape, grad)
        given = [parameters, *_four(weights)]
        kernels.radial_curvatures(radial, dense(distances), given, grad, out)
        return _once(out, distances), grads[0]


class _Attach(Layer):
    """The filter as a function of the distance; the same tensor, in place."""

    @staticmethod
    def compute(tensors, held):
        return tensors[1]

    @staticmethod
    def gradients(tensors, wanted, grads, held):
        if _WITHOUT_DISTANCES.get():  # what made the distances is run even so
            return paddle.zeros_like(tensors[0]), grads[0]
        # The slope is no argument: what made it is no part of the first derivative's graph.
        return apply_to(RowDots, (grads[0], held["slope"]), None), grads[0]


class _Frozen(Layer):
    """The filter as a function of the distance alone: its weights are fixed."""

    @staticmethod
    def compute(tensors, held, radial, weights, parameters):
        return held["values"]

    @staticmethod
    def gradients(tensors, wanted, grads, held, radial, weights, parameters):
        slope = held["slope"]
        if paddle.is_grad_enabled():
            slope = apply_to(_FrozenSlope, tensors, held, radial, weights, parameters)
        return (apply_to(RowDots, (grads[0], slope), None),)


class _FrozenSlope(Layer):
    @staticmethod
    def compute(tensors, held, radial, weights, parameters):
        return held["slope"].detach()

    @staticmethod
    def gradients(tensors, wanted, grads, held, radial, weights, parameters):
        return (_Bend.gradients((tensors[0], None), wanted, grads, radial, weights, parameters)[0],)


class _Once(Layer):
    """A gradient that cannot be differentiated, by what it would have been differentiated by."""

    @staticmethod
    def compute(tensors, held):
        return held["gradient"]

    @staticmethod
    def gradients(tensors, wanted, grads, held):
        raise ValueError(
            "this derivative of radial filters cannot be differentiated once more by the kernels: "
            "compose the filters of Paddle's operators"
        )


def _once(gradient: Tensor, by: Tensor) -> Tensor:
    if not paddle.is_grad_enabled():
        return gradient
    return apply_to(_Once, (by,), {"gradient": gradient})


def radial_filters(
    distances: Tensor, radial: Radial, parameters: Tensor, layers: list[tuple[Any, Any]]
) -> Tensor:
    """See `oarlock.native.paddle.atoms.radial_filters`."""
    if wanted(parameters):
        raise ValueError(
            "parameters of the basis have no gradients in the kernels: set stop_gradient=True, or "
            "compose the filters of Paddle's operators"
        )
    if not 1 <= len(layers) <= 2:
        raise ValueError(f"layers must be one or two pairs of weight and bias, not {len(layers)}")
    weights = [one for layer in layers for one in layer]
    slopes = wanted(distances) and paddle.is_grad_enabled()
    fixed = dense(distances.detach())
    found = apply_to(_Network, weights, radial, fixed, parameters, slopes)
    if not slopes:
        return found
    values, slope = found
    if not any(map(wanted, weights)):
        held = {"values": values, "slope": slope}
        return apply_to(_Frozen, (distances,), held, radial, weights, parameters)
    slope = apply_to(_Bend, (distances, slope), radial, weights, parameters)
    return apply_to(_Attach, (distances, values), {"slope": slope})
