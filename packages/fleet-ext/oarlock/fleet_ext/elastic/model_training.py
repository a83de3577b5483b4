"""A Paddle model in a `Session`."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import paddle

from oarlock.fleet_ext.compress.averaging import Averaging, Exact
from oarlock.fleet_ext.compress.gradients import BUCKET_BYTES, Gradients
from oarlock.fleet_ext.compress.momentum import check_optimizer
from oarlock.fleet_ext.transport import MeshGroup
from oarlock.fleet_ext.transport.arrays import view_of

_MODEL, _OPTIMIZER, _PLAIN = "model.", "optimizer.", "plain"


class ModelTraining:
    """Trains a model on batches that are divided over ranks.

    A rank that is lost takes with it what its codes had left out of its gradients (`averaging`); in float32
    nothing is left out, and the result has the same bits as that of an undisturbed run with as many ranks.

    Args:
        model: a Paddle layer on the CPU.
        optimizer: of its parameters.
        loss: of a step on this rank's part of the batch: called with step, rank and number of ranks.
        averaging: how gradients are averaged.
        bucket_bytes: of gradients that travel together.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        loss: Callable[[int, int, int], Any],
        *,
        averaging: Averaging | None = None,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        self._averaging, self._bytes = averaging or Exact(), bucket_bytes
        check_optimizer(self._averaging, optimizer)
        self._model, self._optimizer, self._loss = model, optimizer, loss
        self._gradients: Gradients | None = None
        self._group: MeshGroup | None = None
        self.losses: dict[int, float] = {}  #: of this rank's parts, by step

    def compute(self, step: int, group: MeshGroup) -> None:
        if self._gradients is None:
            self._gradients = Gradients(
                self._model.parameters(),
                group,
                self._averaging,
                bucket_bytes=self._bytes,
                restorable=True,
            )
        elif group is not self._group:
            self._gradients.move(group, step)
        self._group = group
        self._optimizer.clear_grad()
        loss = self._loss(step, group.rank, group.size)
        loss.backward()
        self.losses[step] = float(loss)
        self._gradients.finish()

    def apply(self, step: int) -> None:
        self._optimizer.step()

    def state(self) -> dict[str, np.ndarray]:
        state = {_MODEL + name: view_of(one) for name, one in self._model.state_dict().items()}
        plain = {}
        for name, one in self._optimizer.state_dict().items():
            if isinstance(one, paddle.Tensor):
                state[_OPTIMIZER + self._portable(name)] = view_of(one)
            else:
                plain[name] = one  # of a schedule of learning rates
        state[_PLAIN] = np.frombuffer(json.dumps(plain).encode(), np.uint8).copy()
        return state

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        for name, one in self._model.state_dict().items():
            view_of(one)[...] = state[_MODEL + name]
        found: dict[str, Any] = json.loads(state[_PLAIN].tobytes())
        names = [one.name for one in self._model.parameters()]
        for name, array in state.items():
            if name.startswith(_OPTIMIZER):
                number, _, rest = name.removeprefix(_OPTIMIZER).partition(".")
                found[names[int(number)] + rest] = _tensor(array)
        self._optimizer.set_state_dict(found)

    def _portable(self, name: str) -> str:
        """Of a tensor that belongs to a parameter: by its number, since names differ between processes."""
        owners = enumerate(one.name for one in self._model.parameters())
        number, owner = max(
            ((number, one) for number, one in owners if name.startswith(one)),
            key=lambda pair: len(pair[1]),
        )
        return f"{number}.{name[len(owner):]}"

    @property
    def loss(self) -> float | None:
        """Of this rank's part of the latest step."""
        return next(reversed(self.losses.values()), None)

    @property
    def waited(self) -> float | None:
        """Seconds of the latest step in which this rank did nothing but wait for gradients."""
        return self._gradients.waited if self._gradients is not None else None

    def close(self) -> None:
        if self._gradients is not None:
            self._gradients.close()


def _tensor(array: np.ndarray) -> Any:
    """A tensor of its own with an array's numbers and type, bfloat16 too."""
    tensor = paddle.zeros(array.shape, array.dtype.name)
    view_of(tensor)[...] = array
    return tensor
