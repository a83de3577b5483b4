"""Gradients that travel together."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from typing import Any

import ml_dtypes
import numpy as np
import paddle
from oarlock.native import codec as kernels

from oarlock.fleet_ext.compress.adaptive import Sample
from oarlock.fleet_ext.compress.averaging import Averager, Averaging
from oarlock.fleet_ext.transport import Group
from oarlock.fleet_ext.transport.arrays import view_of

_ADDED = (np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16))  #: by a kernel


class Bucket:
    """Parameters whose gradients are averaged at once.

    Args:
        parameters: Paddle's, on the CPU.
        number: of the bucket, the same on all ranks.
        delayed: whether gradients come while those of the step before still travel.
        restorable: whether `move` goes on as before the step; costs a copy of what codes leave out.
    """

    def __init__(
        self,
        parameters: Sequence[Any],
        number: int,
        group: Group,
        averaging: Averaging,
        *,
        delayed: bool = False,
        restorable: bool = False,
    ) -> None:
        self.parameters = list(parameters)
        self._group, self.averaging = group, averaging
        shapes = [tuple(one.shape) for one in parameters]
        self.averager: Averager = averaging.start(shapes, number, group)
        self._restorable = restorable
        #: Where gradients wait until those of the step before are sent; without a delay they go to the averager at once.
        self._staged = np.zeros_like(self.averager.acc) if delayed else None
        self._came: set[int] = set()
        self._picked_up: Future[None] | None = None  #: of what was staged
        self._travelling: deque[Future[np.ndarray]] = deque()
        self._before: np.ndarray | None = None  #: what was left out before this step
        self.sent = False  #: in this step

    def missing(self) -> list[str]:
        """Names of parameters that have had no gradient in this step."""
        return [one.name for index, one in enumerate(self.parameters) if index not in self._came]

    def take(self, index: int) -> None:
        """Copies the gradient of a parameter, which is complete.

        Raises:
            RuntimeError: it has been sent already.
        """
        name = self.parameters[index].name
        if self.sent:
            raise RuntimeError(
                f"{name} has a second gradient in a step: run all backward passes but the last in no_sync(), or call clear_grad()"
                " of the wrapped optimizer where a step is not taken"
            )
        if not self._came and self._restorable and self.averaging.remembers:
            self._before = self.averager.left(self._group).copy()
        gradient = view_of(self.parameters[index].grad, f"gradient of {name}")
        if self._staged is None:
            _add(self.averager.part(self.averager.acc, index), gradient)
        else:
            if self._picked_up is not None:
                self._picked_up.result()
            self.averager.part(self._staged, index)[...] = gradient
        self._came.add(index)

    def send(self, thread: Executor, step: int) -> None:
        """Begins to average; what has not come counts as 0."""
        self.sent = True
        if self._staged is not None:
            for index in range(len(self.parameters)):
                if index not in self._came:
                    self.averager.part(self._staged, index)[...] = 0.0
            self._picked_up = thread.submit(self._pick_up)
        self._travelling.append(thread.submit(self._average, step))

    def receive(self, *, behind: int) -> bool:
        """Puts a mean in place of the gradients, waiting for it.

        Args:
            behind: means that may stay on their way.

        Returns:
            whether there was one to wait for.
        """
        self._came.clear()
        self.sent = False
        if len(self._travelling) <= behind:
            return False
        mean = self._travelling.popleft().result()
        for index, parameter in enumerate(self.parameters):
            _set_gradient(parameter, self.averager.part(mean, index))
        return True

    def sample(self) -> Sample:
        """The gradients as they are now."""
        flat = [view_of(one.grad).reshape(-1).astype(np.float32) for one in self.parameters]
        return Sample(self.averager.shapes, np.concatenate(flat))

    def began(self) -> bool:
        """Whether gradients of this step have come."""
        return bool(self._came) or self.sent

    def drop(self) -> None:
        """Waits for what travels, and forgets it."""
        while self._travelling:
            self._travelling.popleft().result()
        self._came.clear()
        self.sent = False

    def choose(self, averaging: Averaging) -> None:
        """Averages in another way from now on, which sends what the earlier one left out."""
        for one in self._travelling:
            one.result()
        old, self.averaging = self.averager, averaging
        self.averager = averaging.start(old.shapes, old.key, self._group)
        self.averager.acc[...] = old.left(self._group)

    def move(self, group: Group) -> None:
        """Goes on with another group, as before this step, whose gradients are dropped."""
        for one in self._travelling:
            one.exception()  # of the group that was left
        self._travelling.clear()
        self._came.clear()
        self.sent, self._picked_up, self._group = False, None, group
        old = self.averager
        self.averager = self.averaging.start(old.shapes, old.key, group)
        if self._before is not None:
            self.averager.acc[...] = self._before

    def _pick_up(self) -> None:
        kernels.accumulate(self.averager.acc, self._staged)

    def _average(self, step: int) -> np.ndarray:
        self.averager.average(self._group, step)
        # The next one may begin before this one is used, where there is a delay.
        return self.averager.out if self._staged is None else self.averager.out.copy()


def in_buckets(parameters: Sequence[Any], most_bytes: int) -> list[list[Any]]:
    """Neighbours together, up to so many bytes of float32; a larger one is alone."""
    found: list[list[Any]] = []
    size = most_bytes + 1
    for one in parameters:
        count = 4 * int(np.prod(one.shape))
        if size + count > most_bytes:
            found.append([])
            size = 0
        found[-1].append(one)
        size += count
    return found


def _add(place: np.ndarray, gradient: np.ndarray) -> None:
    if gradient.dtype in _ADDED:
        kernels.accumulate(place, gradient)
    else:
        place += gradient


def _set_gradient(parameter: Any, mean: np.ndarray) -> None:
    if parameter.grad is None:
        parameter.grad = paddle.zeros(parameter.shape, parameter.dtype)
    view_of(parameter.grad)[...] = mean
