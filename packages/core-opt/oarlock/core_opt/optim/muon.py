"""Muon: momentum orthogonalised by Newton-Schulz for hidden matrices, AdamW for the rest."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import paddle
from paddle.nn.clip import GradientClipBase
from paddle.optimizer.lr import LRScheduler

from . import _checks, newton_schulz
from ._base import Optimizer
from ._matrices import MatrixRule, alike, by_role, extents, gradients, matrices, parted, stacked
from ._registry import register
from ._roles import Role, Roles
from ._rule import Batch
from .adamw import AdamWRule

EPSILON = 1e-10  # on root mean squares and norms of orthogonalised updates, as in NorMuon's code
TINY = 1e-8  # smallest norm that the floor divides by, as in its source
PER = ("matrix", "neuron")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MuonRule(MatrixRule):
    """Options and update of Muon's matrix part."""

    title: ClassVar[str] = "Muon"

    momentum: float = 0.95
    nesterov: bool = True
    ns_steps: int = 5
    coefficients: str = "jordan"
    update_scale: str = "spectral"
    ns_dtype: str | None = None
    variance: str | None = None
    beta2: float = 0.95
    uw_floor: float = 0.0
    uw_floor_per: str = "matrix"

    def __post_init__(self) -> None:
        MatrixRule.__post_init__(self)
        _checks.fraction("momentum", self.momentum)
        _checks.flag("nesterov", self.nesterov)
        newton_schulz.coefficients(self.coefficients, self.ns_steps)
        _checks.choice("update_scale", self.update_scale, ("spectral", "rms"))
        _checks.choice("ns_dtype", self.ns_dtype, (None, "float32", "bfloat16"))
        _checks.choice("variance", self.variance, (None, "neuron"))
        _checks.fraction("beta2", self.beta2)
        _checks.non_negative("uw_floor", self.uw_floor)
        _checks.choice("uw_floor_per", self.uw_floor_per, PER)

    def state(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        if self.variance is None:
            return {"momentum": shape}
        lead, rows, columns = extents(self.layout, shape)
        return {"momentum": shape, "variance": (*lead, rows if self.layout == "conv" else columns)}

    def check(self, name: str, parameter: paddle.Tensor) -> None:
        MatrixRule.check(self, name, parameter)
        if self.ns_dtype == "bfloat16":
            newton_schulz.refuse_missing_bfloat16(parameter.place)

    def updates(self, batch: Batch, native: bool) -> list[paddle.Tensor]:
        """Orthogonalised momenta; state changes here, parameters do not."""
        grads = gradients(batch, "momentum")
        momenta = []
        for grad, momentum in zip(grads, batch.states["momentum"]):
            momentum.lerp_(grad, 1 - self.momentum)
            momenta.append(grad.lerp(momentum, self.momentum) if self.nesterov else momentum)
        momenta, grads = matrices(self.layout, momenta), matrices(self.layout, grads)
        updates = list(momenta)
        for members in alike(momenta):
            stack = self.conditioned(stacked(momenta, members), grads, batch, members)
            stack = newton_schulz.orthogonalize(
                stack,
                newton_schulz.coefficients(self.coefficients, self.ns_steps),
                safety=newton_schulz.SAFETY.get(self.coefficients, 1.0),
                scale=self._scale(stack.shape),
                dtype=self.ns_dtype,
            )
            if self.variance is not None:
                states = [batch.states["variance"][index] for index in members]
                stack = self._equalized(stack, states)
            if self.uw_floor:
                stack = self._floored(stack, [batch.parameters[index] for index in members])
            shapes = [batch.parameters[index] for index in members]
            for index, part in zip(members, parted(stack, shapes)):
                updates[index] = part
        return updates

    def conditioned(
        self, stack: paddle.Tensor, grads: list[paddle.Tensor], batch: Batch, members: list[int]
    ) -> paddle.Tensor:
        """What is orthogonalised, from the momenta [matrices, rows, columns]; for subclasses."""
        return stack

    def _scale(self, shape: list[int]) -> float:
        rows, columns = shape[-2:]
        if self.update_scale == "rms":
            return 0.2 * math.sqrt(max(rows, columns))
        fan_in, fan_out = (columns, rows) if self.layout == "conv" else (rows, columns)
        return math.sqrt(max(1.0, fan_out / fan_in))

    @property
    def _inputs(self) -> int:
        """Axis that runs over the inputs of a neuron: weights are [in, out], kernels [out, in]."""
        return -1 if self.layout == "conv" else -2

    def _equalized(self, stack: paddle.Tensor, states: list[paddle.Tensor]) -> paddle.Tensor:
        """Neurons over the root mean square of their updates so far, at the same Frobenius norm."""
        square = paddle.square(stack).mean(self._inputs, keepdim=True)
        for state, part in zip(states, parted(square, states)):
            state.lerp_(part, 1 - self.beta2)
        found = stack / (paddle.sqrt(paddle.stack(states).reshape(square.shape)) + EPSILON)
        return found * (_norm(stack, [-2, -1]) / (_norm(found, [-2, -1]) + EPSILON))

    def _floored(self, stack: paddle.Tensor, parameters: list[paddle.Tensor]) -> paddle.Tensor:
        """Updates scaled up to at least ``uw_floor`` times the norm of their weights."""
        weights = stacked(matrices(self.layout, [p.astype(stack.dtype) for p in parameters]))
        axes = [-2, -1] if self.uw_floor_per == "matrix" else [self._inputs]
        ratio = _norm(weights, axes) / paddle.clip(_norm(stack, axes), min=TINY)
        return stack * paddle.clip(ratio * self.uw_floor, min=1.0)


@register(
    "muon",
    paper="kellerjordan.github.io/posts/muon",
    year=2024,
    state_bytes_per_parameter=4,
    description="Orthogonalised momentum for hidden matrices, AdamW for the rest.",
    needs_roles=True,
)
class Muon(Optimizer):
    r"""Muon for hidden matrices, expert stacks and convolutions; AdamW for all other roles.

    With the gradient :math:`G_t` of a matrix [in, out],

    .. math::
        M_t = \mu M_{t-1} + (1-\mu) G_t, \qquad
        O_t = \mathrm{NewtonSchulz}((1-\mu) G_t + \mu M_t), \qquad
        W_t = (1 - \eta\lambda) W_{t-1} - \eta\, s\, O_t

    where :math:`s = \sqrt{\max(1, out/in)}` (``update_scale="spectral"``, Jordan's) or
    :math:`s = 0.2\sqrt{\max(in, out)}` (``"rms"``, Moonlight's: updates as large as AdamW's, so
    that AdamW's learning rate and weight decay serve).

    Args:
        learning_rate: :math:`\eta` of the matrices, a number >= 0 or an LRScheduler.
        parameters: parameters, or groups that may override the options.
        roles: roles of the parameters, ``oarlock.core_opt.optim.roles(model)``.
        momentum: :math:`\mu` in [0, 1).
        nesterov: without it, :math:`O_t` is taken from :math:`M_t`.
        ns_steps: Newton-Schulz steps.
        coefficients: ``"jordan"``, ``"polar_express"`` or ``"classic"``.
        update_scale: ``"spectral"`` or ``"rms"``.
        weight_decay: :math:`\lambda` of the matrices.
        ns_dtype: dtype of the products; None keeps float32. ``"bfloat16"`` suits GPUs, and CPUs
            that multiply it, after ``oarlock.native.paddle.kernels.load()``.
        adamw_lr_scale: AdamW's learning rate over Muon's, one number or one for each role; None
            for 1 with ``"rms"`` and 3e-4 / 0.02 with ``"spectral"``.
        adamw_beta1, adamw_beta2, adamw_epsilon, adamw_weight_decay: options of the AdamW part.
        variance: ``"neuron"`` for NorMuon's equalised neurons, see ``NorMuon``.
        beta2: :math:`\beta_2` of the variance, in [0, 1).
        uw_floor: update/weight floor :math:`\phi` >= 0; an update :math:`U = sO` becomes
            :math:`U \max(1, \phi \|W\| / \|U\|)`, so that weights that have grown go on moving. It
            takes the place of weight decay; 0 for none (0.35 with rate 0.0375 in the source).
        uw_floor_per: whether the norms are those of the ``"matrix"`` or of each output
            ``"neuron"``.

    The other arguments are those of ``Optimizer``. The update does not depend on the size of the
    gradient, so clipping by global norm changes only how steps weigh in the momentum.

    Source: Jordan et al. 2024; Liu et al. (Moonlight), 2502.16982; Amsel et al. (Polar
    Express), 2505.16932; the floor is from modded-nanogpt's optimisation track, pull requests 274
    (matrix) and 328 (neuron).
    """

    def __init__(
        self,
        learning_rate: float | LRScheduler = 0.02,
        parameters: Iterable | None = None,
        roles: Roles | Mapping[str, Role] | None = None,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        coefficients: str = "jordan",
        update_scale: str = "spectral",
        weight_decay: float = 0.0,
        grad_clip: GradientClipBase | None = None,
        multi_precision: bool = False,
        *,
        ns_dtype: str | None = None,
        adamw_lr_scale: float | Mapping[Role | str, float] | None = None,
        adamw_beta1: float = 0.9,
        adamw_beta2: float = 0.95,
        adamw_epsilon: float = 1e-10,
        adamw_weight_decay: float = 0.0,
        variance: str | None = None,
        beta2: float = 0.95,
        uw_floor: float = 0.0,
        uw_floor_per: str = "matrix",
        apply_decay_param_fun: Callable[[str], bool] | None = None,
        stochastic_rounding: bool = False,
        seed: int = 0,
        nonfinite: str = "raise",
        path: str | None = None,
        name: str | None = None,
    ):
        matrix = MuonRule(
            momentum=momentum,
            nesterov=nesterov,
            ns_steps=ns_steps,
            coefficients=coefficients,
            update_scale=update_scale,
            ns_dtype=ns_dtype,
            variance=variance,
            beta2=beta2,
            uw_floor=uw_floor,
            uw_floor_per=uw_floor_per,
            weight_decay=weight_decay,
        )
        if adamw_lr_scale is None:
            adamw_lr_scale = 1.0 if update_scale == "rms" else 3e-4 / 0.02
        rest = AdamWRule(
            beta1=adamw_beta1,
            beta2=adamw_beta2,
            epsilon=adamw_epsilon,
            weight_decay=adamw_weight_decay,
        )
        super().__init__(
            learning_rate=learning_rate,
            parameters=parameters,
            rules=by_role(matrix, rest, adamw_lr_scale),
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


def _norm(stack: paddle.Tensor, axes: list[int]) -> paddle.Tensor:
    return paddle.sqrt(paddle.square(stack).sum(axes, keepdim=True))


@register(
    "normuon",
    paper="2510.05491",
    year=2025,
    state_bytes_per_parameter=4,
    description="Muon whose neurons move alike: one second moment for each of them.",
    needs_roles=True,
)
class NorMuon(Muon):
    r"""Muon with a second moment of each neuron's orthogonalised update.

    With Muon's scaled update :math:`U_t = s\,O_t` of a matrix [in, out] and its column
    :math:`u_j`, the update of output neuron :math:`j`,

    .. math::
        v_{t,j} = \beta_2 v_{t-1,j} + (1-\beta_2) \tfrac{1}{in} \|u_{t,j}\|^2, \qquad
        \hat u_{t,j} = u_{t,j} / (\sqrt{v_{t,j}} + \epsilon), \qquad
        W_t = (1 - \eta\lambda) W_{t-1} - \eta\, \frac{\|U_t\|_F}{\|\hat U_t\|_F} \hat U_t

    Orthogonalisation equalises singular values but not neurons, whose updates differ several-fold
    where a matrix has more outputs than inputs; here they are equal in the mean over steps, while
    the matrix moves as far as Muon's. The neurons of a convolution [out, in, ...] are its output
    channels, and experts are equalised one by one.

    Args:
        variance: ``"neuron"``; None gives Muon.
        beta2: :math:`\beta_2` in [0, 1).

    The other arguments are those of ``Muon``. Defaults, the scale :math:`s` and :math:`\epsilon` =
    1e-10 are those of the authors' code; the paper's text scales the update to the root mean square
    0.2, which ``update_scale="rms"`` does up to the error of Newton-Schulz. The state is Muon's and
    one number for each neuron.

    Source: Li et al., 2510.05491.
    """

    def __init__(
        self,
        learning_rate: float | LRScheduler = 0.02,
        parameters: Iterable | None = None,
        roles: Roles | Mapping[str, Role] | None = None,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        coefficients: str = "jordan",
        update_scale: str = "spectral",
        weight_decay: float = 0.0,
        grad_clip: GradientClipBase | None = None,
        multi_precision: bool = False,
        *,
        variance: str | None = "neuron",
        beta2: float = 0.95,
        uw_floor: float = 0.0,
        uw_floor_per: str = "matrix",
        ns_dtype: str | None = None,
        adamw_lr_scale: float | Mapping[Role | str, float] | None = None,
        adamw_beta1: float = 0.9,
        adamw_beta2: float = 0.95,
        adamw_epsilon: float = 1e-10,
        adamw_weight_decay: float = 0.0,
        apply_decay_param_fun: Callable[[str], bool] | None = None,
        stochastic_rounding: bool = False,
        seed: int = 0,
        nonfinite: str = "raise",
        path: str | None = None,
        name: str | None = None,
    ):
        super().__init__(
            learning_rate,
            parameters,
            roles,
            momentum,
            nesterov,
            ns_steps,
            coefficients,
            update_scale,
            weight_decay,
            grad_clip,
            multi_precision,
            ns_dtype=ns_dtype,
            variance=variance,
            beta2=beta2,
            uw_floor=uw_floor,
            uw_floor_per=uw_floor_per,
            adamw_lr_scale=adamw_lr_scale,
            adamw_beta1=adamw_beta1,
            adamw_beta2=adamw_beta2,
            adamw_epsilon=adamw_epsilon,
            adamw_weight_decay=adamw_weight_decay,
            apply_decay_param_fun=apply_decay_param_fun,
            stochastic_rounding=stochastic_rounding,
            seed=seed,
            nonfinite=nonfinite,
            path=path,
            name=name,
        )
