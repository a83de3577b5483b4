"""Convolutions in the frames of edges, and powers on a sphere, in Paddle's autograd; twice differentiable.

>>> from oarlock.native.paddle import spherical
>>> edges = spherical.Edges(vectors, offsets, neighbours, degree=2, cutoff=5.0)
>>> y = spherical.convolve(x, table, vectors, edges)

Eager and on the CPU. The gradients of a gradient are those by features, tables and vectors; what would
differentiate the gradient by a table once more is refused.

`paddle.grad` by vectors alone has to be within `oarlock.native.paddle.atoms.without_weights`: Paddle 3.3
demands that a PyLayer gives None for inputs that lead to none of the tensors it was asked for, raises
otherwise, and does not tell which those are. (Tensors in a list escape the check, and then it crashed.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import paddle
from paddle import Tensor
from paddle.autograd import PyLayer

from oarlock.native import spherical
from oarlock.native.paddle._atoms_radial import _WITHOUT_DISTANCES, _WITHOUT_WEIGHTS

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
        self.cutoff, self.threads = cutoff, threads
        self.degree = degree
        self.frame = paddle.empty([vectors.shape[0], spherical.frame_size(degree)], vectors.dtype)
        spherical.frames(_contiguous(vectors.detach()), self.frame, threads=threads)


def convolve(
    x: Sequence[Tensor], table: Tensor, vectors: Tensor, edges: Edges, *, fixed: bool = False
) -> list[Tensor]:
    """`oarlock.native.spherical.convolve`, to the degree of the edges.

    Args:
        x: for each degree l [N, 2l + 1, C], C a multiple of 16.
        table: [intervals + 3, paths, C].
        vectors: [E, 3], those of `edges`: gradients go to them.
        fixed: x does not depend on vectors (it may on parameters).

    Returns:
        For each degree up to that of the edges [N, 2l + 1, C].

    Raises:
        ValueError: an argument is not as above.
    """
    return list(_Convolve.apply(edges, fixed, table, vectors, *x))


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
    def forward(ctx: Any, edges: Edges, fixed: bool, table, vectors, *x):  # type: ignore[override]
        ctx.edges, ctx.fixed, ctx.table_wanted = edges, fixed, not table.stop_gradient
        ctx.x_wanted = [not one.stop_gradient for one in x]
        table, features = _contiguous(table), [_contiguous(one) for one in x]
        out = _features(features[0], edges.degree)
        spherical.convolve(
            features,
            table,
            edges.frame,
            edges.offsets,
            edges.neighbours,
            out,
            cutoff=edges.cutoff,
            threads=edges.threads,
        )
        ctx.save_for_backward(table, vectors, *features)
        return tuple(out)

    @staticmethod
    def backward(ctx: Any, *out_slope):  # type: ignore[override]
        table, vectors, *x = ctx.saved_tensor()
        of_vectors = _WITHOUT_WEIGHTS.get()
        wanted = ctx.table_wanted and not of_vectors
        table_slope, vector_slope, *x_slope = _ConvolveBackward.apply(
            ctx.edges, ctx.fixed, wanted, len(x), table, vectors, *x, *out_slope
        )
        x_wanted = [one and not (of_vectors and ctx.fixed) for one in ctx.x_wanted]
        return (
            table_slope if wanted else None,
            None if vectors.stop_gradient or _WITHOUT_DISTANCES.get() else vector_slope,
            *(slope if one else None for slope, one in zip(x_slope, x_wanted, strict=True)),
        )


class _ConvolveBackward(PyLayer):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, edges: Edges, fixed: bool, table_wanted: bool, degrees: int, table, vectors, *rest
    ):
        ctx.edges, ctx.fixed, ctx.degrees = edges, fixed, degrees
        ctx.table_wanted = not table.stop_gradient
        ctx.wanted = [not one.stop_gradient for one in (vectors, *rest)]
        ctx.set_materialize_grads(False)
        own = [_contiguous(one) for one in rest]
        x, out_slope = own[:degrees], own[degrees:]
        x_slope = _features(x[0], degrees - 1)
        vector_slope = paddle.empty_like(vectors)
        table_slope = paddle.empty_like(table) if table_wanted else None
        spherical.convolve_backward(
            x,
            table,
            edges.frame,
            edges.offsets,
            edges.neighbours,
            out_slope,
            x_slope,
            vector_slope,
            table_slope,
            cutoff=edges.cutoff,
            threads=edges.threads,
        )
        ctx.save_for_backward(table, vectors, *own)
        if table_slope is None:
            table_slope = paddle.zeros([1], table.dtype)
        return (table_slope, vector_slope, *x_slope)

    @staticmethod
    def backward(ctx: Any, table_tangent, vector_tangent, *x_tangent):  # type: ignore[override]
        if table_tangent is not None:
            raise ValueError(
                "the gradient by a table was differentiated: convolve has second derivatives by "
                "features and vectors, and none of the table's own"
            )
        table, vectors, *rest = ctx.saved_tensor()
        x, out_slope = rest[: ctx.degrees], rest[ctx.degrees :]
        if vector_tangent is None:
            vector_tangent = paddle.zeros_like(vectors)
        moved = [
            paddle.zeros_like(one) if given is None else _contiguous(given)
            for one, given in zip(x, x_tangent, strict=True)
        ]
        edges: Edges = ctx.edges
        out_tangent = _features(x[0], len(out_slope) - 1)
        spherical.convolve_tangent(
            x,
            moved,
            table,
            edges.frame,
            _contiguous(vector_tangent),
            edges.offsets,
            edges.neighbours,
            out_tangent,
            cutoff=edges.cutoff,
            threads=edges.threads,
        )
        x_slope = _features(x[0], len(x) - 1)
        vector_slope = paddle.empty_like(vectors)
        of_vectors = _WITHOUT_WEIGHTS.get()
        wanted = ctx.table_wanted and not of_vectors
        table_slope = paddle.empty_like(table) if wanted else None
        spherical.convolve_second(
            x,
            moved,
            table,
            edges.frame,
            _contiguous(vector_tangent),
            edges.offsets,
            edges.neighbours,
            out_slope,
            x_slope,
            vector_slope,
            table_slope,
            cutoff=edges.cutoff,
            threads=edges.threads,
        )
        if _WITHOUT_DISTANCES.get():
            vector_slope = None
        slopes = [vector_slope, *x_slope, *out_tangent]
        fixed = range(1, 1 + len(x)) if of_vectors and ctx.fixed else range(0)
        kept = [
            slope if wanted and index not in fixed else None
            for index, (slope, wanted) in enumerate(zip(slopes, ctx.wanted, strict=True))
        ]
        return (table_slope, *kept)


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
