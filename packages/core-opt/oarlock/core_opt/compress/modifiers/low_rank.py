"""A residual of low rank beside the rounded weight."""

import dataclasses
from typing import ClassVar

import numpy as np

from ... import _checks
from .. import hessian
from ..work import LayerWork
from .base import LayerModifier, Stage


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LowRank(LayerModifier):
    """Adds the best A B of a rank to what rounding left out, for the error of the outputs.

    With H = L L^T the minimum of tr((E - AB)^T H (E - AB)) is at AB = L^-T [L^T E]_r, where [.]_r is
    the singular value decomposition cut to the r largest values.

    Args:
        rank: of the residual, kept in float32: rank (in + out) numbers.
        damping: added to H, see ``GPTQ``.

    Source: ZeroQuant-V2 2303.08302, LQER 2402.02446.
    """

    kind: ClassVar[str] = "low_rank"
    stage: ClassVar[Stage] = Stage.RESIDUAL
    rank: int = 8
    damping: float = 0.01

    def __post_init__(self):
        LayerModifier.__post_init__(self)
        _checks.whole("rank", self.rank, 1)
        _checks.non_negative("damping", self.damping)

    def apply(self, work: LayerWork) -> None:
        """See ``LayerModifier.apply``."""
        if self.rank > min(work.weight.shape):
            raise ValueError(
                f"rank must be at most {min(work.weight.shape)} for {work.name}, got {self.rank}."
            )
        moment, _ = hessian.damped(work.second_moment, self.damping, work.name)
        work.left, work.right = low_rank(work.target - work.quantized(), moment, self.rank)


def low_rank(error: np.ndarray, moment: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Factors [in, rank] and [rank, out] nearest to an error in the norm of a moment, float32.

    Both get the root of the singular values, so that they are of one size.
    """
    lower = np.linalg.cholesky(moment)
    u, s, vt = np.linalg.svd(lower.T @ error, full_matrices=False)
    root = np.sqrt(s[:rank])
    left = np.linalg.solve(lower.T, u[:, :rank] * root)
    right = root[:, None] * vt[:rank]
    balance = np.sqrt(float(np.linalg.norm(right)) / max(float(np.linalg.norm(left)), 1e-30)) or 1.0
    return (left * balance).astype(np.float32), (right / balance).astype(np.float32)
