"""Rounding to a grid: to nearest, or with the errors made up for (GPTQ)."""

import dataclasses
import fnmatch
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np

from ... import _checks
from .. import hessian
from ..grids import Grid, check_bits, rows_of_group
from ..observers import AbsMax, Observer
from ..registry import frozen
from ..work import LayerWork
from .base import LayerModifier, Stage


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rounding(LayerModifier):
    """What quantisers of weights share.

    Args:
        bits: of a weight, 2 to 8.
        group: inputs that share a scale for each output; None for all.
        symmetric: whether grids are symmetric about 0; asymmetric ones keep a zero for each scale.
        observer: chooses the ranges.
        layer_bits: bits by name or pattern, in place of ``bits``: what ``allocate`` gives. The last
            pattern that matches wins.
        activation_bits: round the inputs to so many bits at run time, each row by itself; None not.
    """

    stage: ClassVar[Stage] = Stage.ROUND
    bits: int = 4
    group: int | None = None
    symmetric: bool = False
    observer: Observer = AbsMax()
    layer_bits: Mapping[str, int] = dataclasses.field(default_factory=lambda: frozen(None))
    activation_bits: int | None = None

    def __post_init__(self):
        LayerModifier.__post_init__(self)
        check_bits("bits", self.bits)
        _checks.flag("symmetric", self.symmetric)
        if self.group is not None:
            _checks.whole("group", self.group, 1)
        if self.activation_bits is not None:
            check_bits("activation_bits", self.activation_bits)
        if not isinstance(self.layer_bits, Mapping):
            raise ValueError(
                f"layer_bits must map patterns to bits, got {_checks.shown(self.layer_bits)}."
            )
        for pattern, bits in self.layer_bits.items():
            check_bits(f"layer_bits[{pattern!r}]", bits)
        object.__setattr__(self, "layer_bits", frozen(self.layer_bits))
        if not hasattr(self.observer, "grid"):
            raise ValueError(f"observer must be an observer, got {_checks.shown(self.observer)}.")

    def bits_of(self, name: str) -> int:
        """Bits of the weights of a layer."""
        fitting = [
            bits
            for pattern, bits in self.layer_bits.items()
            if pattern == name or fnmatch.fnmatchcase(name, pattern)
        ]
        return fitting[-1] if fitting else self.bits

    def _grids(self, work: LayerWork) -> "tuple[Callable[[np.ndarray], Grid], int]":
        group = rows_of_group(len(work.weight), self.group, work.name)
        bits = self.bits_of(work.name)

        def grid(weight: np.ndarray) -> Grid:
            return self.observer.grid(weight, bits=bits, group=group, symmetric=self.symmetric)

        return grid, group

    def _finish(self, work: LayerWork, codes: np.ndarray, grid: Grid) -> None:
        if work.grid is not None:
            raise ValueError(
                f"{work.name} is rounded by two modifiers; keep their targets apart by ignore."
            )
        work.codes, work.grid, work.symmetric = codes, grid, self.symmetric
        work.activation_bits = self.activation_bits


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RTN(Rounding):
    """Each weight goes to the nearest value of its grid; needs no data."""

    kind: ClassVar[str] = "rtn"

    def apply(self, work: LayerWork) -> None:
        """See ``LayerModifier.apply``."""
        make, _ = self._grids(work)
        weight = work.weight if work.mask is None else work.weight * work.mask
        grid = make(weight)
        self._finish(work, grid.codes(weight), grid)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GPTQ(Rounding):
    """Rounds one input after the other and lets the following ones make up for its error.

    For the squared error of the outputs, tr(E^T H E) with H = E[x x^T]. An error e in the weights of
    input i changes those of input j > i by -e U_ij / U_ii, with H^-1 = U^T U.

    Args:
        damping: multiple of the mean diagonal that is added to H; ten times as much after each
            Cholesky failure, with a line in the log.
        act_order: round inputs of large second moment first. Scales are then those of the weights
            as they came, so that groups stay neighbours.
        block: inputs between two updates of all that follow; for speed only.

    Source: 2210.17323.
    """

    kind: ClassVar[str] = "gptq"
    needs_data: ClassVar[bool] = True
    damping: float = 0.01
    act_order: bool = False
    block: int = 128

    def __post_init__(self):
        Rounding.__post_init__(self)
        _checks.non_negative("damping", self.damping)
        _checks.flag("act_order", self.act_order)
        _checks.whole("block", self.block, 1)

    def apply(self, work: LayerWork) -> None:
        """See ``LayerModifier.apply``."""
        make, group = self._grids(work)
        moment, work.damping = hessian.damped(
            work.calibrated().second_moment, self.damping, work.name
        )
        codes, grid = gptq(
            work.weight,
            moment,
            make,
            group=group,
            act_order=self.act_order,
            block=self.block,
            mask=work.mask,
        )
        self._finish(work, codes, grid)


def gptq(
    weight: np.ndarray,
    moment: np.ndarray,
    make_grid: Callable[[np.ndarray], Grid],
    *,
    group: int,
    act_order: bool = False,
    block: int = 128,
    mask: np.ndarray | None = None,
) -> tuple[np.ndarray, Grid]:
    """Codes and grid of a matrix.

    Args:
        weight: [in, out].
        moment: damped E[x x^T], positive definite.
        make_grid: grid of a matrix whose rows are whole groups.
        group: rows that share a scale.
        act_order, block: see ``GPTQ``.
        mask: weights that are not False; the others are 0 and their errors made up for as well.
    """
    rows, out = weight.shape
    order = np.argsort(-np.diagonal(moment), kind="stable") if act_order else np.arange(rows)
    static = make_grid(weight) if act_order or group == rows else None
    factor = hessian.inverse_factor(moment[np.ix_(order, order)])
    left = weight[order].astype(np.float64)  # a copy, in the order of rounding
    codes = np.empty((rows, out), np.uint8)
    grids: dict[int, Grid] = {}
    for start in range(0, rows, block):
        end = min(start + block, rows)
        errors = np.empty((end - start, out))
        for i in range(start, end):
            row = int(order[i])
            number = row // group
            if static is not None:
                grid = static.of_row(row)
            else:
                if number not in grids:  # its rows up to the block's end are current
                    rest = left[i : i + group].copy()
                    late = max(0, i + group - end)
                    if late:
                        done = i - start
                        rest[-late:] -= factor[start:i, end : i + group].T @ errors[:done]
                    grids[number] = make_grid(rest)
                grid = grids[number]
            value = left[i : i + 1]
            code = grid.codes(value)
            if mask is not None:
                code = np.where(mask[row], code, grid.zero).astype(np.uint8)
            codes[row] = code[0]
            error = (value - grid.values(code))[0] / factor[i, i]
            left[i + 1 : end] -= np.outer(factor[i, i + 1 : end], error)
            errors[i - start] = error
        left[end:] -= factor[start:end, end:].T @ errors
    if static is not None:
        return codes, static
    ordered = [grids[number] for number in range(rows // group)]
    scale, zero = (
        np.concatenate([getattr(g, part) for g in ordered]) for part in ("scale", "zero")
    )
    return codes, Grid(bits=ordered[0].bits, scale=scale, zero=zero, rows=rows)
