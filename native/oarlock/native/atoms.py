"""Atoms and the edges between them: lists of neighbours, sums over edges, radial filters.

Arrays are NumPy's, Paddle's or anything with ``__dlpack__``; contiguous, on the CPU. Results are the
same bits for any number of threads. ``oarlock.native.paddle.atoms`` has the gradients.

>>> from oarlock.native import atoms
>>> found = atoms.neighbour_list(positions, cell, (True, True, False), cutoff=5.0)
>>> atoms.convolve(features, filters, first, second, out)
"""

from oarlock.native._atoms_edges import (
    activation,
    column_sums,
    convolve,
    gather,
    multiply,
    row_dots,
    scale_rows,
    scatter_sum,
)
from oarlock.native._atoms_neighbours import NeighbourList, edge_vectors, neighbour_list
from oarlock.native._atoms_radial import (
    Radial,
    radial_curvatures,
    radial_filters,
    radial_gradients,
)

__all__ = [
    "NeighbourList",
    "Radial",
    "activation",
    "column_sums",
    "convolve",
    "edge_vectors",
    "gather",
    "multiply",
    "neighbour_list",
    "radial_curvatures",
    "radial_filters",
    "radial_gradients",
    "row_dots",
    "scale_rows",
    "scatter_sum",
]
