"""MARS-AdamW: AdamW on gradients whose variance is reduced by those of the step before."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping

import paddle
from paddle.nn.clip import GradientClipBase
from paddle.optimizer.lr import LRScheduler

from . import _checks
from ._base import Optimizer
from ._moments import denominator
from ._norms import norm
from ._registry import register
from ._roles import Role, Roles
from ._rule import Batch, Rule
from .adamw import AdamWRule


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MARSRule(Rule):
    """Options and update of MARS-AdamW.

    ``layout`` says what the parameter is: a ``matrix`` of two axes or more, or a ``vector``.
    """

    beta1: float = 0.95
    beta2: float = 0.99
    epsilon: float = 1e-8
    gamma: float = 0.025
    max_norm: float = 1.0
    layout: str = "matrix"

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        _checks.fraction("beta1", self.beta1)
        _checks.fraction("beta2", self.beta2)
        _checks.real("epsilon", self.epsilon, 0.0, math.inf, open_low=True, open_high=True)
        _checks.non_negative("gamma", self.gamma)
        _checks.real("max_norm", self.max_norm, 0.0, math.inf, open_low=True, open_high=True)
        _checks.choice("layout", self.layout, ("matrix", "vector"))

    def state(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        return {"moment1": shape, "moment2": shape, "previous_grad": shape}

    def check(self, name: str, parameter: paddle.Tensor) -> None:
        remedy = "Gather it, or give it the role vector without optimize_1d"
        if self.layout == "vector":
            remedy = "Gather it, or pass optimize_1d=False"
        remedy += ", so that AdamW updates it."
        self.refuse_slice(name, parameter, remedy)
        if self.layout == "matrix" and parameter.ndim < 2:
            raise ValueError(
                f"parameter {name!r} has shape {list(parameter.shape)}, but its role is that of a "
                "matrix, whose norm MARS takes. If it is a flattened shard, gather the matrix "
                "first; else give it the role vector."
            )

    def native(self, batch: Batch) -> None:
        from oarlock.native import optim as kernels

        kernels.mars_adamw(
            batch.parameters,
            batch.grads,
            batch.states["previous_grad"],
            batch.states["moment1"],
            batch.states["moment2"],
            lr=batch.lr,
            beta1=self.beta1,
            beta2=self.beta2,
            eps=self.epsilon,
            gamma=self.gamma,
            weight_decay=self.weight_decay,
            step=batch.step,
            max_norm=self.max_norm,
            grad_scale=batch.grad_scale,
            rounding_seed=batch.rounding_seed,
        )

    def plain(self, batch: Batch) -> None:
        factor = self.gamma * self.beta1 / (1 - self.beta1)
        correction1 = 1 - self.beta1**batch.step
        states = zip(*(batch.states[key] for key in ("previous_grad", "moment1", "moment2")))
        for parameter, grad, (previous, m, v) in zip(batch.parameters, batch.grads, states):
            corrected = grad if batch.step == 1 else grad + (grad - previous).scale_(factor)
            shrink = paddle.clip(self.max_norm / norm(corrected), max=1.0)
            corrected = corrected * shrink.astype(corrected.dtype)
            m.scale_(self.beta1).add_(corrected * (1 - self.beta1))
            v.scale_(self.beta2).add_(paddle.square(corrected) * (1 - self.beta2))
            scale = denominator(v, self.beta2, batch.step, self.epsilon)
            parameter.scale_(1 - batch.lr * self.weight_decay)
            parameter.subtract_((m / scale).scale_(batch.lr / correction1))
            paddle.assign(grad, output=previous)


@register(
    "mars",
    paper="2411.10438",
    year=2024,
    state_bytes_per_parameter=12,
    description="AdamW on variance-reduced gradients; plain AdamW for vectors.",
    needs_roles=True,
)
class MARS(Optimizer):
    r"""MARS-AdamW, the approximate variant; AdamW for vectors.

    With the gradient :math:`g_t` of a tensor and that of the step before, taken then,

    .. math::
        c_t = g_t + \gamma \frac{\beta_1}{1-\beta_1} (g_t - g_{t-1}), \qquad
        \tilde c_t = c_t \min(1, n / \lVert c_t \rVert_2), \qquad g_0 = g_1

        m_t = \beta_1 m_{t-1} + (1-\beta_1) \tilde c_t, \quad
        v_t = \beta_2 v_{t-1} + (1-\beta_2) \tilde c_t^2

        \theta_t = (1 - \eta\lambda)\,\theta_{t-1}
        - \eta\, \frac{m_t / (1-\beta_1^t)}{\sqrt{v_t / (1-\beta_2^t)} + \epsilon}

    The exact variant, which takes :math:`g_{t-1}` anew at the old parameters on the new batch and
    so doubles the cost of a step, is not offered. The first step has no correction, as in the
    paper (the authors' code takes :math:`g_0 = 0`).

    Args:
        learning_rate: :math:`\eta`, a number >= 0 or an LRScheduler.
        parameters: parameters, or groups that may override the options.
        roles: roles of the parameters, ``oarlock.core_opt.optim.roles(model)``.
        beta1, beta2: decay of the moments, in [0, 1).
        epsilon: > 0.
        gamma: scale :math:`\gamma` >= 0 of the correction; 0 is AdamW with gradients clipped.
        max_norm: :math:`n` > 0, for each tensor.
        weight_decay: :math:`\lambda` >= 0.
        optimize_1d: whether vectors are updated by MARS too, with the options above.
        adamw_lr_scale: AdamW's learning rate over that of MARS, >= 0.
        adamw_beta1, adamw_beta2, adamw_epsilon, adamw_weight_decay: options of the AdamW part.

    The other arguments are those of ``Optimizer``. Sharded parameters are refused, since the norm
    is that of the whole tensor.

    Source: Yuan et al., 2411.10438; defaults of the authors' code.
    """

    def __init__(
        self,
        learning_rate: float | LRScheduler = 3e-3,
        parameters: Iterable | None = None,
        roles: Roles | Mapping[str, Role] | None = None,
        beta1: float = 0.95,
        beta2: float = 0.99,
        epsilon: float = 1e-8,
        gamma: float = 0.025,
        weight_decay: float = 0.0,
        grad_clip: GradientClipBase | None = None,
        multi_precision: bool = False,
        *,
        max_norm: float = 1.0,
        optimize_1d: bool = False,
        adamw_lr_scale: float = 1.0,
        adamw_beta1: float = 0.9,
        adamw_beta2: float = 0.95,
        adamw_epsilon: float = 1e-8,
        adamw_weight_decay: float = 0.1,
        apply_decay_param_fun: Callable[[str], bool] | None = None,
        stochastic_rounding: bool = False,
        seed: int = 0,
        nonfinite: str = "raise",
        path: str | None = None,
        name: str | None = None,
    ):
        rule = MARSRule(
            beta1=beta1,
            beta2=beta2,
            epsilon=epsilon,
            gamma=gamma,
            max_norm=max_norm,
            weight_decay=weight_decay,
        )
        adamw = AdamWRule(
            beta1=adamw_beta1,
            beta2=adamw_beta2,
            epsilon=adamw_epsilon,
            weight_decay=adamw_weight_decay,
            lr_scale=adamw_lr_scale,
        )
        _checks.flag("optimize_1d", optimize_1d)
        vector = dataclasses.replace(rule, layout="vector") if optimize_1d else adamw
        super().__init__(
            learning_rate=learning_rate,
            parameters=parameters,
            rules={**dict.fromkeys(Role, rule), Role.VECTOR: vector},
            roles=roles,
            grad_clip=grad_clip,
            multi_precision=multi_precision,
            apply_decay_param_fun=apply_decay_param_fun,
            stochastic_rounding=stochastic_rounding,
            seed=seed,
            nonfinite=nonfinite,
            path=path,
            name=name,
        )
