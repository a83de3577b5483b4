"""Lookahead: slow weights that follow the optimiser's at a distance."""

from collections.abc import Mapping
from typing import ClassVar

import paddle

from .. import _checks
from ._wrapper import Wrapper, copy, count, number, read


class Lookahead(Wrapper):
    r"""Lookahead around any optimiser.

    After every :math:`k` steps of the optimiser, from the slow weights :math:`\phi` to the fast
    ones :math:`\theta`,

    .. math::
        \phi \leftarrow \phi + \alpha (\theta - \phi), \qquad \theta \leftarrow \phi

    Slow weights start at the parameters before the first step. They are float32 (float64 beside
    float64 parameters) and follow master weights where there are any. The state of the optimiser
    inside is kept over the exchange, as in the authors' experiments. Steps that a scaler or a check
    for NaN leaves out are not counted.

    Args:
        optimizer: the optimiser that takes the fast steps, of this package or Paddle's.
        k: fast steps for each slow one, an integer >= 1.
        alpha: step size of the slow weights, in (0, 1].

    Raises:
        ValueError: a wrong argument; or ``optimizer`` is a SAM: write SAM(Lookahead(...)); or it
            averages by itself, as Schedule-Free AdamW, whose z would not move with y.

    Source: Zhang et al., 1907.08610.
    """

    own: ClassVar[frozenset[str]] = Wrapper.own | {"k", "alpha", "steps", "slow"}
    kind: ClassVar[str] = "lookahead"
    combines_steps: ClassVar[bool] = True

    def __init__(self, optimizer: paddle.optimizer.Optimizer, k: int = 5, alpha: float = 0.5):
        self.k = _checks.whole("k", k, 1)
        self.alpha = _checks.real("alpha", alpha, 0.0, 1.0, open_low=True)
        super().__init__(optimizer)
        self.steps = 0
        self.slow: dict[str, paddle.Tensor] = {}

    def before_step(self) -> None:
        for parameter in self.members():
            if not parameter.stop_gradient and parameter.name not in self.slow:
                self.slow[parameter.name] = copy(self.wide(parameter))

    @paddle.no_grad()
    def after_step(self) -> None:
        self.steps += 1
        if self.steps % self.k:
            return
        for parameter in self.members():
            slow = self.slow.get(parameter.name)
            if slow is None:
                continue
            fast = self.wide(parameter)
            slow.add_((fast.astype(slow.dtype) - slow).scale_(self.alpha))
            paddle.assign(slow.astype(fast.dtype), output=fast)
            if fast is not parameter:
                paddle.assign(slow.astype(parameter.dtype), output=parameter)

    def own_keys(self) -> list[str]:
        return [self.count_key(), *(self.state_key(p, "slow") for p in self.members())]

    def own_state(self) -> dict:
        if not self.steps:
            return {}
        slow = {
            self.state_key(parameter, "slow"): self.slow[parameter.name]
            for parameter in self.members()
            if parameter.name in self.slow
        }
        return {self.count_key(): count(self.steps), **slow}

    def check_own(self, mine: Mapping, state: Mapping):
        if not mine:
            if any(key not in ("LR_Scheduler", "StructuredToParameterName@@") for key in state):
                raise ValueError(
                    "the state has no slow weights: it was saved without Lookahead. Load it into "
                    "the optimiser inside, lookahead.optimizer.set_state_dict(state)."
                )
            return 0, {}
        steps = int(number(self.count_key(), mine))
        slow = {
            parameter.name: read(key, mine, parameter.shape)
            for parameter in self.members()
            if (key := self.state_key(parameter, "slow")) in mine or not parameter.stop_gradient
        }
        return steps, slow

    def commit_own(self, plan) -> None:
        self.steps, slow = plan
        self.slow = {}
        for parameter in self.members():
            if parameter.name in slow:
                held = self.slow[parameter.name] = copy(self.wide(parameter))
                held.set_value(slow[parameter.name].astype(held.dtype))
