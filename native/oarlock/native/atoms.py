"""Atoms and the edges between them: lists of neighbours.

Arrays are NumPy's, Paddle's or anything with ``__dlpack__``; contiguous, on the CPU. Results are the
same bits for any number of threads.

>>> from oarlock.native import atoms
>>> found = atoms.neighbour_list(positions, cell, (True, True, False), cutoff=5.0)
"""

from oarlock.native._atoms_neighbours import NeighbourList, neighbour_list

__all__ = ["NeighbourList", "neighbour_list"]
