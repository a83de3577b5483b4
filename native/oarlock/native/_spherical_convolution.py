"""Convolutions in the frames of edges, and what autograd needs of them."""

import ctypes
from collections.abc import Sequence
from typing import Any

from oarlock.native._spherical_call import run


def paths(degree_in: int, degree_out: int) -> int:
    """How many weights a channel has: one for each |m|, degree out ≥ |m| and degree in ≥ |m|."""
    shared = min(degree_in, degree_out)
    return sum((degree_in + 1 - m) * (degree_out + 1 - m) for m in range(shared + 1))


def convolve(
    x: Sequence[Any],
    table: Any,
    frames: Any,
    offsets: Any,
    neighbours: Any,
    out: Sequence[Any],
    *,
    cutoff: float,
    threads: int | None = None,
) -> None:
    r"""Sum over the neighbours of each atom of their features, weighted in the frame of the edge.

    .. math:: y_i = \sum_j D_{ij}^\top S(r_{ij}) D_{ij} x_j, \quad
        (S x)_{l m c} = \sum_{l'} w_{|m| l l' c}(r)\, x_{l' m c}, \quad
        w(r) = \sum_k B_k(r)\, t_k

    :math:`B_k` are cubic B-splines with equal intervals from 0 to the cut-off. Rows of the table whose
    splines reach beyond the cut-off (the last three) should be zero: then all weights vanish there with
    two derivatives.

    Args:
        x: for each degree l up to 3 [N, 2l + 1, C], float32 or float64; C a multiple of 16.
        table: [intervals + 3, paths, C]; paths are counted by |m|, then degree out, then degree in.
        frames: [E, frame_size(degree out)], of `frames`.
        offsets: [N + 1] int64, the edges of each atom.
        neighbours: [E] int64, the atom at the end of each edge.
        out: for each degree [N, 2l + 1, C], overwritten; to a degree from that of x to 3.
        cutoff: Å; longer edges give nothing.
        threads: number of threads; None for Paddle's, or without Paddle the physical cores. It
            does not change the result.

    Raises:
        ValueError: an argument is not as above; nothing was changed.

    Source: eSCN, 2302.03655.
    """
    given = {"x": x, "table": table, "frames": frames, "offsets": offsets}
    given |= {"neighbours": neighbours, "out": out}
    run("turned_convolve", given, ctypes.c_double(cutoff), threads=threads)


def convolve_backward(
    x: Sequence[Any],
    table: Any,
    frames: Any,
    offsets: Any,
    neighbours: Any,
    out_slope: Sequence[Any],
    x_slope: Sequence[Any],
    vector_slope: Any,
    table_slope: Any = None,
    *,
    cutoff: float,
    threads: int | None = None,
) -> None:
    """Gradients of `convolve` by x, by the vectors of the edges, and by the table.

    Args:
        x, table, frames, offsets, neighbours, cutoff, threads: as in `convolve`.
        out_slope: gradient by the result.
        x_slope: like x, overwritten.
        vector_slope: [E, 3], overwritten.
        table_slope: like table, overwritten; None where it is not wanted.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    given = {"x": x, "table": table, "frames": frames, "offsets": offsets, "neighbours": neighbours}
    given |= {"out_slope": out_slope, "x_slope": x_slope, "vector_slope": vector_slope}
    given |= {"table_slope": table_slope}
    run("turned_convolve_backward", given, ctypes.c_double(cutoff), threads=threads)


def convolve_tangent(
    x: Sequence[Any],
    x_tangent: Sequence[Any],
    table: Any,
    frames: Any,
    vector_tangent: Any,
    offsets: Any,
    neighbours: Any,
    out: Sequence[Any],
    *,
    cutoff: float,
    threads: int | None = None,
) -> None:
    """How the result of `convolve` changes when x and the vectors do.

    Args:
        x, table, frames, offsets, neighbours, cutoff, threads: as in `convolve`.
        x_tangent: like x, the direction in which x changes.
        vector_tangent: [E, 3], that of the vectors.
        out: like the result, overwritten.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    given = {"x": x, "x_tangent": x_tangent, "table": table, "frames": frames}
    given |= {"vector_tangent": vector_tangent, "offsets": offsets, "neighbours": neighbours}
    run("turned_convolve_tangent", given | {"out": out}, ctypes.c_double(cutoff), threads=threads)


def convolve_second(
    x: Sequence[Any],
    x_tangent: Sequence[Any],
    table: Any,
    frames: Any,
    vector_tangent: Any,
    offsets: Any,
    neighbours: Any,
    out_slope: Sequence[Any],
    x_slope: Sequence[Any],
    vector_slope: Any,
    table_slope: Any = None,
    *,
    cutoff: float,
    threads: int | None = None,
) -> None:
    """Gradients of ``sum(out_slope * convolve_tangent(…))`` by x, the vectors and the table.

    Args:
        x, x_tangent, table, frames, vector_tangent, offsets, neighbours, cutoff, threads: as in
            `convolve_tangent`.
        out_slope, x_slope, vector_slope, table_slope: as in `convolve_backward`.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    given = {"x": x, "x_tangent": x_tangent, "table": table, "frames": frames}
    given |= {"vector_tangent": vector_tangent, "offsets": offsets, "neighbours": neighbours}
    given |= {"out_slope": out_slope, "x_slope": x_slope, "vector_slope": vector_slope}
    given |= {"table_slope": table_slope}
    run("turned_convolve_second", given, ctypes.c_double(cutoff), threads=threads)
