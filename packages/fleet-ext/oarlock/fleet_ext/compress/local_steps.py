"""Ranks that go their own ways for some steps, and meet.

Every rank runs the user's optimizer on its own data. After `period` steps the ways that parameters went since they last
were the same (pseudo-gradients) are averaged over ranks, in a code, and a step of the mean is taken from there by all
of them (DiLoCo, 2311.08105). Parts of the model may meet at different steps, and what is sent may travel while the ranks go
on (Streaming DiLoCo, 2501.18512): what a rank went meanwhile is added to where all of them meet.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from oarlock.fleet_ext.compress.averaging import Averager, Averaging
from oarlock.fleet_ext.compress.coded import Coded
from oarlock.fleet_ext.compress.codecs import ChunkTopK, TwoLevels
from oarlock.fleet_ext.compress.states import named, part_of
from oarlock.fleet_ext.transport import Group
from oarlock.fleet_ext.transport.arrays import view_of


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSteps:
    """How ranks go and meet. The defaults are SparseLoCo's (2508.15706), without its outer momentum.

    Args:
        period: steps between two meetings.
        averaging: how the ways are averaged.
        rate: of the step that all take together; 1 is the mean of the ways.
        momentum: of these steps (Nesterov); DiLoCo has a rate of 0.7 and a momentum of 0.9, sent as they are.
        decay: of what codes left out, each time; below 1 old ways are forgotten.
        fragments: parts of the model that meet one after the other within a period.
        delay: steps during which what is sent travels.
    """

    period: int = 30
    averaging: Averaging = field(
        default_factory=lambda: Coded(codec=ChunkTopK(k=64, chunk=4096, values=TwoLevels()))
    )
    rate: float = 1.0
    momentum: float = 0.0
    decay: float = 0.95
    fragments: int = 1
    delay: int = 0

    def __post_init__(self) -> None:
        if self.period < 1:
            raise ValueError(f"period must be at least 1, not {self.period}")
        if not 1 <= self.fragments <= self.period:
            raise ValueError(
                f"fragments must be from 1 to the period, {self.period}, not {self.fragments}"
            )
        if not 0 <= self.delay < self.period:
            raise ValueError(
                f"delay must be from 0 to less than the period, {self.period}, not {self.delay}"
            )
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be from 0 to below 1, not {self.momentum}")
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay must be above 0 and at most 1, not {self.decay}")
        if self.momentum and self.averaging.momentum:
            raise ValueError(
                f"momentum must be 0 where ways have it already, from {self.averaging.name}, not {self.momentum}"
            )
        if not self.rate > 0:
            raise ValueError(f"rate must be above 0, not {self.rate}")


class Walk:
    """The run of `LocalSteps` on one rank.

    Args:
        parameters: Paddle's on the CPU, or arrays of float32; the same values on all ranks at the beginning.
        group: of ranks.
    """

    def __init__(self, parameters: Sequence[Any], group: Group, config: LocalSteps) -> None:
        self.config, self._group = config, group
        self.step = 0
        self._fragments = [
            _Fragment(part, number, group, config)
            for number, part in enumerate(_divided(parameters, config.fragments))
        ]
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="meetings")

    def after_step(self) -> None:
        """Called after each step of the user's optimizer; changes parameters where ranks meet.

        Raises:
            TransportError: a rank is missing.
        """
        self.step += 1
        for fragment in self._fragments:
            if fragment.due == self.step:
                fragment.finish()
        for number, fragment in enumerate(self._fragments):
            offset = number * self.config.period // len(self._fragments)
            if (self.step + offset) % self.config.period == 0:
                fragment.begin(self._thread, self.step)
                if self.config.delay == 0:
                    fragment.finish()

    def meet(self) -> None:
        """Makes all ranks' parameters the same now, as at the end of training or before it is measured."""
        for fragment in self._fragments:
            fragment.finish()
        for fragment in self._fragments:
            fragment.begin(self._thread, self.step)
            fragment.finish()

    def state(self) -> dict[str, np.ndarray]:
        """What a later run needs to go on exactly, on this rank, beside parameters and optimizer.

        Raises:
            RuntimeError: something travels: call it after `meet`, or between meetings.
        """
        found: dict[str, np.ndarray] = {"step": np.array(self.step)}
        for number, fragment in enumerate(self._fragments):
            found |= named(str(number), fragment.state())
        return found

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """
        Raises:
            ValueError: it is of another model or strategy.
        """
        for number, fragment in enumerate(self._fragments):
            fragment.load(part_of(state, str(number)))
        self.step = int(state["step"])

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        for fragment in self._fragments:
            fragment.close()


class _Fragment:
    """Parameters that meet together."""

    def __init__(
        self, parameters: Sequence[Any], number: int, group: Group, config: LocalSteps
    ) -> None:
        self._parameters, self._group, self._config = list(parameters), group, config
        shapes = [tuple(view_of(one, "parameters").shape) for one in self._parameters]
        self._averager: Averager = config.averaging.start(shapes, number, group)
        self._anchor = self._here()  #: where all ranks were last
        self._begun = np.empty_like(self._anchor)  #: where this rank was when what travels set out
        self._speed = np.zeros_like(self._anchor) if config.momentum else np.empty(0, np.float32)
        self._travels: Future[np.ndarray] | None = None
        self.due = -1

    def begin(self, thread: ThreadPoolExecutor, step: int) -> None:
        self._begun = self._here()
        way = self._anchor - self._begun
        self._travels = thread.submit(self._average, step, way)
        self.due = step + self._config.delay

    def finish(self) -> None:
        """Waits for what travels, and meets; does nothing where nothing travels."""
        if self._travels is None:
            return
        travels, self._travels, self.due = self._travels, None, -1
        way = travels.result()
        if self._config.momentum:
            self._speed *= self._config.momentum
            self._speed += way
            way = way + self._config.momentum * self._speed
        self._anchor = self._anchor - np.float32(self._config.rate) * way
        self._place(self._anchor + (self._here() - self._begun))

    def _average(self, step: int, way: np.ndarray) -> np.ndarray:
        if self._config.decay != 1:
            self._averager.fade(self._config.decay)
        return self._averager.averaged(self._group, step, way)

    def _here(self) -> np.ndarray:
        """The parameters, flat and in float32."""
        flat = [view_of(one).reshape(-1).astype(np.float32) for one in self._parameters]
        return np.concatenate(flat)

    def _place(self, flat: np.ndarray) -> None:
        begin = 0
        for one in self._parameters:
            view = view_of(one).reshape(-1)
            view[...] = flat[begin : begin + view.size]
            begin += view.size

    def state(self) -> dict[str, np.ndarray]:
        if self._travels is not None:
            raise RuntimeError(
                "something travels between ranks: call state after meet, or between meetings"
            )
        found = {"anchor": self._anchor.copy(), "speed": self._speed.copy()}
        return found | named("averager", self._averager.state())

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        if state.get("anchor", np.empty(0)).shape != self._anchor.shape or (
            state.get("speed", np.empty(0)).shape != self._speed.shape
        ):
            raise ValueError("state is of another model or strategy")
        self._averager.load(part_of(state, "averager"))
        self._anchor, self._speed = np.array(state["anchor"]), np.array(state["speed"])

    def close(self) -> None:
        self._averager.close()


def _divided(parameters: Sequence[Any], parts: int) -> list[list[Any]]:
    """Parts of about the same number of elements, in the model's order; none is empty.

    Raises:
        ValueError: there are fewer parameters than parts.
    """
    if len(parameters) < parts:
        raise ValueError(
            f"fragments must be at most the number of parameters, {len(parameters)}, not {parts}"
        )
    ends = np.cumsum([int(np.prod(one.shape)) for one in parameters])
    cuts = [0]
    for part in range(1, parts):
        cut = int(np.searchsorted(ends, part * ends[-1] / parts)) + 1
        cuts.append(min(max(cut, cuts[-1] + 1), len(parameters) - parts + part))
    return [list(parameters[begin:end]) for begin, end in zip(cuts, [*cuts[1:], len(parameters)])]
