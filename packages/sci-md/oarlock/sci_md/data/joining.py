"""Graphs put together: what `to_graph` gives of several structures, from the graphs of each."""

from collections.abc import Callable, Sequence

import numpy as np
import paddle
from paddle import Tensor

from oarlock.sci_md.graph import Graph, Pairs


@paddle.no_grad()
def join_graphs(graphs: Sequence[Graph]) -> Graph:
    """One graph, atoms and edges one after the other. No part may have ghosts (structures of -1)."""
    atoms = _starts([one.atoms for one in graphs])
    edges = _starts([one.edges for one in graphs])
    counts = _starts([one.count for one in graphs])

    def joined(field: Callable[[Graph], Tensor], starts: list[int] | None = None) -> Tensor:
        parts = [field(one) for one in graphs]
        if starts is not None:
            parts = [
                part + start if start else part for part, start in zip(parts, starts, strict=True)
            ]
        return paddle.concat(parts)

    last = paddle.to_tensor([edges[-1] + graphs[-1].edges], dtype="int64")
    whole = all(one.edge_structures is not None for one in graphs)
    return Graph(
        species=joined(lambda one: one.species),
        centers=joined(lambda one: one.centers, atoms),
        neighbours=joined(lambda one: one.neighbours, atoms),
        offsets=paddle.concat([joined(lambda one: one.offsets[:-1], edges), last]),
        vectors=joined(lambda one: one.vectors),
        structures=joined(lambda one: one.structures, counts),
        count=counts[-1] + graphs[-1].count,
        paired=_pairs(graphs, atoms, edges),
        edge_structures=joined(lambda one: one.edge_structures, counts) if whole else None,  # type: ignore[arg-type, return-value]
    )


def _pairs(graphs: Sequence[Graph], atoms: list[int], edges: list[int]) -> Pairs | None:
    """None unless all edges of all parts lead there and back."""
    parts = [one.paired for one in graphs if one.paired is not None]
    whole = all(one.edges is not None and one.both == one.first.shape[0] for one in parts)
    if len(parts) < len(graphs) or not whole:
        return None

    def joined(tensors: list[Tensor], starts: list[int]) -> Tensor:
        return paddle.concat(
            [t + start if start else t for t, start in zip(tensors, starts, strict=True)]
        )

    return Pairs(
        first=joined([one.first for one in parts], atoms),
        second=joined([one.second for one in parts], atoms),
        both=sum(one.both for one in parts),
        edges=joined([one.edges for one in parts if one.edges is not None], edges),
    )


def _starts(sizes: Sequence[int]) -> list[int]:
    return [int(start) for start in np.cumsum([0, *sizes[:-1]])]
