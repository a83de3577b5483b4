"""Lion: the sign of an interpolated momentum."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import paddle
from paddle.nn.clip import GradientClipBase
from paddle.optimizer.lr import LRScheduler

from . import _checks
from ._base import Optimizer
from ._registry import register
from ._rule import Batch, Rule


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LionRule(Rule):
    """Options and update of Lion."""

    beta1: float = 0.9
    beta2: float = 0.99

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        _checks.fraction("beta1", self.beta1)
        _checks.fraction("beta2", self.beta2)

    def state(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        return {"momentum": shape}

    def native(self, batch: Batch) -> None:
        from oarlock.native import optim as kernels

        kernels.lion(
            batch.parameters,
            batch.grads,
            batch.states["momentum"],
            lr=batch.lr,
            beta1=self.beta1,
            beta2=self.beta2,
            weight_decay=self.weight_decay,
            grad_scale=batch.grad_scale,
            rounding_seed=batch.rounding_seed,
        )

    def plain(self, batch: Batch) -> None:
        # The kernel's operations in the kernel's order: one rounding apart, a sign would flip.
        momenta = batch.states["momentum"]
        for parameter, grad, momentum in zip(batch.parameters, batch.grads, momenta):
            mixed = momentum * self.beta1 + grad * (1 - self.beta1)
            momentum.scale_(self.beta2).add_(grad * (1 - self.beta2))
            parameter.scale_(1 - batch.lr * self.weight_decay)
            parameter.subtract_(paddle.sign(mixed).scale_(batch.lr))


@register(
    "lion",
    paper="2302.06675",
    year=2023,
    state_bytes_per_parameter=4,
    description="Sign of an interpolated momentum; half of AdamW's state.",
)
class Lion(Optimizer):
    r"""Lion (evolved sign momentum), in one native call a step on the CPU.

    With the gradient :math:`g_t`,

    .. math::
        \theta_t = (1 - \eta\lambda)\,\theta_{t-1}
        - \eta\, \mathrm{sign}(\beta_1 m_{t-1} + (1-\beta_1) g_t), \qquad
        m_t = \beta_2 m_{t-1} + (1-\beta_2) g_t

    Every element moves by :math:`\eta` at each step. The authors take a learning rate 3 to 10 times
    lower than AdamW's, and a weight decay as many times higher.

    Args:
        learning_rate: :math:`\eta`, a number >= 0 or an LRScheduler.
        beta1: share of the momentum in the direction, in [0, 1).
        beta2: decay of the momentum, in [0, 1).
        parameters: parameters, or groups that may override the options.
        weight_decay: :math:`\lambda` >= 0, decoupled.

    The other arguments are those of ``Optimizer``. Defaults are those of the authors' code. The
    update does not depend on the size of the gradient: clipping by global norm changes only how
    steps weigh in the momentum.

    Source: Chen et al., 2302.06675.
    """

    def __init__(
        self,
        learning_rate: float | LRScheduler = 1e-4,
        beta1: float = 0.9,
        beta2: float = 0.99,
        parameters: Iterable | None = None,
        weight_decay: float = 0.0,
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
            rules=LionRule(beta1=beta1, beta2=beta2, weight_decay=weight_decay),
            grad_clip=grad_clip,
            multi_precision=multi_precision,
            apply_decay_param_fun=apply_decay_param_fun,
            stochastic_rounding=stochastic_rounding,
            seed=seed,
            nonfinite=nonfinite,
            path=path,
            name=name,
        )
