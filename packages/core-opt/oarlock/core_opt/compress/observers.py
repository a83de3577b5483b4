"""Observers choose the range of a grid from the weights that it shall hold."""

import dataclasses
from typing import ClassVar, Protocol

import numpy as np

from .. import _checks
from . import grids
from .grids import Grid
from .registry import Registered


class Observer(Protocol):
    """What a quantiser asks of an observer."""

    def grid(
        self,
        weight: np.ndarray,
        *,
        bits: int,
        group: int,
        symmetric: bool,
        importance: np.ndarray | None = None,
    ) -> Grid:
        """A grid for the weights.

        Args:
            weight: [rows, out].
            bits: of a code.
            group: rows that share a scale; divides rows.
            symmetric: whether the code of 0 is fixed.
            importance: [rows], weights of the squared errors of the rows; None for equal ones.
        """


class _Observer(Registered):
    family: ClassVar[str] = "observer"

    def _range(self, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest value to hold, [groups, out], of weights [groups, group, out]."""
        raise NotImplementedError

    def grid(self, weight, *, bits, group, symmetric, importance=None) -> Grid:
        """See ``Observer.grid``."""
        groups = weight.reshape(-1, group, weight.shape[1])
        low, high = self._range(groups)
        return grids.from_range(low, high, bits, symmetric, len(weight))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AbsMax(_Observer):
    """The whole range of the weights."""

    kind: ClassVar[str] = "absmax"

    def _range(self, groups):
        return groups.min(1), groups.max(1)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Percentile(_Observer):
    """The range without the outermost weights of each group.

    Args:
        keep: share of the weights inside, in (0, 1].
    """

    kind: ClassVar[str] = "percentile"
    keep: float = 0.999

    def __post_init__(self):
        _checks.real("keep", self.keep, 0.0, 1.0, open_low=True)

    def _range(self, groups):
        outside = (1 - self.keep) / 2
        low, high = np.quantile(groups, [outside, 1 - outside], axis=1)
        return low, high


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MSE(_Observer):
    """The range, narrowed by the one of several factors that leaves the least squared error.

    Args:
        steps: number of factors between ``smallest`` and 1.
        smallest: factor, in (0, 1).
    """

    kind: ClassVar[str] = "mse"
    steps: int = 24
    smallest: float = 0.4

    def __post_init__(self):
        _checks.whole("steps", self.steps, 2)
        _checks.real("smallest", self.smallest, 0.0, 1.0, open_low=True, open_high=True)

    def grid(self, weight, *, bits, group, symmetric, importance=None) -> Grid:
        """See ``Observer.grid``; the factor is chosen for each group and column."""
        groups = weight.reshape(-1, group, weight.shape[1])
        low, high = groups.min(1), groups.max(1)
        importance = np.ones(len(weight)) if importance is None else importance
        best = np.full(low.shape, np.inf)
        scale, zero = np.ones(low.shape, np.float32), np.zeros(low.shape, np.float32)
        for factor in np.linspace(1.0, self.smallest, self.steps):
            grid = grids.from_range(factor * low, factor * high, bits, symmetric, len(weight))
            errors = np.square(grid.round(weight) - weight) * importance[:, None]
            error = errors.reshape(groups.shape).sum(1)
            better = error < best
            best = np.where(better, error, best)
            scale, zero = np.where(better, grid.scale, scale), np.where(better, grid.zero, zero)
        return Grid(bits=bits, scale=scale, zero=zero, rows=len(weight))
