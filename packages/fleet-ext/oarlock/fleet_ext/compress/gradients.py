"""Gradients that are averaged over ranks while the backward pass still runs.

Parameters are put into buckets in the order in which their gradients come, last layer first. A bucket is sent as soon as
it is whole, so that it travels while the others are computed. Several travel at once, each in a lane, which is a group and a
thread of its own: none waits for the answers that another one waits for.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from oarlock.fleet_ext.compress.averaging import Averaging
from oarlock.fleet_ext.compress.buckets import Bucket, in_buckets
from oarlock.fleet_ext.compress.clocks import Clocks
from oarlock.fleet_ext.compress.states import named, part_of
from oarlock.fleet_ext.transport import Group

BUCKET_BYTES = 16 << 20
#: How often a group was divided into lanes, for their names.
_LANED: WeakKeyDictionary[Group, int] = WeakKeyDictionary()


class Gradients:
    """Averages the gradients of parameters.

    Args:
        parameters: Paddle's, on the CPU, in the order of the forward pass; those with `stop_gradient` are left out.
        group: of ranks.
        averaging: how.
        bucket_bytes: of gradients in float32, about.
        lanes: buckets that travel at once; None for what the group is made for.
        delayed: give the optimizer the mean of the step before, so that a bucket may travel for a whole step. The first
            step has none.
        unused: whether parameters may have no gradient on some ranks, where they count as 0.
        restorable: whether `move` may be called; then there is no delay.
    """

    def __init__(
        self,
        parameters: Sequence[Any],
        group: Group,
        averaging: Averaging,
        *,
        bucket_bytes: int = BUCKET_BYTES,
        lanes: int | None = None,
        delayed: bool = False,
        unused: bool = False,
        restorable: bool = False,
    ) -> None:
        trained = [one for one in _once(parameters) if not one.stop_gradient]
        if not trained:
            raise ValueError("parameters must have some that are trained (stop_gradient=False)")
        if delayed and restorable:
            raise ValueError("restorable must be False where means are delayed")
        if bucket_bytes < 1:
            raise ValueError(f"bucket_bytes must be at least 1, not {bucket_bytes}")
        if lanes is not None and lanes < 1:
            raise ValueError(f"lanes must be at least 1, not {lanes}")
        self._delayed, self._unused = delayed, unused
        parts = in_buckets(trained[::-1], bucket_bytes)
        self.lanes = min(lanes or group.lanes, len(parts))
        self._groups = self._groups_of(group)
        self.buckets = [
            Bucket(part, number, self._groups[number % self.lanes], averaging,
                   delayed=delayed, restorable=restorable)
            for number, part in enumerate(parts)
        ]  # fmt: skip
        self._threads = [
            ThreadPoolExecutor(1, thread_name_prefix=f"gradients {lane}")
            for lane in range(self.lanes)
        ]
        self.listening = True  #: whether gradients are sent when they come
        self.step = 0  #: that is under way: all ranks count alike
        self._next = 0  #: bucket that is sent next: all ranks send in one order
        self._whole: list[float] = []  #: when the buckets that were sent in this step were whole
        self._error: Exception | None = None
        #: Of the last step: seconds from when each bucket was whole to the last gradient, beside which it travelled.
        self.windows = [0.0] * len(self.buckets)
        #: Of the last step, while nothing was done but to wait for messages.
        self.waiting = Clocks()
        for bucket in self.buckets:
            for index, parameter in enumerate(bucket.parameters):
                parameter._register_backward_hook(self._hook(bucket, index))

    def finish(self) -> bool:
        """Puts means in place of the gradients, waiting for them; before the optimizer's step.

        Returns:
            whether there are means: with `delayed`, the first step has none.

        Raises:
            ValueError: parameters have no gradient; nothing more was sent.
            RuntimeError: parameters have had two.
            TransportError: a rank is missing.
        """
        if self._error is not None:
            raise self._error
        rest = self.buckets[self._next :]
        missing = [name for bucket in rest for name in bucket.missing()]
        if missing and not self._unused:
            raise ValueError(
                f"{len(missing)} parameters have no gradient ({', '.join(missing[:5])}): freeze them with stop_gradient"
                " before wrap, or give it EveryStep(unused=True) or Adaptive(unused=True)"
            )
        for bucket in rest:
            self._send(bucket)
        begin = Clocks.now()
        self.windows = [begin.wall - one for one in self._whole]
        there = [bucket.receive(behind=int(self._delayed)) for bucket in self.buckets]
        self.waiting = Clocks.now() - begin
        self._begin(self.step + 1)
        return all(there)

    @property
    def waited(self) -> float:
        """Seconds of the last step in which nothing was done but to wait for messages."""
        return self.waiting.wall

    def drop(self) -> None:
        """Forgets the gradients of a step that is not taken; all ranks do."""
        self._error = None
        if self._next == 0 and not any(bucket.began() for bucket in self.buckets):
            return
        for bucket in self.buckets[self._next :]:
            self._send(bucket)
        for bucket in self.buckets:
            bucket.drop()
        self._begin(self.step + 1)

    def flush(self) -> bool:
        """With `delayed`, puts the last step's means in place; whether there were any."""
        return all([bucket.receive(behind=0) for bucket in self.buckets])

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """Backward passes in it only add to the gradients of this rank, as for a batch in parts."""
        before, self.listening = self.listening, False
        try:
            yield
        finally:
            self.listening = before

    def choose(self, averagings: Sequence[Averaging]) -> None:
        """Averages each bucket in another way from now on; between steps."""
        for bucket, averaging in zip(self.buckets, averagings, strict=True):
            bucket.choose(averaging)

    def move(self, group: Group, step: int) -> None:
        """Goes on with another group, where the one before is broken.

        What this rank has not sent of earlier steps stays; the gradients of the step that failed are dropped.

        Args:
            step: that is computed next, the same on all ranks.
        """
        before, self._groups = self._groups, self._groups_of(group)
        try:
            for number, bucket in enumerate(self.buckets):
                bucket.move(self._groups[number % self.lanes], step)
        finally:
            self._end(before)
        self._begin(step)
        self._error = None

    def state(self) -> dict[str, np.ndarray]:
        """What a later run needs to go on exactly, on this rank, beside parameters and optimizer; after `flush`."""
        found: dict[str, np.ndarray] = {"step": np.array(self.step)}
        for number, bucket in enumerate(self.buckets):
            found |= named(str(number), bucket.averager.state())
        return found

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """
        Raises:
            ValueError: it is of another model or strategy.
        """
        for number, bucket in enumerate(self.buckets):
            bucket.averager.load(part_of(state, str(number)))
        self.step = int(state["step"])

    def close(self) -> None:
        """Ends the thread; hooks do nothing from now on (Paddle cannot remove them)."""
        self.listening = False
        for thread in self._threads:
            thread.shutdown(cancel_futures=True)
        for bucket in self.buckets:
            bucket.close()
        self._end(self._groups)

    def _groups_of(self, group: Group) -> list[Group]:
        """One for each lane; a single one is the user's."""
        if self.lanes == 1:
            return [group]
        _LANED[group] = number = _LANED.get(group, 0) + 1
        names = [f"gradients {number}, lane {lane}" for lane in range(self.lanes)]
        found = [group.subgroup(range(group.size), name) for name in names]
        return [one for one in found if one is not None]

    def _end(self, groups: Sequence[Group]) -> None:
        if self.lanes > 1:
            for one in groups:
                one.close()

    def _hook(self, bucket: Bucket, index: int) -> Callable[..., None]:
        def complete(*_: Any) -> None:
            if not self.listening or self._error is not None:
                return
            try:
                bucket.take(index)
                while self._next < len(self.buckets) and self.buckets[self._next].whole():
                    self._send(self.buckets[self._next])
            except Exception as error:  # which Paddle's engine would lose: `finish` raises it
                self._error = error

        return complete

    def _send(self, bucket: Bucket) -> None:
        thread = self._threads[self._next % self.lanes]
        self._next += 1
        self._whole.append(time.perf_counter())
        bucket.send(thread, self.step)

    def _begin(self, step: int) -> None:
        self.step, self._next = step, 0
        self._whole.clear()


def _once(parameters: Sequence[Any]) -> list[Any]:
    """Without repetitions, as models with shared parameters have them."""
    return list({id(one): one for one in parameters}.values())
