"""Lists of neighbours."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oarlock.native import _library
from oarlock.native import threads as _threads
from oarlock.native._atoms_arguments import Call

_FIND = Call("pairs_find", "positions cell periodic")
_HALF = Call("pairs_half", "offsets neighbours shifts")
_VECTORS = Call("edge_vectors", "positions offsets neighbours shifts vectors squares")
_FULL = Call("pairs_full", "offsets neighbours shifts reverse")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class NeighbourList:
    """The neighbours of each atom as compressed rows.

    Args:
        offsets: [N + 1] int64: the edges of atom i are ``offsets[i]`` to ``offsets[i + 1]``.
        neighbours: [E] int32, at which atom each edge ends.
        shifts: [E, 3] int32: the vector of an edge is ``positions[j] - positions[i] + shift @ cell``.
        reverse: [E] int32, the edge that leads back; empty in a list that has each pair once.
    """

    offsets: np.ndarray
    neighbours: np.ndarray
    shifts: np.ndarray
    reverse: np.ndarray


def neighbour_list(
    positions: Any,
    cell: Any,
    periodic: Sequence[bool],
    *,
    cutoff: float,
    half: bool = False,
    threads: int | None = None,
) -> NeighbourList:
    """All pairs of atoms that are closer than the cut-off, images included.

    The box may be of any shape and smaller than the cut-off; atoms may lie outside of it. Atoms that
    are exactly the cut-off apart are no neighbours. An atom is a neighbour of its own images.

    Args:
        positions: [N, 3] float64.
        cell: [3, 3] float64, the rows are the lattice vectors; those of directions that do not repeat
            are not looked at.
        periodic: which of the three directions repeat.
        cutoff: a length in the unit of the positions.
        half: each pair once, from one of its atoms; else from both.
        threads: number of threads; None for Paddle's, or without Paddle the physical cores. It does
            not change the result.

    Raises:
        ValueError: an argument is not as above, lattice vectors of directions that repeat are not
            independent, or there are 2^30 pairs or more.
    """
    team = _threads.count(threads)
    if not isinstance(half, bool):
        raise ValueError(f"half must be True or False, not {half!r}")
    repeats = np.array(periodic, dtype=bool).astype(np.int32)
    if repeats.shape != (3,):
        raise ValueError(f"periodic must be three times True or False, not {periodic!r}")
    handle, pairs = ctypes.c_void_p(), ctypes.c_int64()
    rest = (ctypes.c_double(cutoff), team, ctypes.byref(handle), ctypes.byref(pairs))
    _FIND([positions, cell, repeats], *rest)
    try:
        edges = pairs.value if half else 2 * pairs.value
        found = NeighbourList(
            offsets=np.empty(len(positions) + 1, np.int64),
            neighbours=np.empty(edges, np.int32),
            shifts=np.empty((edges, 3), np.int32),
            reverse=np.empty(0 if half else edges, np.int32),
        )
        out = [found.offsets, found.neighbours, found.shifts]
        if half:
            _HALF(out, before=(handle,))
        else:
            _FULL([*out, found.reverse], before=(handle,))
    finally:
        _library.load().functions.oarlock_atoms_pairs_destroy(handle)
    return found


def edge_vectors(
    positions: Any, offsets: Any, neighbours: Any, shifts: Any = None, *, threads: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The vector of each edge, from its row's atom to the neighbour, and the square of its length.

    Args:
        positions: [N, 3] float64.
        offsets: [rows + 1] int64, rows <= N: the edges of atom i are ``offsets[i]`` to ``offsets[i + 1]``.
        neighbours: [E] int32.
        shifts: [E, 3] float64, lengths that are added; None for nothing.
        threads: as in ``neighbour_list``.

    Returns:
        [E, 3] and [E], float64. The vector of the edge that leads back is minus this one, to the bit.

    Raises:
        ValueError: an argument is not as above.
    """
    team = _threads.count(threads)
    vectors, squares = np.empty((len(neighbours), 3)), np.empty(len(neighbours))
    _VECTORS([positions, offsets, neighbours, shifts, vectors, squares], team)
    return vectors, squares
