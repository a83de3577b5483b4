"""Convolutions in the frames of edges, and powers on a sphere, in Paddle's autograd; twice differentiable.

>>> from oarlock.native.paddle import spherical
>>> edges = spherical.Edges(vectors, offsets, neighbours, degree=2, cutoff=5.0)
>>> y = spherical.convolve(x, table, vectors, edges)

Eager and on the CPU. The gradients of a gradient are those by features, tables and vectors; what would
differentiate the gradient by a table once more is refused.

Paddle 3.3 demands that a PyLayer gives None for inputs that lead to none of the tensors that `paddle.grad`
was asked for, raises otherwise, and does not tell which those are; it lets layers of one input alone. So
what a convolution depends on is packed into one tensor. Within `oarlock.native.paddle.atoms.without_weights`
the gradient by the table is zero, and costs nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from paddle import Tensor
from paddle.autograd import PyLayer

from oarlock.native import spherical
from oarlock.native.paddle._atoms_radial import _WITHOUT_WEIGHTS
from oarlock.native.paddle.bridge import as_numpy

__all__ = ["Edges", "convolve", "powers"]


class Edges:
    """Edges of a graph and their frames, for all convolutions over it.

    Args:
        vectors: [E, 3], float32 or float64.
        offsets: [N + 1] int64, the edges of each atom.
        neighbours: [E] int64.
        degree: the highest of the convolutions' results, up to 3.
        cutoff: Å.
        threads: of the kernels; None for as many as Paddle's operators use.

    Raises:
        ValueError: an argument is not as above.
    """

    def __init__(
        self,
        vectors: Tensor,
        offsets: Tensor,
        neighbours: Tensor,
        *,
        degree: int,
        cutoff: float,
        threads: int | None = None,
    ) -> None:
        self.offsets, self.neighbours = offsets, neighbours
        self.options: dict[str, Any] = {"cutoff": cutoff, "threads": threads}
        self.degree = degree
        self.frame = paddle.empty([vectors.shape[0], spherical.frame_size(degree)], vectors.dtype)
        spherical.frames(_contiguous(vectors.detach()), self.frame, threads=threads)


def convolve(x: Sequence[Tensor], table: Tensor, vectors: Tensor, edges: Edges) -> list[Tensor]:
    """`oarlock.native.spherical.convolve`, to the degree of the edges.

    Args:
        x: for each degree l [N, 2l + 1, C], C a multiple of 16.
        table: [intervals + 3, paths, C].
        vectors: [E, 3], those of `edges`: gradients go to them.

    Returns:
        For each degree up to that of the edges [N, 2l + 1, C].

    Raises:
        ValueError: an argument is not as above.
    """
    given = (vectors, table, *x)
    if any(one.dtype != vectors.dtype for one in given):
        kinds = ", ".join(str(one.dtype) for one in given)
        raise ValueError(f"vectors, table and x must be of one dtype, not {kinds}: cast them")
    shapes = [tuple(one.shape) for one in given]
    return list(_Convolve.apply(_packed(given), _Convolution(edges, shapes)))


@dataclass(frozen=True, slots=True, eq=False)
class _Convolution:
    """What is no tensor with gradients. shapes: of vectors, table and x."""

    edges: Edges
    shapes: list[tuple[int, ...]]

    @property
    def lists(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.edges.frame, self.edges.offsets, self.edges.neighbours

    @property
    def out_shapes(self) -> list[tuple[int, ...]]:
        atoms, _, channels = self.shapes[2]
        return [(atoms, 2 * ell + 1, channels) for ell in range(self.edges.degree + 1)]

    @property
    def size(self) -> int:
        return sum(map(math.prod, self.shapes))


def _packed(tensors: Sequence[Tensor]) -> Tensor:
    return paddle.concat([one.reshape([-1]) for one in tensors])


def _unpacked(packed: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """Arrays over the memory of a tensor."""
    flat, parts, at = as_numpy(packed), [], 0
    for shape in shapes:
        size = math.prod(shape)
        parts.append(flat[at : at + size].reshape(shape))
        at += size
    return parts


def powers(
    x: Sequence[Tensor], values: Tensor, weights: Tensor, *, threads: int | None = None
) -> list[Tensor]:
    """`oarlock.native.spherical.powers`: squares and cubes, [N, 2l + 1, 2C] for each degree.

    Args:
        x: for each degree l [N, 2l + 1, C], C a multiple of 16.
        values, weights: of `oarlock.native.spherical.sphere_points`, in x's dtype.
        threads: of the kernels; None for as many as Paddle's operators use.

    Raises:
        ValueError: an argument is not as above.
    """
    return list(_Powers.apply(_Points(values, weights), threads, *x))


@dataclass(frozen=True, slots=True, eq=False)
class _Points:
    """Constants; Paddle would take tensors in a tuple for inputs that need gradients."""

    values: Tensor
    weights: Tensor


def _contiguous(x: Tensor) -> Tensor:
    return x if x.is_contiguous() else paddle.assign(x)  # contiguous() would change x itself


def _features(x: Tensor, degree: int, factor: int = 1) -> list[Tensor]:
    rows, _, channels = x.shape
    return [
        paddle.empty([rows, 2 * one + 1, factor * channels], x.dtype) for one in range(degree + 1)
    ]


class _Convolve(PyLayer):
    @staticmethod
    def forward(ctx: Any, packed, what: _Convolution):  # type: ignore[override]
        ctx.what = what
        ctx.save_for_backward(packed)
        _, table, *x = _unpacked(packed, what.shapes)
        out = [paddle.empty(shape, packed.dtype) for shape in what.out_shapes]
        spherical.convolve(x, table, *what.lists, out, **what.edges.options)
        return tuple(out)

    @staticmethod
    def backward(ctx: Any, *out_slope):  # type: ignore[override]
        (packed,) = ctx.saved_tensor()
        return _ConvolveBackward.apply(_packed((packed, *out_slope)), ctx.what)


class _ConvolveBackward(PyLayer):
    """The gradient by what was packed."""

    @staticmethod
    def forward(ctx: Any, both, what: _Convolution):  # type: ignore[override]
        ctx.what, ctx.table_wanted = what, not _WITHOUT_WEIGHTS.get()
        ctx.save_for_backward(both)
        _, table, *rest = _unpacked(both, [*what.shapes, *what.out_shapes])
        degrees = len(what.shapes) - 2
        slope = paddle.empty([what.size], both.dtype)
        by_vector, by_table, *by_x = _unpacked(slope, what.shapes)
        if not ctx.table_wanted:
            by_table.fill(0)
        spherical.convolve_backward(
            rest[:degrees],
            table,
            *what.lists,
            rest[degrees:],
            by_x,
            by_vector,
            by_table if ctx.table_wanted else None,
            **what.edges.options,
        )
        return slope

    @staticmethod
    def backward(ctx: Any, tangent):  # type: ignore[override]
        what, options = ctx.what, ctx.what.edges.options
        frame, offsets, neighbours = what.lists
        (both,) = ctx.saved_tensor()
        _, table, *rest = _unpacked(both, [*what.shapes, *what.out_shapes])
        degrees = len(what.shapes) - 2
        x, out_slope = rest[:degrees], rest[degrees:]
        moved_vectors, moved_table, *moved = _unpacked(_contiguous(tangent), what.shapes)
        if ctx.table_wanted and moved_table.any():
            raise ValueError(
                "the gradient by a table was differentiated: convolve has second derivatives by "
                "features and vectors, and none of the table's own"
            )
        slope = paddle.empty(both.shape, both.dtype)
        by_vector, by_table, *by_rest = _unpacked(slope, [*what.shapes, *what.out_shapes])
        given = (x, moved, table, frame, moved_vectors, offsets, neighbours)
        spherical.convolve_tangent(*given, by_rest[degrees:], **options)
        table_wanted = not _WITHOUT_WEIGHTS.get()
        if not table_wanted:
            by_table.fill(0)
        by_x = by_rest[:degrees]
        of_table = by_table if table_wanted else None
        spherical.convolve_second(*given, out_slope, by_x, by_vector, of_table, **options)
        return slope


class _Powers(PyLayer):
    @staticmethod
    def forward(ctx: Any, points: _Points, threads, *x):  # type: ignore[override]
        features = [_contiguous(one) for one in x]
        out = _features(features[0], round(points.weights.shape[1] ** 0.5) - 1, 2)
        spherical.powers(features, points.values, points.weights, out, threads=threads)
        ctx.points, ctx.threads = points, threads
        ctx.save_for_backward(*features)
        return tuple(out)

    @staticmethod
    def backward(ctx: Any, *out_slope):  # type: ignore[override]
        x = ctx.saved_tensor()
        return _PowersBackward.apply(ctx.points, ctx.threads, len(x), *x, *out_slope)


class _PowersBackward(PyLayer):
    @staticmethod
    def forward(ctx: Any, points: _Points, threads, degrees: int, *rest):  # type: ignore[override]
        own = [_contiguous(one) for one in rest]
        x, out_slope = own[:degrees], own[degrees:]
        x_slope = _features(x[0], degrees - 1)
        spherical.powers_backward(
            x, points.values, points.weights, out_slope, x_slope, threads=threads
        )
        ctx.points, ctx.threads, ctx.degrees = points, threads, degrees
        ctx.save_for_backward(*own)
        return tuple(x_slope)

    @staticmethod
    def backward(ctx: Any, *x_tangent):  # type: ignore[override]
        rest = ctx.saved_tensor()
        x, out_slope = rest[: ctx.degrees], rest[ctx.degrees :]
        out = _features(x[0], len(out_slope) - 1, 2)
        x_slope = _features(x[0], len(x) - 1)
        spherical.powers_second(
            x,
            [_contiguous(one) for one in x_tangent],
            ctx.points.values,
            ctx.points.weights,
            out_slope,
            out,
            x_slope,
            threads=ctx.threads,
        )
        return (*x_slope, *out)
