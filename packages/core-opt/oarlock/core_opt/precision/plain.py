"""Products in low precision through plain Paddle operators: anywhere, and what kernels are held to.

The operands are rounded as the kernels round them and multiplied in float32, so that a result differs
from a kernel's by float32 rounding only.
"""

import paddle

#: Largest code. Of int16 it is what lets the sum of 64 products of two stay within int32.
INTEGERS = {"int8": 127.0, "int16": 5792.0}
#: Types whose cast rounds to nearest even.
HALVES = {"fp16": paddle.float16, "bf16": paddle.bfloat16}
EIGHTHS = {"fp8_e4m3": paddle.float8_e4m3fn, "fp8_e5m2": paddle.float8_e5m2}
LARGEST = {**INTEGERS, "fp8_e4m3": 448.0, "fp8_e5m2": 57344.0}  #: of formats that have scales
KERNEL_FORMATS = (*INTEGERS, *HALVES, *EIGHTHS)


def rounded(x: paddle.Tensor, kernel_format: str, axis: int, block: int | None) -> paddle.Tensor:
    """A float32 matrix whose elements are rounded to a format.

    Args:
        x: [rows, columns], float32.
        kernel_format: such as ``int8``, ``fp8_e4m3``; ``fp32`` changes nothing.
        axis: of the reduction; a scale is shared along it.
        block: elements along it that share a scale; None for all.
    """
    if kernel_format == "fp32":
        return x
    if kernel_format in HALVES:
        return x.astype(HALVES[kernel_format]).astype(paddle.float32)
    if block is None:
        return _scaled(x, kernel_format, axis)
    length = x.shape[axis]
    parts = [
        _scaled(part, kernel_format, axis) for part in x.split(_sections(length, block), axis=axis)
    ]
    return parts[0] if len(parts) == 1 else paddle.concat(parts, axis=axis)


def matmul(
    a: paddle.Tensor,
    b: paddle.Tensor,
    formats: tuple[str, str],
    block: int | None,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
) -> paddle.Tensor:
    """op(a) op(b) of matrices with both operands rounded along the reduction."""
    a = rounded(a, formats[0], 0 if transpose_a else 1, block)
    b = rounded(b, formats[1], 1 if transpose_b else 0, block)
    return paddle.matmul(a, b, transpose_x=transpose_a, transpose_y=transpose_b)


def _sections(length: int, block: int) -> list[int]:
    sections = [block] * (length // block)
    return sections + [length % block] if length % block else sections


def _scaled(x: paddle.Tensor, kernel_format: str, axis: int) -> paddle.Tensor:
    most = x.abs().max(axis=axis, keepdim=True)
    scale = paddle.where(most > 0, most / LARGEST[kernel_format], paddle.ones_like(most))
    y = x / scale
    codes = paddle.round(y) if kernel_format in INTEGERS else _eighths(y, kernel_format)
    return codes * scale


def _eighths(x: paddle.Tensor, kernel_format: str) -> paddle.Tensor:
    largest = LARGEST[kernel_format]
    y = x.clip(-largest, largest).astype(EIGHTHS[kernel_format]).astype(paddle.float32)
    return paddle.where(paddle.isnan(x), x, y)  # Paddle's cast to float8 makes 448 of a NaN
