"""LARS: gradient descent with momentum, scaled for each parameter to the size of its weights."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import paddle
from paddle.nn.clip import GradientClipBase
from paddle.optimizer.lr import LRScheduler

from . import _checks
from ._base import Optimizer
from ._norms import trust_ratio
from ._registry import register
from ._rule import Batch, Rule


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LarsRule(Rule):
    """Options and update of LARS."""

    decoupled: ClassVar[bool] = False

    momentum: float = 0.9
    nesterov: bool = False
    trust_coefficient: float = 0.001
    adapt_vectors: bool = False

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        _checks.fraction("momentum", self.momentum)
        _checks.flag("nesterov", self.nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov=True needs momentum > 0, got momentum 0; pass False.")
        _checks.real(
            "trust_coefficient",
            self.trust_coefficient,
            0.0,
            math.inf,
            open_low=True,
            open_high=True,
        )
        _checks.flag("adapt_vectors", self.adapt_vectors)

    def adapts(self, parameter: paddle.Tensor) -> bool:
        """Whether the step is scaled to the size of the weights."""
        return self.adapt_vectors or parameter.ndim > 1

    def state(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        return {"momentum": shape}

    def check(self, name: str, parameter: paddle.Tensor) -> None:
        # A slice of a matrix looks like a vector: what counts is what it was at first.
        if self.adapts(parameter) or len(self._shapes.get(name, ())) > 1:
            remedy = "Gather it, or update it with an optimiser that takes each element alone."
            self.refuse_slice(name, parameter, remedy)

    def native(self, batch: Batch) -> None:
        from oarlock.native import optim as kernels

        members = list(zip(batch.parameters, batch.grads, batch.states["momentum"]))
        adapted = [member for member in members if self.adapts(member[0])]
        others = [member for member in members if not self.adapts(member[0])]
        if adapted:
            kernels.lars(
                *map(list, zip(*adapted)),
                lr=batch.lr,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
                trust_coefficient=self.trust_coefficient,
                eps=0.0,
                nesterov=self.nesterov,
                grad_scale=batch.grad_scale,
                rounding_seed=batch.rounding_seed,
            )
        if others:  # vectors: little work, and the decay has to come before the momentum
            steps = [
                self._direction(parameter.astype("float32"), grad.astype("float32"), batch)
                for parameter, grad, _ in others
            ]
            seed = batch.rounding_seed
            kernels.sgd(
                [parameter for parameter, _, _ in others],
                steps,
                [buffer for _, _, buffer in others] if self.momentum else None,
                lr=1.0,
                momentum=self.momentum,
                nesterov=self.nesterov,
                rounding_seed=None if seed is None else seed + 1,  # other noise than the matrices'
            )

    def plain(self, batch: Batch) -> None:
        buffers = batch.states["momentum"]
        for parameter, grad, buffer in zip(batch.parameters, batch.grads, buffers):
            step = self._direction(parameter, grad, batch)
            if self.adapts(parameter):
                ratio = trust_ratio(parameter, grad, self.weight_decay, self.trust_coefficient)
                step.multiply_(ratio.astype(step.dtype))
            buffer.scale_(self.momentum).add_(step)
            parameter.subtract_(step + buffer * self.momentum if self.nesterov else buffer)

    def _direction(self, parameter, grad, batch: Batch) -> paddle.Tensor:
        """Gradient with weight decay, times the learning rate."""
        direction = grad * (batch.grad_scale * batch.lr)
        if self.weight_decay:
            direction.add_(parameter * (self.weight_decay * batch.lr))
        return direction


@register(
    "lars",
    paper="1708.03888",
    year=2017,
    state_bytes_per_parameter=4,
    description="Momentum scaled to each parameter's norm, for large batches.",
)
class Lars(Optimizer):
    r"""LARS (layer-wise adaptive rate scaling), in one native call a step on the CPU.

    With the gradient :math:`g_t` of a parameter of two or more axes,

    .. math::
        \phi_t = \tau\,
        \frac{\lVert \theta_{t-1} \rVert}{\lVert g_t \rVert + \lambda \lVert \theta_{t-1} \rVert},
        \qquad
        b_t = \mu\, b_{t-1} + \eta\, \phi_t\, (g_t + \lambda\,\theta_{t-1}), \qquad
        \theta_t = \theta_{t-1} - b_t

    where :math:`\phi_t = 1` if either norm is 0. Parameters of one axis take :math:`\phi_t = 1`.

    Args:
        learning_rate: :math:`\eta`, a number >= 0 or an LRScheduler. A step adds at most
            :math:`\eta\tau` of the parameter's norm to the momentum.
        momentum: :math:`\mu` in [0, 1).
        parameters: parameters, or groups that may override the options.
        weight_decay: :math:`\lambda` >= 0, added to the gradient.
        trust_coefficient: :math:`\tau` > 0.
        nesterov: subtract :math:`\eta\phi_t(g_t + \lambda\theta_{t-1}) + \mu b_t` in place of
            :math:`b_t`; needs momentum.
        adapt_vectors: scale parameters of one axis (biases, gains) too, as
            ``paddle.incubate.optimizer.LarsMomentumOptimizer`` does. Without it they take steps of
            plain momentum, in which :math:`\eta` acts without :math:`\tau`. Give them a group with
            a ``learning_rate`` factor if that is too much.
        apply_decay_param_fun: given a parameter's name, whether it decays. Usually biases and gains
            are left out.

    The other arguments are those of ``Optimizer``. :math:`\mu` and :math:`\tau` are the paper's,
    :math:`\lambda` is that of the authors' code (TensorFlow 1's LARSOptimizer), which also has a
    list of parameters that are not scaled; neither has a learning rate for all batch sizes, and 1
    is ours. Unlike Paddle's, parameters without decay are scaled. One that is scaled has to be
    whole: shards are refused.

    Source: You, Gitman & Ginsburg, 1708.03888.
    """

    def __init__(
        self,
        learning_rate: float | LRScheduler = 1.0,
        momentum: float = 0.9,
        parameters: Iterable | None = None,
        weight_decay: float = 1e-4,
        grad_clip: GradientClipBase | None = None,
        multi_precision: bool = False,
        *,
        trust_coefficient: float = 0.001,
        nesterov: bool = False,
        adapt_vectors: bool = False,
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
            rules=LarsRule(
                momentum=momentum,
                nesterov=nesterov,
                trust_coefficient=trust_coefficient,
                adapt_vectors=adapt_vectors,
                weight_decay=weight_decay,
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
