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
        self._average: Tensor | None = None
        if decay is not None:
            self._average = self._flat().clone()

    @paddle.no_grad()
    def update(self, step: int) -> None:
        """After step t, counted from 0."""
        if self.decay is None or self._average is None:
            return
        decay = min(self.decay, (1.0 + step) / (10.0 + step))
        self._average.scale_(decay).add_(self._flat().scale_(1.0 - decay))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averages inside, and its own parameters again outside."""
        if self._average is None:
            yield
            return
        own = self._flat()
        self._set(self._average)
        try:
            yield
        finally:
            self._set(own)

    def state(self) -> Tensor | None:
        """All averages one after the other; None without."""
        return self._average

    def restore(self, state: Tensor) -> None:
        if self._average is None or self._average.shape != state.shape:
            raise ValueError("the averages are of another model, or of a run without them")
        self._average.set_value(state)

    @paddle.no_grad()
    def _flat(self) -> Tensor:
        return paddle.concat([p.reshape([-1]) for p in self._parameters])

    @paddle.no_grad()
    def _set(self, values: Tensor) -> None:
        start = 0
        for parameter in self._parameters:
            size = int(parameter.size)
            parameter.set_value(values[start : start + size].reshape(parameter.shape))
            start += size
