"""Which of the visited structures are worth a label."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """Deviations of a committee's forces, in eV/Å, of the atom that is the least sure.

    Args:
        low: below it, the committee is sure and a label teaches little.
        high: from it on, the structure is likely to make no sense, and is not labelled.

    Source: Zhang et al., DP-GEN, 1910.12690.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise ValueError(f"low={self.low}, high={self.high}: 0 < low < high has to hold (eV/Å)")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Selection:
    """Args:
    chosen: indices of what is to be labelled, rising.
    accurate, candidates, failed: how many are below, in and above the band.
    """

    chosen: NDArray[np.int64]
    accurate: int
    candidates: int
    failed: int

    @property
    def visited(self) -> int:
        return self.accurate + self.candidates + self.failed


def select(
    deviations: Sequence[float] | NDArray[np.float64], band: Band, *, most: int, seed: int
) -> Selection:
    """Up to `most` structures from the band, drawn by seed if there are more.

    Deviations that are not finite count as failed.
    """
    if most < 1:
        raise ValueError(f"most={most} has to be at least 1")
    values = np.asarray(deviations, dtype=np.float64)
    accurate = values < band.low
    candidates = np.flatnonzero((values >= band.low) & (values < band.high))
    chosen = candidates
    if len(candidates) > most:
        chosen = np.random.default_rng(seed).choice(candidates, size=most, replace=False)
    return Selection(
        chosen=np.sort(chosen),
        accurate=int(accurate.sum()),
        candidates=len(candidates),
        failed=len(values) - int(accurate.sum()) - len(candidates),
    )
