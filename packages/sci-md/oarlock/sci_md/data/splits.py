"""Which structures are for training, validation and test."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def split(
    count: int, parts: Mapping[str, float | int | Sequence[int]], *, seed: int = 0
) -> dict[str, Indices]:
    """Disjoint parts of ``range(count)``, and what is left under "train".

    Args:
        parts: of each part, a fraction of all (a float below 1), a count (an integer) or its indices.
            Fractions are rounded, at least one structure each.
        seed: of the permutation that fractions and counts are drawn from.

    Raises:
        ValueError: more than there are, indices that repeat or are outside, or nothing left.
    """
    if "train" in parts:
        raise ValueError("parts: 'train' is what the other parts leave; do not name it")
    given: dict[str, Indices] = {}
    free = np.ones(count, dtype=bool)
    for name, part in parts.items():
        if isinstance(part, int | float):
            continue
        chosen = np.asarray(part, dtype=np.int64)
        if chosen.size and not 0 <= chosen.min() <= chosen.max() < count:
            raise ValueError(f"parts: {name} has indices outside 0…{count - 1}")
        if len(np.unique(chosen)) < len(chosen) or not free[chosen].all():
            raise ValueError(f"parts: indices of {name} repeat, or are in another part too")
        free[chosen] = False
        given[name] = chosen
    order = np.random.default_rng(seed).permutation(np.flatnonzero(free))
    start = 0
    for name, part in parts.items():
        if isinstance(part, int | float):
            size = _size(name, part, count)
            if start + size > len(order):
                raise ValueError(
                    f"parts: {name} needs {size} structures, {len(order) - start} left"
                )
            given[name] = np.sort(order[start : start + size])
            start += size
    rest = np.sort(order[start:])
    if not len(rest):
        raise ValueError(f"parts: nothing of {count} structures is left for training")
    return {"train": rest, **{name: given[name] for name in parts}}


def _size(name: str, part: float | int, count: int) -> int:
    if isinstance(part, bool) or part < 0 or (isinstance(part, float) and not part < 1.0):
        raise ValueError(
            f"parts: {name}={part} has to be a fraction below 1 (0.1), a count (100) or indices"
        )
    if isinstance(part, int):
        return part
    return max(1, round(part * count)) if part > 0 else 0
