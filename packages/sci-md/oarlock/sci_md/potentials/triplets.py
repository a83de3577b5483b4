"""Pairs of edges that meet: k → j → i, the messages that messages are made of."""

from dataclasses import dataclass

import paddle
from paddle import Tensor

from oarlock.sci_md.graph import Graph
from oarlock.sci_md.ops import gather

#: Å; an edge and another one back are the same pair of atoms if their vectors cancel this well.
SAME = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Triplets:
    """An edge i → j (centre i, neighbour j) and each edge j → k that does not lead back to i.

    Args:
        outer: [T] int64, rising, the edge i → j.
        inner: [T] int64, the edge j → k.
    """

    outer: Tensor
    inner: Tensor


def find_triplets(graph: Graph) -> Triplets:
    """All of them: as many as the sum over edges of the neighbours' numbers of neighbours.

    The image of i that an edge leads back to is i itself; its other images are atoms like any other.
    """
    with paddle.no_grad():
        starts = gather(graph.offsets, graph.neighbours)
        counts = gather(graph.offsets, graph.neighbours + 1) - starts  # [E]
        edges = paddle.arange(graph.edges, dtype="int64")
        outer = paddle.repeat_interleave(edges, counts)
        before = paddle.cumsum(counts) - counts
        place = paddle.arange(paddle.shape(outer)[0], dtype="int64")
        inner = place + gather(starts - before, outer)
        vectors = graph.vectors.detach()
        back = gather(graph.neighbours, inner) == gather(graph.centers, outer)
        gaps = paddle.square(gather(vectors, outer) + gather(vectors, inner)).sum(axis=-1)
        keep = paddle.nonzero(paddle.logical_not(back & (gaps < SAME**2))).flatten()
        return Triplets(outer=gather(outer, keep), inner=gather(inner, keep))


def next_around(graph: Graph, triplets: Triplets, directions: Tensor) -> Tensor:
    """For each triplet, the edge j → n that follows j → k when turning around j → i.

    Which is the neighbour with the smallest torsion in (0, 2π]; alone, an edge follows itself.

    Args:
        directions: [E, 3], unit vectors of the edges.

    Returns:
        [T] int64, edges.
    """
    with paddle.no_grad():
        axis = -gather(directions.detach(), triplets.outer).astype("float64")  # from j to i
        along = gather(directions.detach(), triplets.inner).astype("float64")
        # Any two directions across the axis that are the same for all triplets of an edge.
        helper = paddle.nn.functional.one_hot(axis.abs().argmin(axis=-1), 3).astype("float64")
        first = _cross(axis, helper)
        second = _cross(axis, first)
        size = paddle.sqrt(paddle.square(first).sum(axis=-1))  # of both
        angle = paddle.atan2(
            (along * second).sum(axis=-1) / size, (along * first).sum(axis=-1) / size
        )
        # Sorted by edge, then by angle.
        order = paddle.argsort(triplets.outer.astype("float64") * 8.0 + angle)
        count = paddle.shape(order)[0]
        place = paddle.arange(count, dtype="int64")
        groups = gather(triplets.outer, order)  # the same as triplets.outer: those are sorted
        first_of = paddle.searchsorted(groups, groups)
        last = paddle.searchsorted(groups, groups, right=True) == place + 1
        following = gather(order, paddle.where(last, first_of, place + 1))
        return gather(triplets.inner, paddle.scatter(paddle.zeros_like(order), order, following))


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """Of rows, [T, 3]. (Paddle's own has no second derivative, nor have its stack and unbind.)"""
    ax, ay, az = paddle.split(a, 3, axis=-1)
    bx, by, bz = paddle.split(b, 3, axis=-1)
    return paddle.concat([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


def turning(axis: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """axis · (a × b), [T, 3] each → [T]: positive where b follows a around the axis."""
    return (axis * _cross(a, b)).sum(axis=-1)
