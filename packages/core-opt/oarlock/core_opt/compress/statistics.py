"""Second moments of the inputs of linear layers on calibration data, a few layers at a time."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import paddle
from paddle import nn

from .hooks import watching
from .structure import get

Loss = Callable[[nn.Layer, Any], paddle.Tensor]


class _Enough(Exception):
    """The last layer asked for has been seen; the rest of the forward pass is of no use."""


@dataclasses.dataclass(slots=True)
class InputStatistics:
    """What is kept of the inputs x of one layer.

    Args:
        second_moment: mean of x x^T, [in, in] float64.
        mean_abs: mean of |x|, [in].
        max_abs: largest |x|, [in].
        rows: number of inputs.
    """

    second_moment: np.ndarray
    mean_abs: np.ndarray
    max_abs: np.ndarray
    rows: int = 0

    @classmethod
    def empty(cls, size: int) -> "InputStatistics":
        return cls(np.zeros((size, size)), np.zeros(size), np.zeros(size))

    def add(self, x: paddle.Tensor) -> None:
        """Count inputs [..., in]; they must be finite."""
        x = x.detach().reshape([-1, x.shape[-1]]).astype("float32")
        share = x.shape[0] / (self.rows + x.shape[0])
        total = paddle.matmul(x, x, transpose_x=True).numpy().astype(np.float64) / x.shape[0]
        size = paddle.abs(x)
        self.second_moment += share * (total - self.second_moment)
        self.mean_abs += share * (size.mean(0).numpy() - self.mean_abs)
        self.max_abs = np.maximum(self.max_abs, size.max(0).numpy())
        self.rows += x.shape[0]

    def scaled(self, factor: np.ndarray) -> "InputStatistics":
        """Statistics of x times a vector."""
        return InputStatistics(
            self.second_moment * np.outer(factor, factor),
            self.mean_abs * np.abs(factor),
            self.max_abs * np.abs(factor),
            self.rows,
        )


def check_batches(batches: Any) -> None:
    """Refuse what can be gone through only once."""
    if isinstance(batches, str | bytes | dict) or not hasattr(batches, "__iter__"):
        raise ValueError(
            f"batches must be a list of batches or another iterable, got {type(batches).__name__}."
        )
    if iter(batches) is batches:
        raise ValueError(
            "batches is an iterator, which ends after one pass; give a list, or an object whose "
            "__iter__ begins anew."
        )


@contextlib.contextmanager
def evaluation(model: nn.Layer) -> Iterator[None]:
    """Evaluation mode inside, the former mode of each layer after."""
    before = [(layer, layer.training) for layer in model.sublayers(include_self=True)]
    model.eval()
    try:
        yield
    finally:
        for layer, mode in before:
            layer.training = mode


def calls(model: nn.Layer, batch: Any, loss: Loss, names: Sequence[str]) -> dict[str, int]:
    """How often a forward pass calls each layer, in the order of their first calls."""
    counts: dict[str, int] = {}

    def count(name: str, x: paddle.Tensor) -> None:
        counts[name] = counts.get(name, 0) + 1

    seen = {name: functools.partial(count, name) for name in names}
    with watching(model, before=seen), evaluation(model), paddle.no_grad():
        loss(model, batch)
    return counts


def collect(
    model: nn.Layer,
    batches: Any,
    loss: Loss,
    names: Sequence[str],
    *,
    limit: int | None = None,
    stop: bool = False,
) -> dict[str, InputStatistics]:
    """Input statistics of linear layers over the batches.

    Args:
        model: in its present state.
        batches: calibration data.
        loss: runs the model on a batch.
        names: of the layers.
        limit: batches to use; None for all.
        stop: whether to end each forward pass once all layers were called; each must be called once
            then.

    Raises:
        ValueError: there are no batches, or inputs of a layer are NaN or infinite; names the batch
            and the layer. The model is as before.
    """
    found = {name: InputStatistics.empty(get(model, name).weight.shape[0]) for name in names}
    waiting: set[str] = set()

    def see(name: str, x: paddle.Tensor) -> None:
        found[name].add(x)
        waiting.discard(name)

    def after(inputs: Any, output: Any) -> None:
        if stop and not waiting:
            raise _Enough

    count = 0
    with (
        watching(
            model,
            before={name: functools.partial(see, name) for name in names},
            after=dict.fromkeys(names, after),
        ),
        evaluation(model),
        paddle.no_grad(),
    ):
        for number, batch in enumerate(batches):
            if limit is not None and number >= limit:
                break
            waiting.update(names)
            with contextlib.suppress(_Enough):
                loss(model, batch)
            _check_finite(found, number)
            count += 1
    if not count:
        raise ValueError("batches is empty; calibration needs at least one batch.")
    return found


def _check_finite(found: dict[str, InputStatistics], number: int) -> None:
    for name, statistics in found.items():
        if not np.isfinite(statistics.mean_abs).all() or not np.isfinite(statistics.max_abs).all():
            raise ValueError(
                f"calibration batch {number} gives NaN or infinite inputs to layer {name!r}; "
                "take that batch out, or look for overflow in the model."
            )
