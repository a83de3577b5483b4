"""Transforms before rounding: they leave the function as it is and make the weight easier to round."""

import dataclasses
from typing import ClassVar

import numpy as np

from ... import _checks
from .. import hadamard, hessian
from ..grids import check_bits, rows_of_group
from ..observers import AbsMax, Observer
from ..work import LayerWork
from .base import LayerModifier, Stage


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SmoothQuant(LayerModifier):
    """Moves the spread of the inputs into the weight, so that both can be rounded.

    x_j is divided by s_j = max|x_j|^strength / max_o|w_jo|^(1 - strength). Of use where inputs are
    rounded too (``activation_bits``).

    Args:
        strength: 0 evens out the rows of the weight, 1 the inputs.

    Source: 2211.10438.
    """

    kind: ClassVar[str] = "smoothquant"
    stage: ClassVar[Stage] = Stage.TRANSFORM
    needs_data: ClassVar[bool] = True
    strength: float = 0.5

    def __post_init__(self):
        LayerModifier.__post_init__(self)
        _checks.real("strength", self.strength, 0.0, 1.0)

    def apply(self, work: LayerWork) -> None:
        """See ``LayerModifier.apply``."""
        inputs = np.maximum(work.calibrated().max_abs, 1e-5)
        weights = np.maximum(np.abs(work.weight).max(1), 1e-5)
        factor = inputs**self.strength / weights ** (1 - self.strength)
        work.scale_inputs(1 / factor)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AWQ(LayerModifier):
    """Scales rows of the weight by the size of their inputs, as far as it lowers the output error.

    Searches s_j = mean|x_j|^a over a in [0, 1] for the least tr(E^T H E), where E is the error of
    rounding diag(s) W to nearest, seen through 1/s. a = 0 leaves the layer as it is.

    Args:
        bits, group, symmetric, observer: of the rounding that follows.
        steps: number of exponents tried.

    Source: 2306.00978.
    """

    kind: ClassVar[str] = "awq"
    stage: ClassVar[Stage] = Stage.TRANSFORM
    needs_data: ClassVar[bool] = True
    bits: int = 4
    group: int | None = None
    symmetric: bool = False
    observer: Observer = AbsMax()
    steps: int = 20

    def __post_init__(self):
        LayerModifier.__post_init__(self)
        check_bits("bits", self.bits)
        _checks.whole("steps", self.steps, 1)
        if self.group is not None:
            _checks.whole("group", self.group, 1)

    def apply(self, work: LayerWork) -> None:
        """See ``LayerModifier.apply``."""
        statistics = work.calibrated()
        group = rows_of_group(len(work.weight), self.group, work.name)
        size = np.maximum(statistics.mean_abs, 1e-4 * max(statistics.mean_abs.max(), 1e-30))
        best, chosen = np.inf, np.ones(len(size))
        for exponent in np.linspace(0, 1, self.steps + 1):
            factor = size**exponent
            factor = factor / np.sqrt(factor.max() * factor.min())
            scaled = work.weight * factor[:, None]
            grid = self.observer.grid(scaled, bits=self.bits, group=group, symmetric=self.symmetric)
            rounding = (grid.round(scaled) - scaled) / factor[:, None]
            error = hessian.error(rounding, statistics.second_moment)
            if error < best:
                best, chosen = error, factor
        if (chosen != 1).any():
            work.scale_inputs(1 / chosen)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hadamard(LayerModifier):
    """Rotates inputs by random signs and a Hadamard matrix, which spreads outliers over all rows.

    The rotation is made at run time, in in_features log(block) operations a row, and is exact for any
    layer; where it can be folded into neighbouring weights, ``RotateResidual`` does that.

    Args:
        block: size of the Hadamard matrices on the diagonal, a power of two that divides the inputs;
            None for the largest.
        seed: of the signs.

    Source: QuIP# 2402.04396, QuaRot 2404.00456.
    """

    kind: ClassVar[str] = "hadamard"
    stage: ClassVar[Stage] = Stage.TRANSFORM
    block: int | None = None
    seed: int = 0

    def __post_init__(self):
        LayerModifier.__post_init__(self)
        _checks.whole("seed", self.seed, 0)
        if self.block is not None and _checks.whole("block", self.block, 2) & (self.block - 1):
            raise ValueError(f"block must be a power of two, got {self.block}.")

    def apply(self, work: LayerWork) -> None:
        """See ``LayerModifier.apply``."""
        rows = len(work.weight)
        block = self.block or hadamard.largest_block(rows)
        if block < 2 or rows % block:
            raise ValueError(
                f"{work.name} has {rows} inputs, which no Hadamard block of {max(block, 2)} divides; "
                f"the largest is {hadamard.largest_block(rows)}. Ignore the layer."
            )
        work.rotate_inputs(hadamard.signs(rows, self.seed), block)
