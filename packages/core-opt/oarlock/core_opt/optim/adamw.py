"""AdamW: Adam with decoupled weight decay."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping

import paddle
from paddle.nn.clip import GradientClipBase
from paddle.optimizer.lr import LRScheduler

from . import _checks
from ._base import Optimizer
from ._moments import denominator
from ._registry import register
from ._rule import Batch, Rule

SMALLEST = 2.0**-126  # of normal float32


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AdamWRule(Rule):
    """Options and update of AdamW."""

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        _checks.fraction("beta1", self.beta1)
        _checks.fraction("beta2", self.beta2)
        _checks.real("epsilon", self.epsilon, 0.0, math.inf, open_low=True, open_high=True)

    def state(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        return {"moment1": shape, "moment2": shape}

    def saved_step(self, entries: Mapping) -> int | None:
        """Also reads Paddle's own AdamW, which saves beta2^(step + 1) in place of the step."""
        if "step" in entries or "beta2_pow_acc" not in entries:
            return Rule.saved_step(self, entries)
        if not self.beta2:
            raise ValueError("with beta2=0 the state of Paddle's AdamW does not tell the step.")
        power = max(entries["beta2_pow_acc"].item(), SMALLEST)  # 0 after very many steps
        return max(0, round(math.log(power) / math.log(self.beta2)) - 1)

    def native(self, batch: Batch) -> None:
        from oarlock.native import optim as kernels

        kernels.adamw(
            batch.parameters,
            batch.grads,
            batch.states["moment1"],
            batch.states["moment2"],
            lr=batch.lr,
            beta1=self.beta1,
            beta2=self.beta2,
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            step=batch.step,
            grad_scale=batch.grad_scale,
            rounding_seed=batch.rounding_seed,
        )

    def plain(self, batch: Batch) -> None:
        correction1 = 1 - self.beta1**batch.step
        moments = zip(batch.states["moment1"], batch.states["moment2"])
        for parameter, grad, (m, v) in zip(batch.parameters, batch.grads, moments):
            m.scale_(self.beta1).add_(grad * (1 - self.beta1))
            v.scale_(self.beta2).add_(paddle.square(grad) * (1 - self.beta2))
            scale = denominator(v, self.beta2, batch.step, self.epsilon)
            parameter.scale_(1 - batch.lr * self.weight_decay)
            parameter.subtract_((m / scale).scale_(batch.lr / correction1))


@register(
    "adamw",
    paper="1711.05101",
    year=2017,
    state_bytes_per_parameter=8,
    description="Adam with decoupled weight decay; the baseline.",
)
class AdamW(Optimizer):
    r"""AdamW, in one native call a step on the CPU.

    With bias-corrected moments of the gradient :math:`g_t`,

    .. math::
        m_t = \beta_1 m_{t-1} + (1-\beta_1) g_t, \quad v_t = \beta_2 v_{t-1} + (1-\beta_2) g_t^2

        \theta_t = (1 - \eta\lambda)\,\theta_{t-1}
        - \eta\, \frac{m_t / (1-\beta_1^t)}{\sqrt{v_t / (1-\beta_2^t)} + \epsilon}

    Args:
        learning_rate: :math:`\eta`, a number >= 0 or an LRScheduler.
        beta1, beta2: decay of the moments, in [0, 1).
        epsilon: > 0.
        parameters: parameters, or groups that may override the options.
        weight_decay: :math:`\lambda` >= 0.

    The other arguments are those of ``Optimizer``. Numbers of steps are kept for each parameter:
    one without a gradient is left as it is.

    Source: Loshchilov & Hutter, 1711.05101; Kingma & Ba, 1412.6980.
    """

    def __init__(
        self,
        learning_rate: float | LRScheduler = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        parameters: Iterable | None = None,
        weight_decay: float = 0.01,
        grad_clip: GradientClipBase | None = None,
        multi_precision: bool = False,
        *,
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
            rules=AdamWRule(beta1=beta1, beta2=beta2, epsilon=epsilon, weight_decay=weight_decay),
            grad_clip=grad_clip,
            multi_precision=multi_precision,
            apply_decay_param_fun=apply_decay_param_fun,
            stochastic_rounding=stochastic_rounding,
            seed=seed,
            nonfinite=nonfinite,
            path=path,
            name=name,
        )
