"""The product of two matrices in a format: a kernel on the CPU, plain Paddle operators elsewhere."""

import paddle

from . import plain
from .formats import Format
from oarlock.native import lowp

_KERNEL_DTYPES = (paddle.float32, paddle.bfloat16)


def converted(x: paddle.Tensor, dtype: paddle.dtype) -> paddle.Tensor:
    """``x`` of a type; itself if it is of that type, where ``astype`` would copy."""
    return x if x.dtype == dtype else x.astype(dtype)


def _laid_out(x: paddle.Tensor) -> paddle.Tensor:
    """``x``, or a contiguous copy: kernels take no views. (``x.contiguous()`` would change ``x``.)"""
    return x if x.is_contiguous() else paddle.assign(x)


def product(
    a: paddle.Tensor,
    b: paddle.Tensor,
    role: str,
    number_format: Format,
    *,
    bias: paddle.Tensor | None = None,
    native: bool = True,
) -> paddle.Tensor:
    """One of the three products of a linear layer (see ``formats``), in float32.

    Args:
        a, b: x [tokens, in] and W [in, out] forward; g [tokens, out] and W of ``input_grad``; x and g
            of ``weight_grad``. Views that are not contiguous are copied for the kernels.
        role: which of the three.
        bias: [out], added to a forward product.
        native: False takes plain operators on the CPU too.
    """
    transpose_a, transpose_b = role == "weight_grad", role == "input_grad"
    if number_format.name == "fp32":
        a, b = converted(a, paddle.float32), converted(b, paddle.float32)
        out = paddle.matmul(a, b, transpose_x=transpose_a, transpose_y=transpose_b)
        return out if bias is None else out + bias
    operands = number_format.operands(role)
    if not (native and a.place.is_cpu_place() and a.dtype in _KERNEL_DTYPES):
        a, b = converted(a, paddle.float32), converted(b, paddle.float32)
        out = plain.matmul(
            a, b, operands, number_format.block, transpose_a=transpose_a, transpose_b=transpose_b
        )
        return out if bias is None else out + bias
    rows, columns = a.shape[1 if transpose_a else 0], b.shape[0 if transpose_b else 1]
    out = paddle.empty([rows, columns], "float32")
    lowp.matmul(
        _laid_out(a),
        _laid_out(b),
        out,
        format=operands[0] if operands[0] == operands[1] else operands,
        transpose_a=transpose_a,
        transpose_b=transpose_b,
        block=number_format.block,
        bias=None if bias is None else converted(bias, paddle.float32),
    )
    return out
