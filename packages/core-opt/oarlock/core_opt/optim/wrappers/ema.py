"""Exponential moving average of the parameters."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

import paddle

from .. import _checks
from .._state import parameters
from ._wrapper import Wrapper, copy, count, number, read


class EMA(Wrapper):
    r"""Average of the parameters over the steps, for evaluation.

    .. math::
        \bar\theta_1 = \theta_1, \qquad
        \bar\theta_t = d_t\, \bar\theta_{t-1} + (1 - d_t)\, \theta_t

    Built on an optimiser it is one: each step updates the average. Built on a model or on
    parameters, call ``update()`` after each step::

        ema = EMA(optim.create("adamw", model), decay=0.999)   # loss.backward(); ema.step()
        with ema.average():
            evaluate(model)                                    # the model holds the average

    Averages are float32 (float64 of float64 parameters), also of bfloat16 parameters, and follow
    master weights where the optimiser has any. Buffers are not averaged.

    Args:
        source: an optimiser, of this package or Paddle's; or a model, or a list of parameters.
        decay: :math:`d` in [0, 1).
        warmup: :math:`d_t = \min(d, (1 + t) / (10 + t))`, so that early parameters fade sooner.
        debias: start from zero and divide by :math:`1 - \prod d_i`, as Adam does; all parameters
            count by their age alone, where otherwise the first weighs more.
        update_after: updates during which the average is just the current parameters; it starts
            with the next one (an average of the tail).

    Raises:
        ValueError: a wrong argument; or ``source`` is a SAM: write SAM(EMA(...)); or it averages by
            itself, as Schedule-Free AdamW: evaluate under its ``averaged()``. Built on a model, an
            EMA cannot know.

    Source: Polyak & Juditsky 1992; Izmailov et al., 1803.05407; the warm-up is TensorFlow's.
    """

    own: ClassVar[frozenset[str]] = Wrapper.own | {
        "decay",
        "warmup",
        "debias",
        "update_after",
        "updates",
        "shadow",
        "_missing",
        "_parameters",
        "_kept",
    }
    kind: ClassVar[str] = "ema"
    combines_steps: ClassVar[bool] = True

    def __init__(
        self,
        source: paddle.optimizer.Optimizer | paddle.nn.Layer | Iterable,
        decay: float = 0.999,
        *,
        warmup: bool = False,
        debias: bool = False,
        update_after: int = 0,
    ):
        self.decay = _checks.fraction("decay", decay)
        self.warmup = _checks.flag("warmup", warmup)
        self.debias = _checks.flag("debias", debias)
        self.update_after = _checks.whole("update_after", update_after, 0)
        self.updates = 0
        self.shadow: dict[str, paddle.Tensor] = {}
        self._missing = 1.0  # product of the decays: the weight that no parameter has yet
        self._kept: list[tuple] | None = None
        self._parameters: list[paddle.Tensor] = []
        if isinstance(source, paddle.optimizer.Optimizer):
            super().__init__(source)
            return
        if isinstance(source, paddle.nn.Layer):
            source = [p for p in source.parameters() if not p.stop_gradient]
        items = _checks.parameters(source)
        if isinstance(items[0], dict):
            items = [parameter for group in items for parameter in group["params"]]
        self.optimizer = None
        self._parameters = items

    def members(self) -> list[paddle.Tensor]:
        return self._parameters if self.optimizer is None else parameters(self.optimizer)

    def before_step(self) -> None:
        self._refuse_swapped("step()")

    def after_step(self) -> None:
        self.update()

    def step(self) -> None:
        """Let the optimiser step, then update the average."""
        if self.optimizer is None:
            raise ValueError(
                "this EMA has no optimiser: call its update() after the optimiser's step(), or "
                "build it on the optimiser, EMA(optimizer)."
            )
        super().step()

    @paddle.no_grad()
    def update(self) -> None:
        """Take the current parameters into the average; ``step()`` does it by itself."""
        self._refuse_swapped("update()")
        self.updates += 1
        number = self.updates - self.update_after
        if number < 1:
            return
        decay = min(self.decay, (1 + number) / (10 + number)) if self.warmup else self.decay
        for parameter in self.members():
            value = self.wide(parameter)
            shadow = self.shadow.get(parameter.name)
            if shadow is None:
                shadow = self.shadow[parameter.name] = copy(value)
                if self.debias:
                    shadow.scale_(1 - decay)
                continue
            shadow.add_((value.astype(shadow.dtype) - shadow).scale_(1 - decay))
        self._missing *= decay

    def averages(self) -> dict[str, paddle.Tensor]:
        """The averages by parameter name, float32; the parameters themselves before any is there."""
        found = {}
        for parameter in self.members():
            shadow = self.shadow.get(parameter.name)
            if shadow is None:
                found[parameter.name] = copy(self.wide(parameter))
            else:
                found[parameter.name] = shadow * (1 / (1 - self._missing if self.debias else 1.0))
        return found

    @paddle.no_grad()
    def swap(self) -> None:
        """Put the averages in the parameters' place, or the parameters back, bit for bit."""
        if self._kept is not None:
            for parameter, kept in self._kept:
                paddle.assign(kept, output=parameter)
            self._kept = None
            return
        averages = self.averages()
        self._kept = [(parameter, parameter.detach().clone()) for parameter in self.members()]
        for parameter, _ in self._kept:
            paddle.assign(averages[parameter.name].astype(parameter.dtype), output=parameter)

    @contextlib.contextmanager
    def average(self) -> Iterator[None]:
        """Within the block the parameters are the averages."""
        self._refuse_swapped("average()")
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def _refuse_swapped(self, call: str) -> None:
        if self._kept is not None:
            raise ValueError(
                f"{call} while the parameters are swapped for their averages; call swap() first, "
                "or leave the average() block."
            )

    def state_dict(self) -> dict:
        """State of the optimiser, if there is one, and the averages."""
        return self.own_state() if self.optimizer is None else super().state_dict()

    def set_state_dict(self, state: Mapping) -> None:
        """Continue from ``state_dict()`` bit for bit; checks everything before it changes anything.

        Raises:
            ValueError: an average is missing or has another shape, or the parameters are swapped.
        """
        self._refuse_swapped("set_state_dict()")
        if self.optimizer is None:
            plan = self.check_own(state, state)
            with paddle.no_grad():
                self.commit_own(plan)
        else:
            super().set_state_dict(state)

    load_state_dict = set_state_dict
    set_dict = set_state_dict

    def wide(self, parameter) -> paddle.Tensor:
        return parameter if self.optimizer is None else super().wide(parameter)

    def own_keys(self) -> list[str]:
        averages = [self.state_key(parameter, "average") for parameter in self.members()]
        return [self.count_key(), self.count_key("missing"), *averages]

    def own_state(self) -> dict:
        if not self.updates:
            return {}
        state = {
            self.state_key(parameter, "average"): self.shadow[parameter.name]
            for parameter in self.members()
            if parameter.name in self.shadow
        }
        state[self.count_key()] = count(self.updates)
        state[self.count_key("missing")] = paddle.to_tensor(
            [self._missing], dtype="float64", place=paddle.CPUPlace()
        )
        return state

    def check_own(self, mine: Mapping, state: Mapping):
        if self.count_key() not in mine:
            if any(key not in ("LR_Scheduler", "StructuredToParameterName@@") for key in state):
                raise ValueError(
                    "the state has no averages: it was saved without EMA. Load it into the "
                    "optimiser inside, ema.optimizer.set_state_dict(state)."
                )
            return 0, 1.0, {}
        updates = int(number(self.count_key(), mine))
        missing = number(self.count_key("missing"), mine)
        shadow = {}
        if updates > self.update_after:
            shadow = {
                parameter.name: read(self.state_key(parameter, "average"), mine, parameter.shape)
                for parameter in self.members()
            }
        return updates, missing, shadow

    def commit_own(self, plan) -> None:
        self.updates, self._missing, loaded = plan
        self.shadow = {}
        for parameter in self.members():
            if parameter.name in loaded:
                shadow = self.shadow[parameter.name] = copy(self.wide(parameter))
                shadow.set_value(loaded[parameter.name].astype(shadow.dtype))
