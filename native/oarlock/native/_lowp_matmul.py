"""The product of two matrices, rounded to a format while they are packed."""

import ctypes
from typing import Any

from oarlock.native import _lowp_abi
from oarlock.native import threads as _threads
from oarlock.native._lowp_arguments import activation_index, call, format_options, read


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
    a, b, out, *, format, transpose_a, transpose_b, block, bias, activation, rounding_seed, threads,
    base_instructions=False,
) -> None:
    """``matmul``; with ``base_instructions`` on what every processor of the code path has."""
    formats = (format, format) if isinstance(format, str) else format
    options = _lowp_abi.Matmul(
        format_options("format", formats[0], block, rounding_seed),
        format_options("format", formats[1], block, rounding_seed),
        bool(transpose_a),
        bool(transpose_b),
        activation_index(activation),
        bool(base_instructions),
    )
    lists = [read("a", a), None, read("b", b), None, read("bias", bias), read("out", out)]
    call("oarlock_lowp_matmul", lists, ctypes.byref(options), _threads.count(threads))
