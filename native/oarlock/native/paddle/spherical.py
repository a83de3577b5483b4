"""Convolutions in the frames of edges, and powers on a sphere, in Paddle's autograd; twice differentiable.

>>> from oarlock.native.paddle import spherical
>>> edges = spherical.Edges(vectors, offsets, neighbours, degree=2, cutoff=5.0)
>>> y = spherical.convolve(x, table, vectors, edges)

Eager and on the CPU. The gradients of a gradient are those by features, tables and vectors; what would
differentiate the gradient by a table once more is refused. Within `oarlock.native.paddle.atoms.without_weights`
tables get no gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import paddle
from paddle import Tensor

from oarlock.native import spherical
from oarlock.native.paddle._atoms_forms import Layer, apply_to, dense, empty
from oarlock.native.paddle._atoms_radial import _WITHOUT_WEIGHTS

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
        self.frame = empty([vectors.shape[0], spherical.frame_size(degree)], vectors)
        spherical.frames(dense(vectors.detach()), self.frame, threads=threads)


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
    return list(apply_to(_Convolve, (table, vectors, *x), edges))


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
    return list(apply_to(_Powers, x, _Points(values, weights, threads)))


@dataclass(frozen=True, slots=True, eq=False)
class _Points:
    values: Tensor
    weights: Tensor
    threads: int | None


def _features(like: Tensor, degree: int, factor: int = 1) -> list[Tensor]:
    rows, _, channels = like.shape
    return [empty([rows, 2 * ell + 1, factor * channels], like) for ell in range(degree + 1)]


def _given(grads: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
    """Contiguous, and zeros where there is none."""
    return [
        paddle.zeros_like(one) if grad is None else dense(grad)
        for grad, one in zip(grads, like, strict=True)
    ]


class _Convolve(Layer):
    @staticmethod
    def compute(tensors, edges):
        table, _, *x = (dense(one) for one in tensors)
        out = _features(x[0], edges.degree)
        spherical.convolve(
            x,
            table,
            edges.frame,
            edges.offsets,
            edges.neighbours,
            out,
            cutoff=edges.cutoff,
            threads=edges.threads,
        )
        return tuple(out)

    @staticmethod
    def gradients(tensors, wanted, grads, edges):
        x = tensors[2:]
        out_slope = _given(grads, _features(x[0], edges.degree))
        of_table = wanted[0] and not _WITHOUT_WEIGHTS.get()
        given = (*tensors, *out_slope)
        vector_slope, *slopes = apply_to(_ConvolveBackward, given, edges, len(x), of_table)
        table_slope = slopes.pop() if of_table else None
        found = [table_slope, vector_slope, *slopes]
        return [one if want else None for one, want in zip(found, wanted, strict=True)]


class _ConvolveBackward(Layer):
    """Gradients by the vectors, by x, and `of_table` by the table."""

    @staticmethod
    def compute(tensors, edges, degrees, of_table):
        table, vectors, *rest = (dense(one) for one in tensors)
        x, out_slope = rest[:degrees], rest[degrees:]
        x_slope, vector_slope = _features(x[0], degrees - 1), empty(vectors.shape, vectors)
        table_slope = empty(table.shape, table) if of_table else None
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
        return (vector_slope, *x_slope, *([table_slope] if of_table else []))

    @staticmethod
    def gradients(tensors, wanted, grads, edges, degrees, of_table):
        if of_table and grads[-1] is not None:
            raise ValueError(
                "the gradient by a table was differentiated: convolve has second derivatives by "
                "features and vectors, and none of the table's own"
            )
        table, vectors, *rest = (dense(one) for one in tensors)
        x, out_slope = rest[:degrees], rest[degrees:]
        moved_vectors, *moved = _given(grads[: 1 + degrees], [vectors, *x])
        out_tangent = _features(x[0], edges.degree)
        spherical.convolve_tangent(
            x,
            moved,
            table,
            edges.frame,
            moved_vectors,
            edges.offsets,
            edges.neighbours,
            out_tangent,
            cutoff=edges.cutoff,
            threads=edges.threads,
        )
        x_slope, vector_slope = _features(x[0], degrees - 1), empty(vectors.shape, vectors)
        wants_table = wanted[0] and not _WITHOUT_WEIGHTS.get()
        table_slope = empty(table.shape, table) if wants_table else None
        spherical.convolve_second(
            x,
            moved,
            table,
            edges.frame,
            moved_vectors,
            edges.offsets,
            edges.neighbours,
            out_slope,
            x_slope,
            vector_slope,
            table_slope,
            cutoff=edges.cutoff,
            threads=edges.threads,
        )
        found = [table_slope, vector_slope, *x_slope, *out_tangent]
        return [one if want else None for one, want in zip(found, wanted, strict=True)]


class _Powers(Layer):
    @staticmethod
    def compute(tensors, points):
        x = [dense(one) for one in tensors]
        out = _features(x[0], round(points.weights.shape[1] ** 0.5) - 1, 2)
        spherical.powers(x, points.values, points.weights, out, threads=points.threads)
        return tuple(out)

    @staticmethod
    def gradients(tensors, wanted, grads, points):
        x = list(tensors)
        shapes = _features(x[0], len(grads) - 1, 2)
        found = apply_to(_PowersBackward, (*x, *_given(grads, shapes)), points, len(x))
        return [one if want else None for one, want in zip(found, wanted, strict=True)]


class _PowersBackward(Layer):
    @staticmethod
    def compute(tensors, points, degrees):
        given = [dense(one) for one in tensors]
        x_slope = _features(given[0], degrees - 1)
        spherical.powers_backward(
            given[:degrees],
            points.values,
            points.weights,
            given[degrees:],
            x_slope,
            threads=points.threads,
        )
        return tuple(x_slope)

    @staticmethod
    def gradients(tensors, wanted, grads, points, degrees):
        given = [dense(one) for one in tensors]
        x, out_slope = given[:degrees], given[degrees:]
        out = _features(x[0], len(out_slope) - 1, 2)
        x_slope = _features(x[0], degrees - 1)
        spherical.powers_second(
            x,
            _given(grads, x),
            points.values,
            points.weights,
            out_slope,
            out,
            x_slope,
            threads=points.threads,
        )
        found = [*x_slope, *out]
        return [one if want else None for one, want in zip(found, wanted, strict=True)]
