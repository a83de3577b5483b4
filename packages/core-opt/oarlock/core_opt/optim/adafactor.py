"""Adafactor: second moments by row and column, clipped updates, steps relative to the weights."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import paddle
from paddle.nn.clip import GradientClipBase
from paddle.optimizer.lr import LRScheduler

from . import _checks
from ._base import Optimizer
from ._registry import register
from ._rule import Batch, Rule


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AdafactorRule(Rule):
    """Options and update of Adafactor.

    Every tensor is read as a stack of matrices, and every matrix takes a step of its own. A vector
    is the matrix of one row, whose factored second moment is the full one.
    """

    beta1: float = 0.0
    decay_exponent: float = 0.8
    clip_threshold: float | None = 1.0
    epsilon: float = 1e-30
    epsilon_scale: float = 1e-3
    relative_step: bool = True
    scale_parameter: bool = True
    min_dim_factored: int = 1
    layout: str = "auto"

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        _checks.fraction("beta1", self.beta1)
        _checks.real("decay_exponent", self.decay_exponent, 0.0, 1.0, open_low=True)
        for name in ("clip_threshold", "epsilon", "epsilon_scale"):
            value = getattr(self, name)
            if value is not None or name != "clip_threshold":
                _checks.real(name, value, 0.0, math.inf, open_low=True, open_high=True)
        _checks.flag("relative_step", self.relative_step)
        _checks.flag("scale_parameter", self.scale_parameter)
        _checks.whole("min_dim_factored", self.min_dim_factored, 1)
        _checks.choice("layout", self.layout, ("auto", "experts", "conv"))

    def matrices(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int, int]:
        """Axes of the stack, rows and columns of each of its matrices."""
        if len(shape) < 2:
            return (), 1, math.prod(shape)
        conv = self.layout == "conv" or (self.layout == "auto" and len(shape) > 3)
        stack: tuple[int, ...] = () if conv else shape[:-2]
        rows, columns = (shape[0], math.prod(shape[1:])) if conv else shape[-2:]
        if min(rows, columns) < self.min_dim_factored:
            return stack, 1, rows * columns
        return stack, rows, columns

    def state(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        stack, rows, columns = self.matrices(shape)
        shapes = {"rows": (*stack, rows), "columns": (*stack, columns)}
        return {**shapes, "momentum": shape} if self.beta1 else shapes

    def check(self, name: str, parameter: paddle.Tensor) -> None:
        self.refuse_slice(name, parameter, "Gather it, or update it with AdamW.")

    def rate(self, batch: Batch) -> float:
        """Step size before the scale of the parameter."""
        return min(batch.lr, batch.step**-0.5) if self.relative_step else batch.lr

    def second_decay(self, step: int) -> float:
        """Decay of the second moments: 0 at the first step, so that they need no correction."""
        return 1 - step**-self.decay_exponent

    def native(self, batch: Batch) -> None:
        from oarlock.native import optim as kernels

        parameters, grads = self._split(batch.parameters), self._split(batch.grads)
        moments = _vectors(batch.states["rows"]), _vectors(batch.states["columns"])
        decay = self.second_decay(batch.step)
        kernels.row_column_mean_squares(
            grads, *moments, decay=decay, eps=self.epsilon, grad_scale=batch.grad_scale
        )
        options: dict[str, Any] = {
            "clip_threshold": self.clip_threshold,
            "grad_scale": batch.grad_scale,
        }
        if self.beta1:
            self._native_momentum(batch, parameters, grads, moments, options)
            return
        rate = self.rate(batch)
        kernels.adafactor(
            parameters,
            grads,
            *moments,
            lr=rate,
            eps_scale=self.epsilon_scale,
            relative=self.scale_parameter,
            # the kernel decays by the rate that it is given
            weight_decay=self.weight_decay * batch.lr / rate if rate else 0.0,
            rounding_seed=batch.rounding_seed,
            **options,
        )

    def _native_momentum(self, batch: Batch, parameters, grads, moments, options) -> None:
        from oarlock.native import optim as kernels

        # A step of size 1 from zero gives the clipped direction, with its sign changed.
        steps = [paddle.zeros_like(matrix, dtype="float32") for matrix in grads]
        grads = [matrix.astype("float32") for matrix in grads]
        unit: dict[str, Any] = {"lr": 1.0, "eps_scale": 0.0, "relative": False, "weight_decay": 0.0}
        rows, columns = moments
        kernels.adafactor(steps, grads, rows, columns, **unit, **options)
        momenta, rate = self._split(batch.states["momentum"]), self.rate(batch)
        for parameter, momentum, step in zip(parameters, momenta, steps):
            if self.scale_parameter:
                size = math.sqrt(kernels.squared_norm([parameter]) / max(1, parameter.size))
                step.scale_(max(self.epsilon_scale, size))
            momentum.scale_(self.beta1).subtract_(step.scale_(rate * (1 - self.beta1)))
        kernels.sgd(
            batch.parameters,
            batch.states["momentum"],
            None,
            lr=1.0,
            weight_decay=batch.lr * self.weight_decay,
            rounding_seed=batch.rounding_seed,
        )

    def plain(self, batch: Batch) -> None:
        decay = self.second_decay(batch.step)
        moments = zip(batch.states["rows"], batch.states["columns"])
        for index, (rows, columns) in enumerate(moments):
            parameter = batch.parameters[index]
            stack, height, width = self.matrices(tuple(parameter.shape))
            shape = [math.prod(stack), height, width]
            grad = batch.grads[index].reshape(shape)
            square = paddle.square(grad)
            for moment, axis in ((rows, 2), (columns, 1)):
                mean = square.mean(axis).reshape(moment.shape)
                epsilon = paddle.full([], self.epsilon, dtype=mean.dtype)
                moment.scale_(decay).add_((mean + epsilon).scale_(1 - decay))
            by_row = rows.reshape([-1, height, 1])
            # Not the root of the quotient: it underflows where a row is 0 beside large ones.
            by_row = paddle.rsqrt(by_row) * paddle.sqrt(by_row.mean(1, keepdim=True))
            update = grad * by_row * paddle.rsqrt(columns.reshape([-1, 1, width]))
            if self.clip_threshold is not None:
                update = update / (_rms(update) / self.clip_threshold).clip(min=1.0)
            if self.scale_parameter:
                size = _rms(parameter.reshape(shape)).clip(min=self.epsilon_scale)
                update.multiply_(size)
            update = update.scale_(self.rate(batch)).reshape(parameter.shape)
            if self.beta1:
                momentum = batch.states["momentum"][index]
                update = momentum.scale_(self.beta1).add_(update * (1 - self.beta1))
            parameter.scale_(1 - batch.lr * self.weight_decay)
            parameter.subtract_(update)

    def _split(self, tensors: list[paddle.Tensor]) -> list[paddle.Tensor]:
        """Matrices [rows, columns] of all tensors, sharing memory with them."""
        found = []
        for tensor in tensors:
            stack, rows, columns = self.matrices(tuple(tensor.shape))
            found += _views(tensor, [math.prod(stack), rows, columns])
        return found


def _vectors(tensors: list[paddle.Tensor]) -> list[paddle.Tensor]:
    """Vectors along the last axis of all tensors, sharing memory with them."""
    found = []
    for tensor in tensors:
        found += _views(tensor, [math.prod(tensor.shape[:-1]), tensor.shape[-1]])
    return found


def _views(tensor: paddle.Tensor, shape: list[int]) -> list[paddle.Tensor]:
    """The tensor as ``shape``, cut along the first axis, without a copy."""
    if tensor.ndim:
        stack = tensor.view(shape)
    else:  # Paddle's view takes no tensor without axes
        stack = tensor.as_strided(shape, [1] * len(shape))
    return [stack[index] for index in range(shape[0])]


def _rms(stack: paddle.Tensor) -> paddle.Tensor:
    """Root mean square of each matrix [stack, rows, columns] -> [stack, 1, 1]."""
    return paddle.sqrt(paddle.square(stack).mean([1, 2], keepdim=True))


@register(
    "adafactor",
    paper="1804.04235",
    year=2018,
    state_bytes_per_parameter=8 / 1024,  # of a matrix of 1024 x 1024: 4 bytes a row and a column
    description="Second moments by row and column only; steps relative to the weights.",
)
class Adafactor(Optimizer):
    r"""Adafactor, with a state that grows as the rows and columns of a matrix.

    With the gradient :math:`G_t` of a matrix [r, c], :math:`\beta_{2t} = 1 - t^{-0.8}` and
    :math:`\mathrm{RMS}` the root mean square of all its elements,

    .. math::
        R_t = \beta_{2t} R_{t-1} + (1-\beta_{2t}) \left(\tfrac1c (G_t^2) 1_c + \epsilon_1\right),
        \qquad
        C_t = \beta_{2t} C_{t-1} + (1-\beta_{2t}) \left(\tfrac1r 1_r^\top (G_t^2)
        + \epsilon_1\right)

        U_t = G_t \Big/ \sqrt{\frac{R_t C_t}{\mathrm{mean}(R_t)}}, \qquad
        \hat U_t = \frac{U_t}{\max(1, \mathrm{RMS}(U_t) / d)}

        \theta_t = (1 - \eta\lambda)\,\theta_{t-1}
        - \min(\eta, 1/\sqrt t)\, \max(\epsilon_2, \mathrm{RMS}(\theta_{t-1}))\, \hat U_t

    A vector keeps its full second moment. Experts [E, in, out] are a stack of E matrices, each of
    which is clipped and scaled by itself. Convolutions [out, in, ...] are read as one matrix
    [out, in * ...]. The authors' code factors matrices only, and leaves more axes open.

    Args:
        learning_rate: :math:`\eta`, a number >= 0 or an LRScheduler.
        parameters: parameters, or groups that may override the options.
        beta1: decay of a momentum of the steps, in [0, 1). 0, as in the paper, keeps none; else it
            takes another 4 bytes for each element.
        decay_exponent: exponent of :math:`\beta_{2t}`, in (0, 1].
        clip_threshold: :math:`d` > 0, or None for no clipping.
        epsilon: :math:`\epsilon_1` > 0, added to the squared gradient.
        epsilon_scale: :math:`\epsilon_2` > 0, the least scale of a parameter, so that one that
            starts at zero moves.
        relative_step: lower the step to :math:`1/\sqrt t` as soon as that is less than
            :math:`\eta`. False for a schedule of your own.
        scale_parameter: multiply the step by the scale of the parameter. False makes :math:`\eta`
            as large as AdamW's.
        weight_decay: :math:`\lambda` >= 0, decoupled; it takes :math:`\eta` as it is, whatever
            ``relative_step`` and ``scale_parameter`` say.
        min_dim_factored: matrices with fewer rows or columns keep their full second moment.
        layout: ``"experts"`` for stacks of matrices [..., in, out], ``"conv"`` for kernels
            [out, in, ...]; ``"auto"`` takes what has two or three axes for the first and what has
            more for the second. Give the group of a 1-D convolution ``"conv"``.

    The other arguments are those of ``Optimizer``. Defaults are the paper's. The update does not
    depend on the size of the gradient. Parameters have to be whole: shards are refused.

    Source: Shazeer & Stern, 1804.04235.
    """

    def __init__(
        self,
        learning_rate: float | LRScheduler = 0.01,
        parameters: Iterable | None = None,
        beta1: float = 0.0,
        decay_exponent: float = 0.8,
        clip_threshold: float | None = 1.0,
        epsilon: float = 1e-30,
        epsilon_scale: float = 1e-3,
        relative_step: bool = True,
        scale_parameter: bool = True,
        weight_decay: float = 0.0,
        grad_clip: GradientClipBase | None = None,
        multi_precision: bool = False,
        *,
        min_dim_factored: int = 1,
        layout: str = "auto",
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
            rules=AdafactorRule(
                beta1=beta1,
                decay_exponent=decay_exponent,
                clip_threshold=clip_threshold,
                epsilon=epsilon,
                epsilon_scale=epsilon_scale,
                relative_step=relative_step,
                scale_parameter=scale_parameter,
                min_dim_factored=min_dim_factored,
                layout=layout,
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
