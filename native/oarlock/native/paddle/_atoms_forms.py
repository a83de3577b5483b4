"""Layers of autograd over the kernels of atoms.

Most are products of three things and a sum, T(a, b, c) = Σ a b c, of which two are given: the result is
T's derivative by the third. The derivatives of that are the other two derivatives of T, and so on, so
that three layers are differentiable any number of times.

`paddle.grad` marks what it does not need of a layer's gradients and then refuses that they are given,
but tells the layer nothing of it; it leaves layers alone that have one argument with gradients. So all
tensors of a layer are one list (`apply_to`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import paddle
from paddle import Tensor
from paddle.autograd import PyLayer

from oarlock.native import _atoms_edges as edges

#: A derivative of T by one factor: the two others in alphabetical order, and what is fixed.
Derivative = Callable[[Tensor, Tensor, Any], Tensor]


def empty(shape: list[int], like: Tensor) -> Tensor:
    """Not cleared. A third of the time of `paddle.empty`, which counts for small systems."""
    return paddle._C_ops.empty(shape, like.dtype, like.place)


def dense(x: Tensor) -> Tensor:
    """Itself, or a contiguous copy of a view."""
    return x if x.is_contiguous() else paddle.assign(x)


def wanted(x: Tensor | None) -> bool:
    return x is not None and not x.stop_gradient


class Layer:
    """A function of tensors, applied by `apply_to`."""

    @staticmethod
    def compute(tensors: Sequence[Any], *fixed: Any) -> Any:
        raise NotImplementedError

    @staticmethod
    def gradients(
        tensors: Sequence[Any], wanted: Sequence[bool], grads: Sequence[Any], *fixed: Any
    ) -> Sequence[Tensor | None]:
        """For each tensor a gradient, or None where it is not wanted.

        Args:
            grads: of each result; None where there is none.
        """
        raise NotImplementedError


class _Applied(PyLayer):
    @staticmethod
    def forward(ctx, given, what):
        layer, order, fixed = what["layer"], what["order"], what["fixed"]
        tensors: list[Any] = [None] * len(order)
        for tensor, place in zip(given, order, strict=True):
            tensors[place] = tensor
        ctx.set_materialize_grads(False)
        ctx.layer, ctx.order, ctx.fixed, ctx.tensors = layer, order, fixed, tensors
        ctx.wanted = [not tensor.stop_gradient for tensor in tensors]
        return layer.compute(tensors, *fixed)

    @staticmethod
    def backward(ctx, *grads):
        found = ctx.layer.gradients(ctx.tensors, ctx.wanted, grads, *ctx.fixed)
        return [found[place] for place in ctx.order]


def apply_to(layer: type[Layer], tensors: Sequence[Tensor], *fixed: Any) -> Any:
    """Apply a layer to tensors, and to what has no gradients.

    The first of a list of tensors decides whether gradients of any of them may be given.
    """
    order = sorted(range(len(tensors)), key=lambda k: tensors[k].stop_gradient)
    # In a dictionary, where Paddle does not look for tensors.
    what = {"layer": layer, "order": order, "fixed": fixed}
    return _Applied.apply([tensors[k] for k in order], what)


def trilinear(by_a: Derivative, by_b: Derivative, by_c: Derivative) -> tuple[Any, Any, Any]:
    """Layers for the three derivatives; each is applied to two tensors and what is fixed."""

    class ByA(Layer):
        @staticmethod
        def compute(tensors, fixed):
            return by_a(dense(tensors[0]), dense(tensors[1]), fixed)

        @staticmethod
        def gradients(tensors, wanted, grads, fixed):
            (b, c), (a,) = tensors, grads
            return (
                apply_to(ByB, (a, c), fixed) if wanted[0] else None,
                apply_to(ByC, (a, b), fixed) if wanted[1] else None,
            )

    class ByB(Layer):
        @staticmethod
        def compute(tensors, fixed):
            return by_b(dense(tensors[0]), dense(tensors[1]), fixed)

        @staticmethod
        def gradients(tensors, wanted, grads, fixed):
            (a, c), (b,) = tensors, grads
            return (
                apply_to(ByA, (b, c), fixed) if wanted[0] else None,
                apply_to(ByC, (a, b), fixed) if wanted[1] else None,
            )

    class ByC(Layer):
        @staticmethod
        def compute(tensors, fixed):
            return by_c(dense(tensors[0]), dense(tensors[1]), fixed)

        @staticmethod
        def gradients(tensors, wanted, grads, fixed):
            (a, b), (c,) = tensors, grads
            return (
                apply_to(ByA, (b, c), fixed) if wanted[0] else None,
                apply_to(ByB, (a, c), fixed) if wanted[1] else None,
            )

    return ByA, ByB, ByC


# Σ over rows e and columns f of factors[e] x[e, f] y[e, f].


def _dots(x: Tensor, y: Tensor, fixed: None) -> Tensor:
    out = empty([x.shape[0]], x)
    edges.row_dots(x, y, out)
    return out


def _scaled(factors: Tensor, x: Tensor, fixed: None) -> Tensor:
    out = empty(x.shape, x)
    edges.scale_rows(x, factors, out)
    return out


RowDots, ScaleRows, _ = trilinear(_dots, _scaled, _scaled)


# Σ over pairs and channels of y[first] x[second] w, and the other way for the first `both`. What is
# fixed: first, second, both, number of atoms at the first end and at the second.


def _to_first(x: Tensor, w: Tensor, fixed: tuple) -> Tensor:
    first, second, both, count, _ = fixed
    out = empty([count, *x.shape[1:]], x)
    edges.convolve(x, w, first, second, out, both=both)
    return out


def _to_second(y: Tensor, w: Tensor, fixed: tuple) -> Tensor:
    first, second, both, _, count = fixed
    out = empty([count, *y.shape[1:]], y)
    edges.convolve(y, w, second, first, out, both=both)
    return out


def _products(y: Tensor, x: Tensor, fixed: tuple) -> Tensor:
    first, second, both, _, _ = fixed
    out = empty([first.shape[0], x.shape[2]], x)
    edges.multiply(y, x, first, second, out, both=both)
    return out


Convolve, _, _ = trilinear(_to_first, _to_second, _products)


class Gather(Layer):
    @staticmethod
    def compute(tensors, index):
        (values,) = tensors
        out = empty([index.shape[0], values.shape[1]], values)
        edges.gather(dense(values), index, out)
        return out

    @staticmethod
    def gradients(tensors, wanted, grads, index):
        return (apply_to(ScatterSum, grads, index, tensors[0].shape[0]),)


class ScatterSum(Layer):
    @staticmethod
    def compute(tensors, index, rows):
        (values,) = tensors
        out = empty([rows, values.shape[1]], values)
        edges.scatter_sum(dense(values), index, out)
        return out

    @staticmethod
    def gradients(tensors, wanted, grads, index, rows):
        return (apply_to(Gather, grads, index),)


def sum_rows(x: Tensor) -> Tensor:
    """[E, F] → [F], differentiable where a graph is recorded."""
    if paddle.is_grad_enabled():
        return x.sum(axis=0)
    out = empty([x.shape[1]], x)
    edges.column_sums(dense(x), out)
    return out


class Activation(Layer):
    """f(x + bias), [E, F], of x or of x and bias."""

    @staticmethod
    def compute(tensors, name):
        x, bias = (*tensors, None)[:2]
        out = empty(x.shape, x)
        edges.activation(dense(x), out, name=name, bias=bias)
        return out

    @staticmethod
    def gradients(tensors, wanted, grads, name):
        of_x = apply_to(ActivationSlope, (*grads, *tensors), name, 1)
        return (of_x if wanted[0] else None, sum_rows(of_x) if wanted[-1] else None)[: len(tensors)]


class ActivationSlope(Layer):
    """g ∘ f⁽ᵒʳᵈᵉʳ⁾(x + bias), of g and x, or of g, x and bias."""

    @staticmethod
    def compute(tensors, name, order):
        g, x, bias = (*tensors, None)[:3]
        out = empty(x.shape, x)
        edges.activation(dense(x), out, name=name, order=order, bias=bias, g=dense(g))
        return out

    @staticmethod
    def gradients(tensors, wanted, grads, name, order):
        g, *inner = tensors
        (grad,) = grads
        of_g = apply_to(ActivationSlope, (grad, *inner), name, order) if wanted[0] else None
        if not any(wanted[1:]):
            return (of_g, None, None)[: len(tensors)]
        if paddle.is_grad_enabled():
            of_x = apply_to(ActivationSlope, (grad * g, *inner), name, order + 1)
        else:
            x, bias = (*inner, None)[:2]
            of_x = empty(x.shape, x)
            given = {"bias": bias, "g": dense(g), "h": dense(grad)}
            edges.activation(dense(x), of_x, name=name, order=order + 1, **given)
        of_bias = sum_rows(of_x) if wanted[-1] else None
        return (of_g, of_x if wanted[1] else None, of_bias)[: len(tensors)]
