"""From dense to sparse while training."""

import numpy as np

from .. import _checks
from .layers import MaskedLinear
from .scheduler import MaskScheduler, block_means, kept_count, mask_of


class GradualPruning(MaskScheduler):
    r"""From dense to sparse: the smallest weights go, by a cubic schedule.

    .. math:: s_t = s_T + (s_0 - s_T) (1 - (t - t_0) / (t_1 - t_0))^3

    of sparsity from :math:`s_0 = 0` at ``begin`` to :math:`s_T` = 1 - ``density`` at ``end``.

    Args:
        begin: share of the steps before the first change, below ``end``.

    Source: Zhu & Gupta, 1710.01878.
    """

    def __init__(self, layers, *, begin: float = 0.1, **options):
        self.begin = _checks.fraction("begin", begin)
        super().__init__(layers, **options)
        if self.begin >= self.end:
            raise ValueError(f"begin must be below end = {self.end:g}, got {self.begin:g}.")

    def start(self) -> None:
        for layer in self.layers:
            layer.set_mask(np.ones(layer.mask.shape, dtype=bool))

    def updates_now(self) -> bool:
        last = int(self.end * self.total_steps)
        first = int(self.begin * self.total_steps)
        return first <= self.done <= last and (
            (self.done - first) % self.every == 0 or self.done == last
        )

    def target(self) -> float:
        """Density that the schedule wants at the step at hand."""
        first, last = int(self.begin * self.total_steps), int(self.end * self.total_steps)
        left = 1 - min(max((self.done - first) / max(last - first, 1), 0.0), 1.0)
        return 1 - (1 - self.density) * (1 - left**3)

    def update(self, index: int, layer: MaskedLinear) -> None:
        mask = layer.mask.numpy().reshape(-1)
        count = min(kept_count(self.target(), mask.size), int(mask.sum()))
        sizes = block_means(layer.weight, layer.block)
        sizes[~mask] = -np.inf  # what is gone stays so
        layer.set_mask(mask_of(layer, np.argsort(-sizes, kind="stable")[:count]))
