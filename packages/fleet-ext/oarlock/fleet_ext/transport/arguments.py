"""What operations of a group are given: views of it, where it is what it should be."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from oarlock.fleet_ext.transport import reductions
from oarlock.fleet_ext.transport.arrays import view_of


def rank_of(rank: int, size: int, argument: str) -> int:
    """
    Raises:
        ValueError: it is none of a group of that size.
    """
    if not 0 <= rank < size:
        raise ValueError(f"{argument} must be between 0 and {size - 1}, not {rank}")
    return rank


def seconds_of(timeout: float | None, usual: float) -> float:
    """
    Raises:
        ValueError: they are not more than 0.
    """
    seconds = usual if timeout is None else timeout
    if not seconds > 0:
        raise ValueError(f"timeout must be more than 0 seconds, not {seconds}")
    return seconds


def summand_of(array: Any, op: str) -> np.ndarray:
    """What is reduced.

    Raises:
        ValueError: it is no array, or has no such reduction.
    """
    view = view_of(array)
    reductions.check(op, view.dtype)
    return view


def rows_of(array: Any, size: int, argument: str = "array") -> np.ndarray:
    """[size, ...].

    Raises:
        ValueError: it has not as many rows.
    """
    view = view_of(array, argument)
    if view.ndim == 0 or view.shape[0] != size:
        raise ValueError(
            f"{argument} must have {size} rows, one for each rank, not shape {view.shape}"
        )
    return view


def exchanged(
    parts: Sequence[Any], out: Sequence[Any], rank: int, size: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What `all_to_all` sends to each rank, and where it takes what comes from each.

    Raises:
        ValueError: there is not one array for each rank, or this rank's own two differ.
    """
    for name, given in (("parts", parts), ("out", out)):
        if len(given) != size:
            raise ValueError(f"{name} must have {size} arrays, one for each rank, not {len(given)}")
    sources = [view_of(one, f"parts[{index}]") for index, one in enumerate(parts)]
    targets = [view_of(one, f"out[{index}]") for index, one in enumerate(out)]
    mine, kept = sources[rank], targets[rank]
    if (mine.shape, mine.dtype) != (kept.shape, kept.dtype):
        raise ValueError(
            f"out[{rank}] must be like parts[{rank}], {mine.dtype} {mine.shape}, not {kept.dtype} {kept.shape}"
        )
    return sources, targets


def scattered(
    parts: Any | None, out: Any, rank: int, root: int, size: int
) -> tuple[np.ndarray | None, np.ndarray]:
    """The rows that the root sends, None elsewhere; and where each rank's comes.

    Raises:
        ValueError: the root has not a row for each rank like what it comes into.
    """
    target = view_of(out, "out")
    if rank != rank_of(root, size, "root"):
        return None, target
    if parts is None:
        raise ValueError("parts must be given at the root")
    rows = rows_of(parts, size, "parts")
    if rows.shape[1:] != target.shape or rows.dtype != target.dtype:
        raise ValueError(
            f"out must be {rows.dtype} {rows.shape[1:]}, not {target.dtype} {target.shape}"
        )
    return rows, target
