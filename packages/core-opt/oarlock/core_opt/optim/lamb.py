"""LAMB: Adam's direction, scaled for each parameter to the size of its weights."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import paddle
from paddle.nn.clip import GradientClipBase
from paddle.optimizer.lr import LRScheduler

from . import _checks
from ._base import Optimizer
from ._moments import denominator
from ._norms import trust_ratio
from ._registry import register
from ._rule import Batch, Rule


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LambRule(Rule):
    """Options and update of LAMB."""

    decoupled: ClassVar[bool] = False

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-6
    max_trust_ratio: float | None = None
    always_adapt: bool = False

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        _checks.fraction("beta1", self.beta1)
        _checks.fraction("beta2", self.beta2)
        _checks.real("epsilon", self.epsilon, 0.0, math.inf, open_low=True, open_high=True)
        if self.max_trust_ratio is not None:
            _checks.real(
                "max_trust_ratio",
                self.max_trust_ratio,
                0.0,
                math.inf,
                open_low=True,
                open_high=True,
            )
        _checks.flag("always_adapt", self.always_adapt)

    @property
    def adapts(self) -> bool:
        """Whether the step is scaled to the size of the weights."""
        return self.always_adapt or self.weight_decay > 0

    def state(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        return {"moment1": shape, "moment2": shape}

    def check(self, name: str, parameter: paddle.Tensor) -> None:
        if self.adapts:
            self.refuse_slice(name, parameter, "Gather it, or update it with AdamW.")

    def native(self, batch: Batch) -> None:
        from oarlock.native import optim as kernels

        moments = batch.states["moment1"], batch.states["moment2"]
        options: dict[str, Any] = {
            "lr": batch.lr,
            "beta1": self.beta1,
            "beta2": self.beta2,
            "eps": self.epsilon,
            "weight_decay": self.weight_decay,
            "step": batch.step,
            "grad_scale": batch.grad_scale,
            "rounding_seed": batch.rounding_seed,
        }
        if self.adapts:
            limit = self.max_trust_ratio
            kernels.lamb(batch.parameters, batch.grads, *moments, max_trust_ratio=limit, **options)
        else:  # without decay and ratio the direction is AdamW's
            kernels.adamw(batch.parameters, batch.grads, *moments, **options)

    def plain(self, batch: Batch) -> None:
        correction1 = 1 - self.beta1**batch.step
        moments = zip(batch.states["moment1"], batch.states["moment2"])
        for parameter, grad, (m, v) in zip(batch.parameters, batch.grads, moments):
            m.scale_(self.beta1).add_(grad * (1 - self.beta1))
            v.scale_(self.beta2).add_(paddle.square(grad) * (1 - self.beta2))
            scale = denominator(v, self.beta2, batch.step, self.epsilon)
            direction = (m / scale).scale_(1 / correction1)
            if self.weight_decay:
                direction.add_(parameter * self.weight_decay)
            if self.adapts:
                ratio = trust_ratio(parameter, direction)
                if self.max_trust_ratio is not None:
                    ratio = ratio.clip(max=self.max_trust_ratio)
                direction.multiply_(ratio.astype(direction.dtype))
            parameter.subtract_(direction.scale_(batch.lr))


@register(
    "lamb",
    paper="1904.00962",
    year=2019,
    state_bytes_per_parameter=8,
    description="Adam scaled to each parameter's norm, for large batches.",
)
class Lamb(Optimizer):
    r"""LAMB, in one native call a step on the CPU.

    With AdamW's bias-corrected moments :math:`\hat m_t`, :math:`\hat v_t` of the gradient,

    .. math::
        r_t = \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon} + \lambda\,\theta_{t-1}, \qquad
        \phi_t = \frac{\lVert \theta_{t-1} \rVert}{\lVert r_t \rVert}, \qquad
        \theta_t = \theta_{t-1} - \eta\, \phi_t\, r_t

    for each parameter as a whole; :math:`\phi_t = 1` where either norm is 0.

    Args:
        learning_rate: :math:`\eta`, a number >= 0 or an LRScheduler. A step moves a parameter by
            :math:`\eta` of its norm; the paper scales it with the square root of the batch.
        beta1, beta2: decay of the moments, in [0, 1).
        epsilon: > 0.
        parameters: parameters, or groups that may override the options.
        weight_decay: :math:`\lambda` >= 0, part of the direction, and scaled with it.
        max_trust_ratio: upper limit of :math:`\phi_t`, > 0, or None for none. The paper bounds it
            in theory and gives no number.
        always_adapt: scale parameters without weight decay too. By default they take Adam's step
            (:math:`\phi_t = 1`), as in ``paddle.optimizer.Lamb`` and the authors' code.
        apply_decay_param_fun: given a parameter's name, whether it decays, and so is scaled. The
            authors leave out biases and the gains of normalisations.

    The other arguments are those of ``Optimizer``. Numbers are the paper's, the learning rate is
    Paddle's. A parameter that is scaled has to be whole: shards are refused.

    Source: You et al., 1904.00962.
    """

    def __init__(
        self,
        learning_rate: float | LRScheduler = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-6,
        parameters: Iterable | None = None,
        weight_decay: float = 0.01,
        grad_clip: GradientClipBase | None = None,
        multi_precision: bool = False,
        *,
        max_trust_ratio: float | None = None,
        always_adapt: bool = False,
        apply_decay_param_fun: Callable[[str], bool] | None = None,
        stochastic_rounding: bool = False,
        seed: int = 0,
        nonfinite: str = "raise",
        path: str | None = None,
        name: str | None = None,
    ):
        super().__init__(
            learning_rate=learning_rate,
            parameters=parameters,
            rules=LambRule(
                beta1=beta1,
                beta2=beta2,
                epsilon=epsilon,
                weight_decay=weight_decay,
                max_trust_ratio=max_trust_ratio,
                always_adapt=always_adapt,
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
