"""Gradients of a Paddle model for the strategies of asynchronous SGD."""

from collections.abc import Callable

import numpy as np
import paddle
from paddle import nn


class ModelOracle:
    """The gradient of a model's loss as one vector, in the order of its parameters.

    Args:
        model: its trainable parameters are overwritten with those that a gradient is asked for.
        loss: ``loss(model, worker, rng)`` gives the loss on a batch that ``rng`` draws.
    """

    def __init__(
        self,
        model: nn.Layer,
        loss: Callable[[nn.Layer, int, np.random.Generator], paddle.Tensor],
    ):
        self.model, self._loss = model, loss
        self._parameters = [p for p in model.parameters() if not p.stop_gradient]
        if not self._parameters:
            raise ValueError("model has no parameters to train; unfreeze some.")

    @property
    def parameters(self) -> np.ndarray:
        """The model's trainable parameters, float32 [d]."""
        return np.concatenate([p.astype("float32").numpy().ravel() for p in self._parameters])

    @paddle.no_grad()
    def load(self, parameters: np.ndarray) -> None:
        """Write a vector [d] into the model."""
        sizes = np.cumsum([p.size for p in self._parameters])
        if parameters.shape != (sizes[-1],):
            raise ValueError(
                f"parameters must have the shape ({sizes[-1]},), got {parameters.shape}."
            )
        for parameter, part in zip(self._parameters, np.split(parameters, sizes[:-1])):
            value = paddle.to_tensor(part.reshape(parameter.shape), dtype=parameter.dtype)
            parameter.set_value(value)

    def gradient(self, parameters: np.ndarray, worker: int, rng: np.random.Generator) -> np.ndarray:
        """The gradient at ``parameters`` [d]; zeros where the loss does not reach."""
        self.load(parameters)
        self.model.clear_gradients()
        self._loss(self.model, worker, rng).backward()
        parts = [
            (
                np.zeros(p.size, parameters.dtype)
                if p.grad is None
                else p.grad.astype("float32").numpy().ravel().astype(parameters.dtype)
            )
            for p in self._parameters
        ]
        return np.concatenate(parts)
