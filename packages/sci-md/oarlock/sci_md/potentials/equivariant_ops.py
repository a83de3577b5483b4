"""Convolutions in the frames of edges and powers on a sphere: native on the CPU, else by Paddle's operators."""

from dataclasses import dataclass

import paddle
from paddle import Tensor

from oarlock.native import spherical
from oarlock.native.paddle import spherical as native
from oarlock.sci_md.graph import Graph
from oarlock.sci_md.potentials import equivariant_plain as plain

__all__ = ["Edges", "convolve", "edges", "powers", "sphere_points"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Edges:
    """The edges of a graph with their frames, native or plain."""

    graph: Graph
    frames: native.Edges | plain.Frames


def use_native(tensor: Tensor) -> bool:
    return paddle.in_dynamic_mode() and tensor.place.is_cpu_place()


def edges(graph: Graph, *, degree: int, cutoff: float) -> Edges:
    """Frames for convolutions whose results go to this degree."""
    if use_native(graph.vectors):
        frames = native.Edges(
            graph.vectors, graph.offsets, graph.neighbours, degree=degree, cutoff=cutoff
        )
        return Edges(graph=graph, frames=frames)
    return Edges(graph=graph, frames=plain.frames(graph.vectors, degree=degree, cutoff=cutoff))


def sphere_points(degree_in: int, degree_out: int, dtype: str) -> tuple[Tensor, Tensor]:
    """`oarlock.native.spherical.sphere_points` as tensors."""
    values, weights = spherical.sphere_points(degree_in, degree_out)
    return paddle.to_tensor(values.astype(dtype)), paddle.to_tensor(weights.astype(dtype))


def convolve(features: list[Tensor], table: Tensor, over: Edges) -> list[Tensor]:
    """Σ_j Dᵀ S(r_ij) D h_j, see `oarlock.native.spherical.convolve`.

    Args:
        features: for each degree l [N, 2l + 1, C].
        table: [intervals + 3, paths, C].
        over: the edges.
    """
    graph = over.graph
    if isinstance(over.frames, native.Edges):
        return native.convolve(features, table, graph.vectors, over.frames)
    return plain.convolve(
        features, table, over.frames, graph.centers, graph.neighbours, graph.atoms
    )


def powers(features: list[Tensor], values: Tensor, weights: Tensor) -> list[Tensor]:
    """Components of f² and f³, see `oarlock.native.spherical.powers`."""
    if use_native(features[0]):
        return native.powers(features, values, weights)
    return plain.powers(features, values, weights)
