"""The moving average of parameters, which is steadier than the parameters."""

from collections.abc import Iterator
from contextlib import contextmanager

import paddle
from paddle import Tensor, nn


class Average:
    """θ̄ ← d θ̄ + (1 − d) θ with d = min(decay, (1 + t) / (10 + t)) at step t.

    Args:
        decay: None for no average: θ̄ is θ.
    """

    def __init__(self, model: nn.Layer, decay: float | None) -> None:
        self.decay = decay
        self._parameters = [p for p in model.parameters() if not p.stop_gradient]
        self._averages: list[Tensor] = []
        if decay is not None:
            self._averages = [p.detach().clone() for p in self._parameters]

    @paddle.no_grad()
    def update(self, step: int) -> None:
        """After step t, counted from 0."""
        if self.decay is None:
            return
        decay = min(self.decay, (1.0 + step) / (10.0 + step))
        for average, parameter in zip(self._averages, self._parameters, strict=True):
            average.scale_(decay).add_(parameter * (1.0 - decay))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averages inside, and its own parameters again outside."""
        if self.decay is None:
            yield
            return
        own = [p.detach().clone() for p in self._parameters]
        self._set(self._averages)
        try:
            yield
        finally:
            self._set(own)

    def state(self) -> list[Tensor]:
        return self._averages

    @paddle.no_grad()
    def restore(self, averages: list[Tensor]) -> None:
        for mine, given in zip(self._averages, averages, strict=True):
            mine.set_value(given)

    @paddle.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.set_value(value)
