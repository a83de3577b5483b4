"""Gradients that travel together."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from typing import Any

import ml_dtypes
import numpy as np
import paddle

from oarlock.fleet_ext.compress.averaging import Averager, Averaging, Left, Mean
from oarlock.fleet_ext.compress.trials import Sample
from oarlock.fleet_ext.compress.weights import weights_behind
from oarlock.fleet_ext.transport import Group
from oarlock.fleet_ext.transport.arrays import view_of

SAMPLE = 1 << 19  #: elements, on which ways to average are tried
WATCHED = 3  #: steps whose gradients ways are tried on


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
        #: Where gradients wait until those of the step before are sent; without a delay they are read where Paddle has them.
        count = self.averager.layout.count
        self._staged = [np.zeros(count, np.float32) for _ in range(2 if delayed else 0)]
        self._came: set[int] = set()  #: parameters that have had their gradient in this step
        self._travelling: deque[Future[Mean]] = deque()
        self._before: tuple[int, Left] | None = None  #: a step, and what was left before it
        ordered = sorted(range(len(shapes)), key=lambda index: -parameters[index].size)
        before = np.cumsum([0, *(parameters[index].size for index in ordered)])[:-1]
        self._sampled = [index for index, begin in zip(ordered, before) if begin < SAMPLE]
        self._watched = False
        #: Of the sampled parameters: this rank's gradients of the last steps, before they were sent.
        self._seen: deque[np.ndarray] = deque(maxlen=WATCHED)
        self.sent = False  #: in this step

    def whole(self) -> bool:
        """Whether all parameters have had a gradient in this step."""
        return len(self._came) == len(self.parameters)

    def missing(self) -> list[str]:
        """Names of parameters that have had no gradient in this step."""
        return [one.name for index, one in enumerate(self.parameters) if index not in self._came]

    def take(self, index: int) -> None:
        """Notes that the gradient of a parameter is complete; in the middle of a backward pass, where all that is not in a
        cache is slow.

        Raises:
            RuntimeError: it has been sent already.
        """
        if self.sent:
            name = self.parameters[index].name
            raise RuntimeError(
                f"{name} has a second gradient in a step: run all backward passes but the last in no_sync(), or"
                " call clear_grad() of the wrapped optimizer where a step is not taken"
            )
        self._came.add(index)

    def send(self, thread: Executor, step: int) -> None:
        """Begins to average; what has not come counts as 0."""
        self.sent = True
        gradients = [
            _view_of_gradient(one) if index in self._came else None
            for index, one in enumerate(self.parameters)
        ]
        if self._staged:
            gradients = self._stage(gradients)
        if self._watched:
            self._seen.append(self._some(gradients))
        self._travelling.append(thread.submit(self._average, step, gradients))
        self._staged.reverse()  # the other one was read: its mean is waited for in each step

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
        self._travelling.popleft().result().write([_gradient_of(one) for one in self.parameters])
        return True

    def watch(self) -> None:
        """From now on keeps of gradients what `samples_of` needs, before they are sent: a mean is what codes have left of them."""
        self._watched = True

    def keep(self) -> None:
        """Keeps it of gradients as they are, in a step that sends nothing."""
        grads = [one.grad for one in self.parameters]
        self._seen.append(
            self._some([None if one is None else view_of(one).reshape(-1) for one in grads])
        )

    @property
    def seen(self) -> np.ndarray:
        """What was kept and not taken, float32 [steps, elements]."""
        size = sum(self.parameters[index].size for index in self._sampled)
        return np.array(self._seen, np.float32).reshape(-1, size)

    @seen.setter
    def seen(self, gradients: np.ndarray) -> None:
        if np.shape(gradients)[1:] != self.seen.shape[1:]:
            raise ValueError("state is of another model or strategy: gradients of another size")
        self._seen = deque(np.array(gradients), maxlen=WATCHED)

    def taken(self) -> np.ndarray:
        """What was kept, bfloat16 [steps, elements]; ends the watch."""
        found = self.seen.astype(ml_dtypes.bfloat16)
        self._seen.clear()
        self._watched = False
        return found

    def sample(self, gradients: np.ndarray, optimizer: Any) -> Sample:
        """What errors of gradients are to an optimizer.

        Args:
            gradients: the mean of what all ranks have `taken`, float32 [steps, elements].
        """
        *earlier, last = gradients
        chosen = [self.parameters[index] for index in self._sampled]
        rest = set(range(len(self.parameters))) - set(self._sampled)
        shapes, others = (
            [tuple(self.parameters[index].shape) for index in part]
            for part in (self._sampled, sorted(rest))
        )
        return Sample(shapes, last, weights_behind(optimizer, chosen, last), others, earlier)

    def _some(self, gradients: Sequence[np.ndarray | None]) -> np.ndarray:
        """A copy of those of the sampled parameters, one behind the other."""
        found = []
        for index in self._sampled:
            one = gradients[index]
            found.append(np.zeros(self.parameters[index].size) if one is None else one)
        return np.concatenate([one.astype(np.float32) for one in found])

    def began(self) -> bool:
        """Whether gradients of this step have come."""
        return bool(self._came) or self.sent

    def drop(self) -> None:
        """Waits for what travels, and forgets it."""
        while self._travelling:
            self._travelling.popleft().result()
        if self.sent and self._watched and self._seen:
            self._seen.pop()
        self._came.clear()
        self.sent = False

    def choose(self, averaging: Averaging) -> None:
        """Averages in another way from now on, which sends what the earlier one left out."""
        for one in self._travelling:
            one.result()
        self._replace(averaging, self._group, self.averager.left(self._group))

    def move(self, group: Group, step: int) -> None:
        """Goes on with another group, as before a step, whose gradients are dropped."""
        for one in self._travelling:
            one.exception()  # of the group that was left
        self._travelling.clear()
        self._came.clear()
        left = self.averager.left(self._group)
        if self._before is not None and self._before[0] == step:
            left = self._before[1]
        self.sent = False
        self._replace(self.averaging, group, left)

    def close(self) -> None:
        """After all that travels."""
        self.averager.close()

    def _stage(self, gradients: Sequence[np.ndarray | None]) -> list[np.ndarray | None]:
        """A copy of them, which may be read while the next ones come."""
        staged = self.averager.layout.split(self._staged[0])
        for place, one in zip(staged, gradients):
            if one is not None:
                place[...] = one
        return [None if one is None else place for place, one in zip(staged, gradients)]

    def _replace(self, averaging: Averaging, group: Group, left: Left) -> None:
        old = self.averager
        made = averaging.start(old.layout.shapes, old.key, group)  # or all stays as it was
        made.inherit(left)
        self.averaging, self._group, self.averager = averaging, group, made
        old.close()

    def _average(self, step: int, gradients: Sequence[np.ndarray | None]) -> Mean:
        if self._restorable and self.averaging.remembers:
            self._before = step, self.averager.left(self._group)
        mean = self.averager.average(self._group, step, gradients)
        # The next one may begin before this one is used, where there is a delay.
        return self.averager.kept(mean) if self._staged else mean


def samples_of(buckets: Sequence[Bucket], optimizer: Any, group: Group) -> dict[int, Sample]:
    """The means of some gradients that ranks had in the last steps, of the buckets that this rank tries.

    Whole tensors of each bucket, the largest first, until they are `SAMPLE` elements, rounded to bfloat16; without a
    gradient they are 0. All ranks call it, after steps that were watched or kept: the last `WATCHED` of them count.

    Returns:
        samples by the numbers of their buckets, which the ranks share: number modulo size.
    """
    taken = [bucket.taken() for bucket in buckets]
    shared = [range(rank, len(buckets), group.size) for rank in range(group.size)]
    # All of it at once: every rank's link is busy in both directions.
    parts = [
        np.concatenate([np.empty(0, ml_dtypes.bfloat16), *(taken[one].reshape(-1) for one in part)])
        for part in shared
    ]
    came = [np.empty_like(parts[group.rank]) for _ in parts]
    group.all_to_all(parts, came).wait()
    mean = np.zeros(came[0].size, np.float32)
    for one in came:
        mean += one.astype(np.float32)
    mean /= group.size
    found, begin = {}, 0
    for number in shared[group.rank]:
        shape = taken[number].shape
        gradients = mean[begin : begin + taken[number].size].reshape(shape)
        found[number] = buckets[number].sample(gradients, optimizer)
        begin += gradients.size
    return found


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


def _view_of_gradient(parameter: Any) -> np.ndarray:
    """A parameter's gradient, flat."""
    return view_of(parameter.grad, f"gradient of {parameter.name}").reshape(-1)


def _gradient_of(parameter: Any) -> np.ndarray:
    """The same, made where there is none."""
    if parameter.grad is None:
        parameter.grad = paddle.zeros(parameter.shape, parameter.dtype)
    return _view_of_gradient(parameter)
