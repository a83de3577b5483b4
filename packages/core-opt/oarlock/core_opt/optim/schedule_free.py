"""Schedule-Free AdamW: averaging in the place of a learning-rate schedule."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import ClassVar

import paddle
from paddle.nn.clip import GradientClipBase
from paddle.optimizer.lr import LRScheduler

from . import _checks, _state
from ._base import Optimizer
from ._moments import denominator
from ._registry import register
from ._rounding import round_to
from ._rule import Batch, Rule, options


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleFreeRule(Rule):
    """Options of Schedule-Free AdamW."""

    decoupled: ClassVar[bool] = False  # decay is a part of the step that z takes

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        _checks.real("beta1", self.beta1, 0.0, 1.0, open_low=True, open_high=True)
        _checks.fraction("beta2", self.beta2)
        _checks.real("epsilon", self.epsilon, 0.0, math.inf, open_low=True, open_high=True)
        _checks.whole("warmup_steps", self.warmup_steps, 0)

    def state(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        return {"z": shape, "moment2": shape}

    def warmed(self, lr: float, step: int) -> float:
        """The learning rate of this step, with the warm-up."""
        return lr * min(1.0, step / self.warmup_steps) if self.warmup_steps else lr


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleFreeStep(ScheduleFreeRule):
    """Update of one step, in which the newest iterate has this weight in the average."""

    average_weight: float

    def native(self, batch: Batch) -> None:
        from oarlock.native import optim as kernels

        _start(batch)
        kernels.schedule_free_adamw(
            batch.parameters,
            batch.grads,
            batch.states["z"],
            batch.states["moment2"],
            lr=batch.lr,
            beta1=self.beta1,
            beta2=self.beta2,
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            step=batch.step,
            average_weight=self.average_weight,
            grad_scale=batch.grad_scale,
            rounding_seed=batch.rounding_seed,
        )

    def plain(self, batch: Batch) -> None:
        _start(batch)
        along = batch.lr * (self.beta1 * (1 - self.average_weight) - 1)
        states = zip(batch.states["z"], batch.states["moment2"])
        for y, grad, (z, v) in zip(batch.parameters, batch.grads, states):
            v.scale_(self.beta2).add_(paddle.square(grad) * (1 - self.beta2))
            scale = denominator(v, self.beta2, batch.step, self.epsilon)
            update = grad / scale
            if self.weight_decay:
                update.add_(y * self.weight_decay)
            y.add_((z - y).scale_(self.average_weight)).add_(update * along)
            z.subtract_(update.scale_(batch.lr))


def _start(batch: Batch) -> None:
    if batch.step == 1:
        for y, z in zip(batch.parameters, batch.states["z"]):
            paddle.assign(y.astype(z.dtype), output=z)


@dataclasses.dataclass(frozen=True, slots=True)
class Average:
    """Weights of the iterates of one parameter so far: the largest learning rate and the sum."""

    lr_max: float = 0.0
    total: float = 0.0

    def then(self, lr: float) -> tuple["Average", float]:
        """The average after a step at ``lr``, and the share of that step's iterate in it."""
        lr_max = max(self.lr_max, lr)
        total = self.total + lr_max**2
        return Average(lr_max, total), lr_max**2 / total if total else 0.0


@register(
    "schedule_free_adamw",
    paper="2405.15682",
    year=2024,
    state_bytes_per_parameter=8,
    description="AdamW that averages its iterates and so needs no decay of the learning rate.",
)
class ScheduleFreeAdamW(Optimizer):
    r"""Schedule-Free AdamW: gradients at y, steps of z, and the average x for use.

    .. math::
        v_t = \beta_2 v_{t-1} + (1-\beta_2) g_t^2, \qquad
        u_t = \frac{g_t(y_t)}{\sqrt{v_t / (1-\beta_2^t)} + \epsilon} + \lambda y_t

        z_{t+1} = z_t - \eta_t u_t, \qquad
        x_{t+1} = (1 - c_t)\, x_t + c_t z_{t+1}, \qquad
        y_{t+1} = (1-\beta_1)\, z_{t+1} + \beta_1 x_{t+1}

    with :math:`\eta_t = \eta \min(1, t / t_{warm})` and the weights
    :math:`c_t = w_t / \sum_{s \le t} w_s`, :math:`w_t = \max_{s \le t} \eta_s^2`. While it trains
    the parameters hold y. The average x, on which to evaluate, and which to ship, takes its place
    with ``eval()``; ``train()`` brings y back bit for bit:

    >>> with optimizer.averaged():
    ...     loss = evaluate(model)
    ...     paddle.save(model.state_dict(), "model.pdparams")

    The copy of y costs the memory of the parameters while the average is in place. With master
    weights x is taken from them, else from the parameters. Those in bfloat16 need master weights
    or stochastic rounding: y moves by a share of about 1 / t, which rounding to nearest loses.
    Batch normalisation gathers its statistics at y: before evaluating, run some batches through the
    model with x in place.

    Args:
        learning_rate: :math:`\eta`, a number >= 0; or an LRScheduler, which is not needed. Its rate
            is multiplied by the warm-up, and the highest so far sets the weight of an iterate.
        beta1: share of x in y, in (0, 1).
        beta2: decay of the second moment, in [0, 1).
        epsilon: > 0.
        parameters: parameters, or groups that may override the options.
        weight_decay: :math:`\lambda` >= 0, at y.
        warmup_steps: :math:`t_{warm}` >= 0, steps of linear warm-up.

    The other arguments are those of ``Optimizer``.

    Save the model and ``state_dict()`` in the same mode: a state saved after ``eval()`` holds y,
    and loading it puts the optimiser after ``eval()`` again, with x expected in the parameters.

    ``EMA`` and ``Lookahead`` refuse it: they would average or move y without z. ``SAM`` may be put
    around it.

    Source: Defazio et al., 2405.15682; defaults of the authors' code (r = 0, power 2).
    """

    averages: ClassVar[bool] = True

    def __init__(
        self,
        learning_rate: float | LRScheduler = 0.0025,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        parameters: Iterable | None = None,
        weight_decay: float = 0.0,
        grad_clip: GradientClipBase | None = None,
        multi_precision: bool = False,
        *,
        warmup_steps: int = 0,
        apply_decay_param_fun: Callable[[str], bool] | None = None,
        stochastic_rounding: bool = False,
        seed: int = 0,
        nonfinite: str = "raise",
        path: str | None = None,
        name: str | None = None,
    ):
        self._averages: dict[str, Average] = {}
        self._kept: dict[str, paddle.Tensor] | None = None  # y by name, while x is in place
        super().__init__(
            learning_rate=learning_rate,
            parameters=parameters,
            rules=ScheduleFreeRule(
                beta1=beta1,
                beta2=beta2,
                epsilon=epsilon,
                weight_decay=weight_decay,
                warmup_steps=warmup_steps,
            ),
            grad_clip=grad_clip,
            multi_precision=multi_precision,
            apply_decay_param_fun=apply_decay_param_fun,
            stochastic_rounding=stochastic_rounding,
            seed=seed,
            nonfinite=nonfinite,
            path=path,
            name=name,
        )

    # Modes --------------------------------------------------------------------------------------

    @paddle.no_grad()
    def eval(self) -> None:
        """Put the average x into the parameters; nothing if it is there."""
        if self._kept is not None:
            return
        self._kept = {}
        for parameter in _state.parameters(self):
            slot = self._slots[parameter.name]
            assert isinstance(slot.rule, ScheduleFreeRule)
            if not slot.step:  # x, y and z are one
                continue
            self._kept[slot.name] = parameter.clone()
            z = slot.states["z"]
            y = self._target(parameter).astype(z.dtype)
            round_to(parameter, y + (z - y).scale_(1 - 1 / slot.rule.beta1), None)

    @paddle.no_grad()
    def train(self) -> None:
        """Bring y back into the parameters, bit for bit; nothing if it is there."""
        kept = self._kept or {}
        for parameter in _state.parameters(self):
            if parameter.name in kept:
                paddle.assign(kept[parameter.name], output=parameter)
        self._kept = None

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The parameters hold x inside this context, and after it what they held before."""
        inside = self._kept is not None
        self.eval()
        try:
            yield
        finally:
            if not inside:
                self.train()

    # The step -----------------------------------------------------------------------------------

    def _take(self, work: list[tuple]) -> None:
        if self._kept is not None:
            raise ValueError(
                "the parameters hold the average x; call optimizer.train() before the forward "
                "pass of a training step."
            )
        super()._take(work)

    def _run(self, rule: Rule, lr: float, step: int, scale: float, native: bool, members) -> None:
        assert isinstance(rule, ScheduleFreeRule)
        lr = rule.warmed(lr, step)
        shared: dict[Average, list] = {}
        for member in members:
            shared.setdefault(self._averages.get(member[-1].name, Average()), []).append(member)
        for average, some in shared.items():
            average, weight = average.then(lr)
            chosen = {key: getattr(rule, key) for key in options(rule)}
            update = ScheduleFreeStep(**chosen, average_weight=weight)
            super()._run(update, lr, step, scale, native, some)
            self._averages.update((slot.name, average) for *_, slot in some)

    # State --------------------------------------------------------------------------------------

    def state_dict(self) -> dict:
        """As ``Optimizer.state_dict``, with the weights of the average, and y after ``eval()``."""
        state = super().state_dict()
        for name, average in self._averages.items():
            state[f"{name}_{self._state_key('average')}_0"] = paddle.to_tensor(
                [average.lr_max, average.total], dtype="float64", place=paddle.CPUPlace()
            )
        for name, y in (self._kept or {}).items():
            state[f"{name}_{self._state_key('y')}_0"] = y
        return state

    @paddle.no_grad()
    def set_state_dict(self, state: Mapping) -> None:
        """As ``Optimizer.set_state_dict``; the mode becomes that in which the state was saved."""
        averages, kept = {}, {}
        for parameter in _state.parameters(self):
            name = parameter.name
            found = _state.entries_of(self, name, state)
            if "average" in found:
                pair = _state.checked(f"average of {name}", found["average"], (2,))
                lr_max, total = pair.astype("float64").numpy()
                averages[name] = Average(float(lr_max), float(total))
            elif "z" in found:
                raise ValueError(f"the state lacks ['average'] for parameter {name!r}.")
            if "y" in found:
                y = _state.checked(f"y of {name}", found["y"], tuple(parameter.shape))
                if y.dtype != parameter.dtype:
                    raise ValueError(
                        f"'y of {name}' is {y.dtype} in the state, but the parameter is "
                        f"{parameter.dtype}; load it as it was saved, before casting the model."
                    )
                with paddle.base.dygraph.guard(parameter.place):
                    kept[name] = paddle.assign(y)
        super().set_state_dict(state)
        self._averages, self._kept = averages, kept or None

    load_state_dict = set_state_dict
    set_dict = set_state_dict
