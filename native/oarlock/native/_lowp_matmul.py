"""The product of two matrices, rounded to a format while they are packed."""

import ctypes
from typing import Any

from oarlock.native import _lowp_abi
from oarlock.native import threads as _threads
from oarlock.native._lowp_arguments import activation_index, format_options, read
from oarlock.native._lowp_codes import Quantized
from oarlock.native._optim_arguments import run as _call


def matmul(
    a: Any,
    b: Any,
    out: Any,
    *,
    format: str | tuple[str, str],
    transpose_a: bool = False,
    transpose_b: bool = False,
    block: int | None = None,
    bias: Any = None,
    activation: str | None = None,
    rounding_seed: int | None = None,
    threads: int | None = None,
) -> None:
    r"""The product of two matrices in low precision, with bias and activation.

    .. math::
        \mathrm{out}_{mn} = \mathrm{act}\Big(\sum_B s^a_{Bm} s^b_{Bn}
        \sum_{k \in B} \mathrm{round}(a_{mk} / s^a_{Bm})\, \mathrm{round}(b_{kn} / s^b_{Bn})
        + \beta_n\Big)

    with :math:`a, b` as after their transposition, and scales as in ``quantize``; all but the inner
    sum in float32, blocks in their order. Formats without scales have :math:`s = 1`.

    Args:
        a: [M, K], or [K, M] with ``transpose_a``; float32 or bfloat16, contiguous. Or what
            ``quantize`` made of it, along the axis of K.
        b: [K, N], or [N, K] with ``transpose_b``; likewise.
        out: [M, N], float32 or bfloat16, other memory; written.
        format: of both operands, or the formats of a and of b, which then must both be floating
            and both scaled, for example ``("fp8_e5m2", "fp8_e4m3")``.
        block: elements along K that share a scale, a multiple of 32; None for all. Blocks fit
            outliers better, and spare a pass over memory where K is not contiguous.
        bias: :math:`\beta`, float32 [N], or None.
        activation: None, ``"relu"``, ``"gelu"`` (the exact one, by erf) or ``"silu"``.
        rounding_seed: rounds operands at random, as ``quantize`` does; codes stay as they are.
        threads: number of threads; None for Paddle's, or without Paddle the physical cores. It
            does not change the result.

    Raises:
        ValueError: an argument is not as above.

    Source: Xi et al., Jetfire, 2403.12422; Micikevicius et al., FP8, 2209.05433; Das et al., int16
        with chunks of float32, 1802.00930.
    """
    run(
        a,
        b,
        out,
        format=format,
        transpose_a=transpose_a,
        transpose_b=transpose_b,
        block=block,
        bias=bias,
        activation=activation,
        rounding_seed=rounding_seed,
        threads=threads,
    )


def run(
    a: Any,
    b: Any,
    out: Any,
    *,
    format: str | tuple[str, str],
    transpose_a: bool = False,
    transpose_b: bool = False,
    block: int | None = None,
    bias: Any = None,
    activation: str | None = None,
    rounding_seed: int | None = None,
    threads: int | None = None,
    base_instructions: bool = False,
) -> None:
    """``matmul``; with ``base_instructions`` on what every processor of the code path has."""
    formats = (format, format) if isinstance(format, str) else format
    if not isinstance(formats, tuple) or len(formats) != 2:
        raise ValueError(f"format must be a format or a pair of them, not {format!r}")
    lists: list[Any] = []
    options: list[Any] = []
    for name, x, one, axis in (
        ("a", a, formats[0], 0 if transpose_a else 1),
        ("b", b, formats[1], 1 if transpose_b else 0),
    ):
        if isinstance(x, Quantized):
            _check_quantized(name, x, one, axis, block)
            lists += [read(name, x.codes), read(f"{name}.scales", x.scales)]
        else:
            lists += [read(name, x), None]
        options.append(
            format_options("format", one, block, rounding_seed, isinstance(x, Quantized))
        )
    _call(
        "oarlock_lowp_matmul",
        [*lists, read("bias", bias), read("out", out)],
        ctypes.byref(
            _lowp_abi.Matmul(
                *options,
                bool(transpose_a),
                bool(transpose_b),
                activation_index(activation),
                bool(base_instructions),
            )
        ),
        _threads.count(threads),
    )


def _check_quantized(name: str, x: Quantized, format: str, axis: int, block: int | None) -> None:
    if x.format != format:
        raise ValueError(f"{name} was quantised to {x.format}, but format is {format!r}")
    if x.axis != axis:
        raise ValueError(
            f"{name} was quantised along axis {x.axis}, but this product sums along its axis "
            f"{axis}; quantise it with axis={axis}, or change transpose_{name}"
        )
    if x.block != block:
        raise ValueError(f"{name} was quantised with block={x.block}, but block is {block}")
