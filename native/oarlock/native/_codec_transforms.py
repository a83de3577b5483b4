"""What codes are made of and from: numbers of few bits, orthogonal columns, cosine transforms."""

import numbers
from typing import Any

from oarlock.native._codec_arguments import flag, run, whole


def packed_size(count: int, width: int) -> int:
    """Bytes that ``pack_bits`` needs for ``count`` numbers."""
    return -(-whole("count", count) * _width(width) // 8)


def pack_bits(values: Any, out: Any, width: int, *, threads: int | None = None) -> None:
    """Put numbers of ``width`` bits side by side.

    Number i takes the bits from i * width on; bit b is bit b mod 8 of byte b // 8. Indices of chunks of
    4096 take 12 bits, for example.

    Args:
        values: uint16, below 2^width.
        out: uint8 [ceil(count * width / 8)], overwritten.
        width: 1 to 16.
        threads: number of threads, as in ``accumulate``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    run("pack_bits", {"values": values, "out": out}, threads=threads, bits=_width(width))


def unpack_bits(packed: Any, values: Any, width: int, *, threads: int | None = None) -> None:
    """The numbers that ``pack_bits`` packed.

    Args:
        packed: uint8 [ceil(count * width / 8)].
        values: uint16 [count], overwritten.
        width: the same.
        threads: number of threads, as in ``accumulate``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    run("unpack_bits", {"packed": packed, "values": values}, threads=threads, bits=_width(width))


def orthogonalise(matrix: Any, eps: float = 1e-6, *, threads: int | None = None) -> None:
    r"""Gram-Schmidt of the columns, in place: orthonormal, and the first j span what they spanned.

    Column j becomes its remainder orthogonal to those before it, divided by its norm. Computed from
    :math:`A^\top A = R^\top R` as :math:`A R^{-1}`, in float64 with sums in a fixed order; once more
    where remainders are small, so that the result is orthonormal to float32's precision.

    A column that is 0, or of which less than ``eps`` of its length is left, has no direction of its own.
    It is first replaced by numbers of a hash of row and column, the same on every rank. A column of
    zeros in its place would stay 0 in PowerSGD, where the next step starts from the product with it; in
    this way it finds its way back. NaN or Inf anywhere makes all of the matrix NaN.

    Args:
        matrix: float32 [rows, r], r <= 64 and r <= rows; updated in place.
        eps: from 1e-7 to 0.1.
        threads: number of threads, as in ``accumulate``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.

    Source: PowerSGD, 1905.13727.
    """
    if isinstance(eps, bool) or not isinstance(eps, numbers.Real) or not 1e-7 <= eps <= 0.1:
        raise ValueError(f"eps must be from 1e-7 to 0.1, not {eps!r}")
    run("orthogonalise", {"matrix": matrix}, threads=threads, eps=float(eps))


def dct(x: Any, out: Any, chunk: int, *, inverse: bool = False, threads: int | None = None) -> None:
    r"""The orthonormal DCT-II of each chunk, or its inverse (the DCT-III).

    .. math:: y_k = s_k \sum_i x_i \cos\frac{\pi (2 i + 1) k}{2 n}, \qquad
              s_0 = \sqrt{1 / n},\ s_k = \sqrt{2 / n}

    A last chunk that is shorter has the transform of its own size, so that the whole stays
    orthonormal. NaN or Inf reach all of their chunk. Sums are float32 in a fixed order.

    Args:
        x: float32.
        out: float32 of as many elements, overwritten; may be ``x``.
        chunk: n, from 8 to 256.
        inverse: from frequencies back.
        threads: number of threads, as in ``accumulate``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.

    Source: DeMo, 2411.19870.
    """
    options = {"block": whole("chunk", chunk), "inverse": flag("inverse", inverse)}
    run("dct", {"x": x, "out": out}, threads=threads, **options)


def _width(width: int) -> int:
    if not 1 <= whole("width", width) <= 16:
        raise ValueError(f"width must be from 1 to 16 bits, not {width!r}")
    return int(width)
