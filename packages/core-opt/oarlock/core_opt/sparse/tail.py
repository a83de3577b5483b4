"""Sparse training with a dense end."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import _checks
from .layers import MaskedLinear
from .scheduler import MaskScheduler
from .two_of_four import SSTE


class DenseTail:
    """Another scheduler's training, made dense for the last steps.

    Everything that was dropped comes back as zeros and is trained.

    Args:
        scheduler: what to do before.
        share: of the total steps that are dense, in (0, 1).

    Source: the dense last part of sparse pretraining, 2602.06183.
    """

    def __init__(self, scheduler: MaskScheduler, *, share: float = 0.1):
        if not isinstance(scheduler, MaskScheduler):
            raise ValueError(f"scheduler must be a mask scheduler, got {_checks.shown(scheduler)}.")
        self.share = _checks.real("share", share, 0.0, 1.0, open_low=True, open_high=True)
        self.scheduler = scheduler

    @property
    def layers(self) -> list[MaskedLinear]:
        return self.scheduler.layers

    @property
    def done(self) -> int:
        return self.scheduler.done

    @property
    def is_dense(self) -> bool:
        """Whether the tail has begun."""
        return self.done >= (1 - self.share) * self.scheduler.total_steps

    def densities(self) -> list[float]:
        """Share that each layer keeps now."""
        return self.scheduler.densities()

    def step(self) -> None:
        """After ``backward`` and before the optimiser's step."""
        if self.is_dense:
            self.scheduler.done += 1
            return
        self.scheduler.step()
        if self.is_dense:
            self._open()

    def _open(self) -> None:
        if isinstance(self.scheduler, SSTE):
            self.scheduler.finish()
        for layer in self.layers:
            layer.dense_gradient = False
            layer.set_mask(np.ones(layer.mask.shape, dtype=bool))

    def state_dict(self) -> dict[str, Any]:
        return self.scheduler.state_dict()

    def set_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict()``; load the model's state as well."""
        self.scheduler.set_state_dict(state)
        if self.is_dense:
            for layer in self.layers:
                layer.dense_gradient, layer.projection = False, None
