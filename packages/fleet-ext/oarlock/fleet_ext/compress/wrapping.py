"""Training on several ranks, in three lines.

>>> job = join()
>>> optimizer = wrap(model, optimizer, job.group, strategy="adaptive")
>>> ...                                    # the script as it was: loss.backward(), optimizer.step(), optimizer.clear_grad()
"""

import contextlib
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

import numpy as np
import paddle

from oarlock.fleet_ext.compress import adaptive
from oarlock.fleet_ext.compress.averaging import Averaging, Exact
from oarlock.fleet_ext.compress.buckets import WATCHED, samples_of
from oarlock.fleet_ext.compress.clocks import Clocks
from oarlock.fleet_ext.compress.gradients import BUCKET_BYTES, Gradients
from oarlock.fleet_ext.compress.local_steps import LocalSteps, Walk
from oarlock.fleet_ext.compress.momentum import check_optimizer
from oarlock.fleet_ext.compress.naming import averaging_of
from oarlock.fleet_ext.compress.pace import Pace, Timed
from oarlock.fleet_ext.compress.states import named, part_of
from oarlock.fleet_ext.compress.trials import Trials, tried_together
from oarlock.fleet_ext.transport import Group
from oarlock.fleet_ext.transport.arrays import view_of

FIRST = "int8"  #: before `Adaptive` has chosen, and in a warm-up
_SETTLED = 5  #: of the first steps that tell how long one takes
_PLANS = 8  #: of which it is remembered how long steps took


@dataclass(frozen=True, slots=True, kw_only=True)
class EveryStep:
    """Gradients are averaged in each step.

    Args:
        averaging: how.
        bucket_bytes: of gradients that travel together.
        delayed: take the mean of the step before.
        unused: parameters may have no gradient on some ranks.
        warm_up: steps at the beginning that are sent as int8, which leaves next to nothing. Gradients change fastest
            then, and what a code is late by costs most.
    """

    averaging: Averaging = field(default_factory=Exact)
    bucket_bytes: int = BUCKET_BYTES
    delayed: bool = False
    unused: bool = False
    warm_up: int = 0

    def __post_init__(self) -> None:
        if self.warm_up < 0:
            raise ValueError(f"warm_up must be 0 or more steps, not {self.warm_up}")
        if self.warm_up and self.averaging.momentum:
            raise ValueError(
                "warm_up must be 0 where means have momentum, which int8 has not: MomentumCorrection(warm_up=...) has one"
                " of its own"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive:
    """Gradients are averaged in each step, each bucket in the way that loses least of what the link has time for.

    Args:
        look: steps that are sent as int8, which leaves next to nothing, before the choice; they are timed but for the first
            of several. What is left out of the first steps, in which gradients change most, costs more than later.
        again: steps until link and gradients are looked at again, at most. Gradients change most in the beginning: looks
            come behind `look` steps, twice and four times as many, and so on, until they are `again` steps apart.
        slack: how much longer than with the fastest codes a step may take, as a share of its computation, where ways leave
            less for it. `most_left` is what keeps the loss; this is for ways that are nearly as fast.
        patience: how many times as long as its computation the rest of a step may take, even with these. Where that
            takes longer, ranks go some steps alone, which learns less from each.
        most_left: how much a code may have left for later steps behind a few of them, as a share of a gradient's square;
            behind an optimizer that divides by the size of gradients, as Adam does, of the square of what it makes of
            them (`weights`). Rounding, which is new in each step, counts a fifth (`trials.Trial`).
        bucket_bytes: of gradients that travel together.
        unused: parameters may have no gradient on some ranks.
    """

    look: int = 12
    again: int = 500
    slack: float = 0.005
    patience: float = 10.0
    most_left: float = 0.05
    bucket_bytes: int = BUCKET_BYTES
    unused: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.look < self.again:
            raise ValueError(
                f"look must be from 1 to less than again, {self.again}, not {self.look}"
            )
        if not 0 <= self.most_left <= 1:
            raise ValueError(f"most_left must be from 0 to 1, not {self.most_left}")
        if not self.slack >= 0:
            raise ValueError(f"slack must not be negative, as {self.slack} is")
        if not self.patience > 0:
            raise ValueError(f"patience must be above 0, not {self.patience}")


Strategy = EveryStep | LocalSteps | Adaptive


def strategy_of(name: str) -> Strategy:
    """A strategy by its name: `adaptive`, `local-steps`, or a way to average in each step.

    Raises:
        ValueError: there is none of that name.
    """
    if name == "adaptive":
        return Adaptive()
    if name == "local-steps":
        return LocalSteps()
    try:
        return EveryStep(averaging=averaging_of(name))
    except ValueError as error:
        raise ValueError(f"{error}; or adaptive, or local-steps") from None


def wrap(
    model: Any, optimizer: Any, group: Group, strategy: Strategy | str = "adaptive"
) -> "Distributed":
    """An optimizer that trains one model on all ranks of a group.

    Parameters and buffers become those of rank 0.

    Args:
        model: a Paddle layer on the CPU.
        optimizer: a Paddle optimizer of its parameters.
        group: of ranks, each of which calls this.
        strategy: what is sent and when, or its name.

    Raises:
        ValueError: ranks have different models, there is no such strategy, the optimizer is wrapped already, or it has
            momentum beside that of the averaging.
    """
    chosen = strategy_of(strategy) if isinstance(strategy, str) else strategy
    if not isinstance(chosen, (EveryStep, LocalSteps, Adaptive)):
        raise ValueError(
            f"strategy must be a name, EveryStep, LocalSteps or Adaptive, not {chosen!r}"
        )
    if isinstance(optimizer, Distributed):
        raise ValueError("optimizer is wrapped already: wrap the inner one, after its close()")
    if not hasattr(model, "parameters") or not hasattr(optimizer, "step"):
        raise ValueError("wrap takes a model, its optimizer and a group, in this order")
    if isinstance(chosen, EveryStep):
        check_optimizer(chosen.averaging, optimizer)
    parameters, buffers = list(model.parameters()), list(model.buffers())
    shapes = [[list(one.shape), str(one.dtype)] for one in (*parameters, *buffers)]
    everywhere = group.all_gather_object(shapes).wait()
    others = [rank for rank, one in enumerate(everywhere) if one != everywhere[0]]
    if others:
        raise ValueError(
            f"model must be the same on all ranks: parameters of ranks {others} differ from rank 0's in shape or type"
        )
    for one in (*parameters, *buffers):
        group.broadcast(view_of(one, "model")).wait()
    statistics = _Statistics([*(one for one in parameters if one.stop_gradient), *buffers], group)
    trained = [one for one in parameters if not one.stop_gradient]
    if isinstance(chosen, LocalSteps):
        return _Alone(optimizer, statistics, Walk(trained, group, chosen))
    first = averaging_of(FIRST)
    if isinstance(chosen, EveryStep) and not chosen.warm_up:
        first = chosen.averaging
    gradients = Gradients(
        parameters, group, first, bucket_bytes=chosen.bucket_bytes, unused=chosen.unused,
        delayed=isinstance(chosen, EveryStep) and chosen.delayed,
    )  # fmt: skip
    if isinstance(chosen, Adaptive):
        return _Choosing(optimizer, statistics, gradients, trained, group, chosen)
    return _Together(optimizer, statistics, gradients, chosen.averaging, chosen.warm_up)


class _Statistics:
    """What a model has beside trained parameters, as the means that batch normalisation keeps."""

    def __init__(self, tensors: Sequence[Any], group: Group) -> None:
        self._tensors, self._group = list(tensors), group

    def same(self) -> None:
        """Their means on all ranks; of integers, rank 0's."""
        for one in self._tensors:
            view = view_of(one)
            if view.dtype.kind in "iub":
                self._group.broadcast(view).wait()
            else:
                self._group.all_reduce(view, "mean").wait()


class Distributed:
    """A Paddle optimizer, and what ranks send each other; everything else is the inner optimizer's.

    Attributes:
        inner: the user's optimizer.
    """

    def __init__(self, optimizer: Any, statistics: _Statistics) -> None:
        self.inner, self._statistics = optimizer, statistics

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def step(self) -> None:
        """A step of training; all ranks take it.

        Raises:
            TransportError: a rank is missing.
        """
        raise NotImplementedError

    def finish(self) -> None:
        """Makes the ranks' models the same, as at the end of training or before it is measured.

        Also takes the mean of what is not trained, as batch normalisation's statistics.
        """
        self._statistics.same()

    def no_sync(self) -> contextlib.AbstractContextManager[None]:
        """Backward passes in it only add to this rank's gradients, as for a batch in parts."""
        return contextlib.nullcontext()

    def report(self) -> str:
        """What is sent, and why."""
        raise NotImplementedError

    def communication_state(self) -> dict[str, np.ndarray]:
        """What a later run needs to go on exactly, on this rank, beside the model's and the optimizer's state."""
        raise NotImplementedError

    def load_communication_state(self, state: Mapping[str, np.ndarray]) -> None:
        """
        Raises:
            ValueError: it is of another model or strategy.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Ends the threads; the group stays."""


class _Together(Distributed):
    """Gradients in each step."""

    def __init__(
        self, optimizer: Any, statistics: _Statistics, gradients: Gradients, averaging: Averaging, warm_up: int = 0
    ) -> None:  # fmt: skip
        super().__init__(optimizer, statistics)
        self.gradients, self._averaging, self._warm_up = gradients, averaging, warm_up
        self._warming = warm_up > 0

    def step(self) -> None:
        if self.gradients.finish():
            self.inner.step()
        if self._warming and self.gradients.step >= self._warm_up:
            self._warm(False)

    def _warm(self, warming: bool) -> None:
        averaging = averaging_of(FIRST) if warming else self._averaging
        self.gradients.choose([averaging] * len(self.gradients.buckets))
        self._warming = warming

    def clear_grad(self, *arguments: Any, **names: Any) -> None:
        """Paddle's; of a step that is not taken, as after a NaN, it forgets what was sent, too: all ranks call it."""
        self.gradients.drop()
        self.inner.clear_grad(*arguments, **names)

    clear_gradients = clear_grad

    def finish(self) -> None:
        if self.gradients.flush():
            self.inner.step()
        super().finish()

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        with self.gradients.no_sync():
            yield

    def report(self) -> str:
        buckets = self.gradients.buckets
        count = sum(bucket.averager.layout.count for bucket in buckets)
        first = f", in the first {self._warm_up} as {FIRST}" if self._warm_up else ""
        return f"{count:,} gradients in {len(buckets)} buckets, every step, as {self._averaging.name}{first}"

    def communication_state(self) -> dict[str, np.ndarray]:
        return self.gradients.state()

    def load_communication_state(self, state: Mapping[str, np.ndarray]) -> None:
        warming = int(state.get("step", 0)) < self._warm_up
        if warming != self._warming:
            self._warm(warming)
        self.gradients.load(state)

    def close(self) -> None:
        self.gradients.close()


class _Choosing(_Together):
    """Gradients in each step, in ways that are chosen now and then; or steps alone, where nothing is fast enough."""

    def __init__(
        self,
        optimizer: Any,
        statistics: _Statistics,
        gradients: Gradients,
        parameters: Sequence[Any],
        group: Group,
        config: Adaptive,
    ) -> None:
        super().__init__(optimizer, statistics, gradients, averaging_of(FIRST))
        self._parameters, self._group, self._config = parameters, group, config
        self._steps = 0
        self._began = Clocks.now()
        self._fresh = True  #: a first step gets its memory
        self._look = config.look  #: behind this step
        self._paces: deque[Pace] = deque(maxlen=config.again)
        self._wholes: list[float] = []  #: seconds of steps since the last look
        #: What steps took, by the ways of their buckets; the last plans' ones.
        self._timed: dict[tuple[str, ...], Timed] = {}
        self._walk: Walk | None = None
        self.plan: adaptive.Plan | None = None
        self._expect_look()

    def step(self) -> None:
        if self._walk is None:
            super().step()
        else:
            self.inner.step()
            self._walk.after_step()
            if self._near_look():
                for bucket in self.gradients.buckets:
                    bucket.keep()
        self._steps += 1
        self._time()
        if self._steps == self._look:
            self._choose()
            self._look += min(self._look, self._config.again)
            self._began = Clocks.now()
        self._expect_look()

    def finish(self) -> None:
        if self._walk is not None:
            self._walk.meet()
        super().finish()

    def report(self) -> str:
        return str(self.plan or f"not chosen yet: {super().report()}")

    def communication_state(self) -> dict[str, np.ndarray]:
        plan = None if self.plan is None else self.plan.plain
        timed = [[ways, astuple(one)] for ways, one in self._timed.items()]
        chosen = json.dumps(
            {"steps": self._steps, "look": self._look, "plan": plan, "timed": timed}
        )
        found = super().communication_state() | {
            "chosen": np.frombuffer(chosen.encode(), np.uint8),
            "paces": np.array([one.plain for one in self._paces]),
        }
        found |= {f"seen.{number}": one.seen for number, one in enumerate(self.gradients.buckets)}
        if self._walk is not None:
            found |= named("walk", self._walk.state())
        return found

    def load_communication_state(self, state: Mapping[str, np.ndarray]) -> None:
        if "chosen" not in state:
            raise ValueError('state must be of strategy "adaptive": wrap as the run before did')
        chosen = json.loads(np.asarray(state["chosen"]).tobytes())
        buckets = self.gradients.buckets
        if f"seen.{len(buckets) - 1}" not in state or f"seen.{len(buckets)}" in state:
            raise ValueError(f"state must be of {len(buckets)} buckets: is it of another model?")
        if chosen["plan"] is not None:
            self._follow(adaptive.Plan.of_plain(chosen["plan"]))
        super().load_communication_state(state)
        if self._walk is not None:
            self._walk.load(part_of(state, "walk"))
        for number, bucket in enumerate(buckets):
            bucket.seen = state[f"seen.{number}"]
        self._paces.clear()
        self._paces.extend(map(Pace.of_plain, np.asarray(state["paces"]).tolist()))
        self._timed = {
            tuple(ways): Timed(extra, coding, tuple(travels))
            for ways, (extra, coding, travels) in chosen["timed"]
        }
        self._wholes.clear()
        self._steps, self._look, self._fresh = chosen["steps"], chosen["look"], True
        self._expect_look()

    def close(self) -> None:
        if self._walk is not None:
            self._walk.close()
        super().close()

    def _time(self) -> None:
        now = Clocks.now()
        timed = self._walk is None and (self._steps == self._look or not self._fresh)
        self._fresh = False
        if timed:
            whole = now - self._began
            self._wholes.append(whole.wall)
            spent = whole - self.gradients.waiting
            self._paces.append(Pace.of(spent, self.gradients.windows, self.gradients.lanes))
        self._began = now

    def _near_look(self) -> bool:
        """Whether gradients of the step under way are for the next look."""
        return self._look - self._steps <= WATCHED

    def _expect_look(self) -> None:
        if self._walk is None and self._near_look():
            for bucket in self.gradients.buckets:
                bucket.watch()

    def _choose(self) -> None:
        link = adaptive.time_link(self._group, None if self.plan is None else self.plan.link)
        samples = samples_of(self.gradients.buckets, self.inner, self._group)
        trials = tried_together(self._group, samples)
        pace = self._pace(trials, link)
        made = None
        if self._group.rank == 0:
            made = adaptive.plan(
                trials,
                link,
                pace,
                slack=self._config.slack,
                patience=self._config.patience,
                most_left=self._config.most_left,
            )
        plan = adaptive.agreed(self._group, made)
        self._wholes.clear()
        if self._walk is not None:
            self._walk.meet()
            if plan.period == 1:
                self._share_moments()
        self._follow(plan)

    def _pace(self, trials: Sequence[Trials], link: adaptive.Link) -> Pace:
        """Of steps, with what those since the last look, and behind earlier plans, tell of codes and messages."""
        pace = Pace.typical(self._paces)
        # The very first steps get their memory, which takes as long as their codes.
        if len(self._wholes) >= (_SETTLED if self.plan is None else 1):
            buckets = self.gradients.buckets
            ways = tuple(
                [FIRST] * len(buckets)
                if self.plan is None
                else [one.averaging for one in self.plan.choices]
            )
            whole = float(np.median(self._wholes))
            self._timed.pop(ways, None)
            self._timed[ways] = adaptive.timed(whole, ways, trials, link, pace)
            while len(self._timed) > _PLANS:
                del self._timed[next(iter(self._timed))]
        return pace.fitted(list(self._timed.values()))

    def _share_moments(self) -> None:
        """Ranks that went alone have their own: one mean gradient would not be one step."""
        for one in self.inner.state_dict().values():
            if isinstance(one, paddle.Tensor) and one.is_floating_point():
                self._group.all_reduce(view_of(one), "mean").wait()

    def _follow(self, plan: adaptive.Plan) -> None:
        if self._walk is not None:
            self._walk.close()
            self._walk = None
        self.plan = plan
        self.gradients.choose([averaging_of(one.averaging) for one in plan.choices])
        self.gradients.listening = plan.period == 1
        if plan.period > 1:
            largest = max(plan.choices, key=lambda one: one.elements)
            alone = LocalSteps(
                period=plan.period, averaging=averaging_of(largest.averaging), decay=1.0
            )
            self._walk = Walk(self._parameters, self._group, alone)


class _Alone(Distributed):
    """Steps of the ranks' own, and meetings."""

    def __init__(self, optimizer: Any, statistics: _Statistics, walk: Walk) -> None:
        super().__init__(optimizer, statistics)
        self._walk = walk

    def step(self) -> None:
        self.inner.step()
        self._walk.after_step()

    def finish(self) -> None:
        self._walk.meet()
        super().finish()

    def report(self) -> str:
        config = self._walk.config
        return f"ranks meet every {config.period} steps, and send their ways as {config.averaging.name}"

    def communication_state(self) -> dict[str, np.ndarray]:
        return self._walk.state()

    def load_communication_state(self, state: Mapping[str, np.ndarray]) -> None:
        self._walk.load(state)

    def close(self) -> None:
        self._walk.close()
