"""Kronecker factors of the Fisher matrix of each linear layer, and what blocks do to their inputs."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import paddle
from paddle import nn

from ..hooks import watching
from ..statistics import Loss, evaluation
from ..structure import get


@dataclasses.dataclass(slots=True)
class LayerFisher:
    """Moments of one linear layer y = x W over tokens t, with g_t = d(sum of losses) / d y_t.

    Args:
        inputs: mean of x x^T, [in, in] float64.
        outputs: of g g^T, a sum over tokens for each prediction, [out, out] float64.
        gradient: gradient of the mean loss, [in, out] float64.
        tokens, predictions: how many rows, and terms of the loss, were seen.
    """

    inputs: np.ndarray
    outputs: np.ndarray
    gradient: np.ndarray
    tokens: float = 0.0
    predictions: float = 0.0

    @classmethod
    def empty(cls, rows: int, columns: int) -> "LayerFisher":
        return cls(np.zeros((rows, rows)), np.zeros((columns, columns)), np.zeros((rows, columns)))

    @staticmethod
    def num_bytes(rows: int, columns: int) -> int:
        """What one takes in memory."""
        return 8 * (rows * rows + columns * columns + rows * columns)

    def add(self, x: paddle.Tensor, grad: paddle.Tensor, predictions: int) -> None:
        """Count inputs [.., in] and gradients [.., out] of the mean loss of a batch."""
        x, grad = (t.detach().reshape([-1, t.shape[-1]]).astype("float32") for t in (x, grad))
        grad = grad * predictions
        self.inputs += paddle.matmul(x, x, transpose_x=True).numpy()
        self.outputs += paddle.matmul(grad, grad, transpose_x=True).numpy()
        self.gradient += paddle.matmul(x, grad, transpose_x=True).numpy()
        self.tokens += x.shape[0]
        self.predictions += predictions

    def mean(self) -> "LayerFisher":
        """Sums turned into means."""
        tokens, predictions = max(self.tokens, 1), max(self.predictions, 1)
        return LayerFisher(
            self.inputs / tokens,
            self.outputs / predictions,
            self.gradient / predictions,
            tokens=self.tokens,
            predictions=self.predictions,
        )


@dataclasses.dataclass(slots=True)
class BlockEffect:
    """Sums over tokens of what one block does, x its input and y its output.

    Args:
        inputs, outputs: of x x^T and y y^T, [D, D] float64.
        sums: of the cosine of x and y; g (x - y); (g (x - y))^2; of tokens; of predictions.
    """

    inputs: np.ndarray
    outputs: np.ndarray
    sums: np.ndarray

    @classmethod
    def empty(cls, size: int) -> "BlockEffect":
        return cls(np.zeros((size, size)), np.zeros((size, size)), np.zeros(5))

    def add(
        self, x: paddle.Tensor, y: paddle.Tensor, grad: paddle.Tensor, predictions: int
    ) -> None:
        """Count inputs, outputs and gradients [.., D] of the mean loss of a batch."""
        x, y, grad = (t.detach().reshape([-1, t.shape[-1]]).astype("float32") for t in (x, y, grad))
        along = (grad * predictions * (x - y)).sum(-1)
        cosine = nn.functional.cosine_similarity(x, y, axis=-1)
        self.inputs += paddle.matmul(x, x, transpose_x=True).numpy()
        self.outputs += paddle.matmul(y, y, transpose_x=True).numpy()
        self.sums += [
            cosine.sum().item(),
            along.sum().item(),
            paddle.square(along).sum().item(),
            x.shape[0],
            predictions,
        ]


Sums = dict[str, LayerFisher | BlockEffect]


def empty(model: nn.Layer, linears: Sequence[str], blocks: Sequence[str], width: int) -> Sums:
    """Nothing counted yet."""
    sums: Sums = {name: LayerFisher.empty(*get(model, name).weight.shape) for name in linears}
    return sums | {name: BlockEffect.empty(width) for name in blocks}


def accumulate(
    model: nn.Layer,
    batch: Any,
    loss: Loss,
    sums: Sums,
    predictions: Callable[[Any], int] | None,
) -> float:
    """Add one batch to the sums; returns its loss.

    Raises:
        ValueError: the loss is not a finite scalar or has no gradient. Nothing was added.
    """
    calls: list[tuple[str, paddle.Tensor, paddle.Tensor]] = []

    def seen(name: str, inputs: Any, output: Any) -> None:
        calls.append((name, inputs[0], output if isinstance(output, paddle.Tensor) else output[0]))

    after = {name: functools.partial(seen, name) for name in sums}
    with watching(model, after=after), evaluation(model), trainable(model):
        value = loss(model, batch)
        number = check_loss(value)
        tensors = [output for _, _, output in calls]
        if not tensors or value.stop_gradient:
            raise ValueError(
                "loss has no gradient, or called no layer of the model; it must run the model "
                "on the batch outside of paddle.no_grad()."
            )
        grads = paddle.grad(value, tensors, allow_unused=True)
    rows = [x.size // x.shape[-1] for name, x, _ in calls]
    count = max(rows) if predictions is None else predictions(batch)
    for (name, x, output), grad in zip(calls, grads):
        grad = paddle.zeros_like(output) if grad is None else grad
        one = sums[name]
        if isinstance(one, LayerFisher):
            one.add(x, grad, count)
        else:
            one.add(x, output, grad, count)
    return number


def check_loss(value: Any) -> float:
    """The loss as a number; ValueError if it is no finite scalar tensor."""
    if not isinstance(value, paddle.Tensor) or value.size != 1:
        raise ValueError(f"loss must return a scalar tensor, got {type(value).__name__}.")
    number = float(value.astype("float64").numpy())
    if not np.isfinite(number):
        raise ValueError(f"the loss of a calibration batch is {number}; take that batch out.")
    return number


@contextlib.contextmanager
def trainable(model: nn.Layer) -> Iterator[None]:
    """Gradients for all parameters inside, as before after."""
    parameters = [(parameter, parameter.stop_gradient) for parameter in model.parameters()]
    for parameter, _ in parameters:
        parameter.stop_gradient = False
    try:
        yield
    finally:
        for parameter, before in parameters:
            parameter.stop_gradient = before
