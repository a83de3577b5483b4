"""A linear layer whose three products each have a format of their own."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import paddle
from paddle import nn
from paddle.autograd import PyLayer

from .formats import FORMATS, Format
from .products import converted, product

DTYPES = (paddle.float32, paddle.bfloat16, paddle.float16)


class Formats(NamedTuple):
    """Names of the formats of the three products."""

    forward: str = "fp32"
    input_grad: str = "fp32"
    weight_grad: str = "fp32"

    def of(self, role: str) -> Format:
        return FORMATS[getattr(self, role)]

    @property
    def exact(self) -> bool:
        return all(name == "fp32" for name in self)


class _Linear(PyLayer):
    @staticmethod
    def forward(ctx: Any, x, weight, bias, formats: Formats, native: bool):
        rows = x.reshape([-1, x.shape[-1]])
        out = product(rows, weight, "forward", formats.of("forward"), bias=bias, native=native)
        ctx.save_for_backward(x, weight)
        ctx.formats, ctx.native, ctx.bias = formats, native, bias
        return converted(out.reshape([*x.shape[:-1], weight.shape[1]]), x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient):
        x, weight = ctx.saved_tensor()
        formats, native, bias = ctx.formats, ctx.native, ctx.bias
        g = gradient.reshape([-1, gradient.shape[-1]])
        grads: list[paddle.Tensor | None] = [None, None]
        if not x.stop_gradient:
            dx = product(g, weight, "input_grad", formats.of("input_grad"), native=native)
            grads[0] = converted(dx.reshape(x.shape), x.dtype)
        if not weight.stop_gradient:
            rows = x.reshape([-1, x.shape[-1]])
            dw = product(rows, g, "weight_grad", formats.of("weight_grad"), native=native)
            grads[1] = converted(dw, weight.dtype)
        if bias is not None:
            grads.append(None if bias.stop_gradient else converted(column_sums(g), bias.dtype))
        return tuple(grads)


def column_sums(g: paddle.Tensor) -> paddle.Tensor:
    """[tokens, out] -> float32 [out]; as a product, since Paddle's sum over rows is ten times slower."""
    g = converted(g, paddle.float32)
    return paddle.matmul(paddle.ones([1, g.shape[0]]), g).reshape([-1])


def linear(
    x: paddle.Tensor,
    weight: paddle.Tensor,
    bias: paddle.Tensor | None = None,
    *,
    formats: Formats = Formats(),
    native: bool = True,
) -> paddle.Tensor:
    """x W + b with each of its three products in a format of its own.

    Args:
        x: [..., in].
        weight: [in, out], as Paddle stores it.
        bias: [out] or None.
        formats: of forward, input gradient and weight gradient.
        native: False computes with plain Paddle operators where kernels could; for comparisons.

    Returns:
        [..., out], of x's type.

    Raises:
        ValueError: x or the weight is of another type than float32, bfloat16 or float16 (products are
            float32, less than float64 promises), or their shapes do not fit.
    """
    for name, tensor in (("x", x), ("weight", weight)):
        if tensor.dtype not in DTYPES:
            raise ValueError(
                f"{name} must be float32, bfloat16 or float16, got {tensor.dtype}: products are float32"
                " here; cast it, or leave the layer out of the plan."
            )
    if weight.ndim != 2 or x.shape[-1:] != weight.shape[:1]:
        raise ValueError(
            f"x of shape {list(x.shape)} does not fit a weight of shape {list(weight.shape)}, which is"
            " [in, out]."
        )
    return _Linear.apply(x, weight, bias, formats, native)


def linears(model: nn.Layer) -> Iterator[tuple[str, nn.Linear]]:
    """The linear layers of a model that compute as ``paddle.nn.Linear`` does, with their names."""
    for name, layer in model.named_sublayers(include_self=True):
        if isinstance(layer, nn.Linear) and type(layer).forward is nn.Linear.forward:
            yield name, layer
