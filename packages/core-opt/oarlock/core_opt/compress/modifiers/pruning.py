"""Pruning: by magnitude, by magnitude times input (Wanda), and with errors made up for (SparseGPT)."""

import dataclasses
import re
from typing import ClassVar

import numpy as np

from ... import _checks
from .. import hessian
from ..work import LayerWork
from .base import LayerModifier, Stage


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """Which weights go together.

    Args:
        kept, of: N:M, ``kept`` of ``of`` neighbouring inputs stay for each output; 0, 0 for none.
        rows, columns: sizes of blocks that stay or go whole; 1, 1 for single weights.
    """

    kept: int = 0
    of: int = 0
    rows: int = 1
    columns: int = 1

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Of "unstructured", "2:4" or "block:16x16"."""
        if text == "unstructured":
            return cls()
        if found := re.fullmatch(r"(\d+):(\d+)", text):
            kept, of = map(int, found.groups())
            if 0 < kept < of:
                return cls(kept=kept, of=of)
        if found := re.fullmatch(r"block:(\d+)x(\d+)", text):
            rows, columns = map(int, found.groups())
            if rows * columns > 1:
                return cls(rows=rows, columns=columns)
        raise ValueError(
            f'pattern must be "unstructured", "N:M" with 0 < N < M or "block:RxC", got {text!r}.'
        )

    def check(self, shape: tuple[int, ...], layer: str) -> None:
        """ValueError if the pattern does not divide the matrix of a layer."""
        for size, unit, what in (
            (shape[0], self.of or self.rows, "inputs"),
            (shape[1], self.columns, "outputs"),
        ):
            if size % unit:
                raise ValueError(
                    f"pattern: {layer} has {size} {what}, which {unit} does not divide; ignore it."
                )

    def mask(self, score: np.ndarray, sparsity: float, *, per_output: bool) -> np.ndarray:
        """Weights to keep, those of the highest score.

        Args:
            score: [in, out].
            sparsity: share to drop; not used for N:M.
            per_output: whether each output drops the same share, or the matrix as a whole.
        """
        rows, out = score.shape
        if self.of:
            groups = score.reshape(-1, self.of, out)
            rank = np.argsort(np.argsort(-groups, axis=1, kind="stable"), axis=1, kind="stable")
            return (rank < self.kept).reshape(rows, out)
        if self.rows * self.columns > 1:
            sums = score.reshape(rows // self.rows, self.rows, out // self.columns, self.columns)
            keep = _highest(sums.sum((1, 3)), sparsity)
            return np.repeat(np.repeat(keep, self.rows, 0), self.columns, 1)
        if per_output:
            rank = np.argsort(np.argsort(-score, axis=0, kind="stable"), axis=0, kind="stable")
            return rank < rows - round(sparsity * rows)
        return _highest(score, sparsity)


def _highest(score: np.ndarray, sparsity: float) -> np.ndarray:
    flat = np.argsort(-score, axis=None, kind="stable")
    keep = np.zeros(score.size, bool)
    keep[flat[: score.size - round(sparsity * score.size)]] = True
    return keep.reshape(score.shape)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pruning(LayerModifier):
    """What pruning modifiers share.

    Args:
        sparsity: share of the weights to drop; N:M patterns have their own.
        pattern: "unstructured", "N:M" along the inputs of each output, or "block:RxC".
    """

    stage: ClassVar[Stage] = Stage.PRUNE
    sparsity: float = 0.5
    pattern: str = "unstructured"

    def __post_init__(self):
        LayerModifier.__post_init__(self)
        _checks.real("sparsity", self.sparsity, 0.0, 1.0, open_low=True, open_high=True)
        Pattern.parse(self.pattern)

    def _pattern(self, work: LayerWork) -> Pattern:
        pattern = Pattern.parse(self.pattern)
        pattern.check(work.weight.shape, work.name)
        if work.mask is not None:
            raise ValueError(f"{work.name} is pruned already; prune a layer once, or ignore it.")
        return pattern

    @staticmethod
    def _finish(work: LayerWork, mask: np.ndarray, weight: np.ndarray) -> None:
        work.mask, work.weight = mask, weight * mask


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Magnitude(Pruning):
    """Drops the smallest weights of each layer; needs no data."""

    kind: ClassVar[str] = "magnitude"

    def apply(self, work: LayerWork) -> None:
        """See ``LayerModifier.apply``."""
        mask = self._pattern(work).mask(np.square(work.weight), self.sparsity, per_output=False)
        self._finish(work, mask, work.weight)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanda(Pruning):
    """Drops the smallest |w_jo| sqrt(E[x_j^2]) of each output.

    Source: 2306.11695.
    """

    kind: ClassVar[str] = "wanda"
    needs_data: ClassVar[bool] = True

    def apply(self, work: LayerWork) -> None:
        """See ``LayerModifier.apply``."""
        power = np.diagonal(work.calibrated().second_moment)[:, None]
        score = np.square(work.weight) * power
        mask = self._pattern(work).mask(score, self.sparsity, per_output=True)
        self._finish(work, mask, work.weight)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SparseGPT(Pruning):
    """Drops the weights of the least w^2 / [H^-1]_jj and lets those that follow make up for them.

    Args:
        damping: see ``GPTQ``.
        block: inputs for which the weights to drop are chosen together, and between two updates of
            all that follow.

    Source: 2301.00774.
    """

    kind: ClassVar[str] = "sparsegpt"
    needs_data: ClassVar[bool] = True
    damping: float = 0.01
    block: int = 128

    def __post_init__(self):
        Pruning.__post_init__(self)
        _checks.non_negative("damping", self.damping)
        _checks.whole("block", self.block, 1)

    def apply(self, work: LayerWork) -> None:
        """See ``LayerModifier.apply``."""
        pattern = self._pattern(work)
        moment, work.damping = hessian.damped(
            work.calibrated().second_moment, self.damping, work.name
        )
        mask, weight = sparsegpt(
            work.weight, moment, pattern, sparsity=self.sparsity, block=self.block
        )
        self._finish(work, mask, weight)


def sparsegpt(
    weight: np.ndarray, moment: np.ndarray, pattern: Pattern, *, sparsity: float, block: int = 128
) -> tuple[np.ndarray, np.ndarray]:
    """Weights to keep and their new values.

    Args:
        weight: [in, out].
        moment: damped E[x x^T], positive definite.
        pattern, sparsity: what to drop. N:M is chosen when its inputs are reached, anything else
            for ``block`` inputs at once.
        block: rounded up to whole groups of the pattern.
    """
    rows, out = weight.shape
    unit = pattern.of or pattern.rows
    block = -(-block // unit) * unit
    factor = hessian.inverse_factor(moment)
    weight = weight.astype(np.float64)
    mask = np.ones((rows, out), bool)
    diagonal = np.square(np.diagonal(factor))[:, None]
    for start in range(0, rows, block):
        end = min(start + block, rows)
        errors = np.empty((end - start, out))
        for i in range(start, end):
            span = unit if pattern.of else end - start
            if (i - start) % span == 0:
                part = slice(i, i + span)
                score = np.square(weight[part]) / diagonal[part]
                mask[part] = pattern.mask(score, sparsity, per_output=False)
            error = np.where(mask[i], 0.0, weight[i]) / factor[i, i]
            weight[i] = np.where(mask[i], weight[i], 0.0)
            weight[i + 1 : end] -= np.outer(factor[i, i + 1 : end], error)
            errors[i - start] = error
        weight[end:] -= factor[start:end, end:].T @ errors
    return mask, weight
