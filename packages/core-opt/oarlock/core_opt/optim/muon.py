"""Muon: momentum orthogonalised by Newton-Schulz for hidden matrices, AdamW for the rest."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping

import paddle
from paddle.nn.clip import GradientClipBase
from paddle.optimizer.lr import LRScheduler

from . import _checks, newton_schulz
from ._base import Optimizer
from ._registry import register
from ._roles import Role, Roles
from ._rule import Batch, Rule, refuse_shard
from .adamw import AdamWRule

# Matrices of one shape go through Newton-Schulz in stacks of at most this many elements: products
# of small matrices are up to five times faster together, and memory stays bounded.
STACK = 2**22
AXES = {"matrix": (2,), "experts": (3,), "conv": (3, 4, 5)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MuonRule(Rule):
    """Options and update of Muon's matrix part.

    ``layout`` says how the parameter holds matrices: ``matrix`` [in, out], ``experts``
    [experts, in, out], or ``conv`` [out, in, ...], read as the matrix [out, in * ...].
    """

    momentum: float = 0.95
    nesterov: bool = True
    ns_steps: int = 5
    coefficients: str = "jordan"
    update_scale: str = "spectral"
    ns_dtype: str | None = None
    layout: str = "matrix"

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        _checks.fraction("momentum", self.momentum)
        _checks.flag("nesterov", self.nesterov)
        newton_schulz.coefficients(self.coefficients, self.ns_steps)
        _checks.choice("update_scale", self.update_scale, ("spectral", "rms"))
        _checks.choice("ns_dtype", self.ns_dtype, (None, "float32", "bfloat16"))
        _checks.choice("layout", self.layout, tuple(AXES))

    def state(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        return {"momentum": shape}

    def check(self, name: str, parameter: paddle.Tensor) -> None:
        refuse_shard(name, parameter)
        if self.ns_dtype == "bfloat16":
            newton_schulz.refuse_missing_bfloat16(parameter.place)
        axes = AXES[self.layout]
        if parameter.ndim in axes:
            return
        wanted = " or ".join(str(count) for count in axes)
        remedy = "Give it the role vector, so that AdamW updates it."
        if parameter.ndim == 1 and self.layout != "conv":
            remedy = "If it is a flattened shard of a matrix, gather the matrix first. " + remedy
        elif parameter.ndim == 3:
            remedy = "If it is a stack of expert matrices, give it the role experts."
        raise ValueError(
            f"Muon needs {wanted} axes for a parameter of layout {self.layout!r}, but {name!r} "
            f"has shape {list(parameter.shape)}. {remedy}"
        )

    def native(self, batch: Batch) -> None:
        from oarlock.native import optim as kernels

        updates = self._updates(batch)
        kernels.sgd(
            batch.parameters,
            updates,
            None,
            lr=batch.lr,
            momentum=0.0,
            weight_decay=self.weight_decay,
            rounding_seed=batch.rounding_seed,
        )

    def plain(self, batch: Batch) -> None:
        for parameter, update in zip(batch.parameters, self._updates(batch)):
            parameter.scale_(1 - batch.lr * self.weight_decay)
            parameter.subtract_(update.scale_(batch.lr))

    def _updates(self, batch: Batch) -> list[paddle.Tensor]:
        """Orthogonalised momenta; state changes here, parameters do not."""
        matrices = []
        for grad, momentum in zip(batch.grads, batch.states["momentum"]):
            if grad.dtype != momentum.dtype:
                grad = grad.astype(momentum.dtype)
            if batch.grad_scale != 1.0:
                grad = grad * batch.grad_scale
            momentum.lerp_(grad, 1 - self.momentum)
            update = grad.lerp(momentum, self.momentum) if self.nesterov else momentum
            if self.layout == "conv":
                update = update.reshape([update.shape[0], -1])
            matrices.append(update)
        updates = list(matrices)
        for members in _alike(matrices):
            stack = paddle.stack([matrices[index] for index in members])
            shape = stack.shape[-2:]
            stack = newton_schulz.orthogonalize(
                stack.reshape([-1, *shape]),
                newton_schulz.coefficients(self.coefficients, self.ns_steps),
                safety=newton_schulz.SAFETY.get(self.coefficients, 1.0),
                scale=self._scale(shape),
                dtype=self.ns_dtype,
            )
            parts = paddle.chunk(stack, len(members))
            for index, part in zip(members, parts):
                updates[index] = part.reshape(batch.parameters[index].shape).contiguous()
        return updates

    def _scale(self, shape: list[int]) -> float:
        rows, columns = shape[-2:]
        if self.update_scale == "rms":
            return 0.2 * math.sqrt(max(rows, columns))
        fan_in, fan_out = (columns, rows) if self.layout == "conv" else (rows, columns)
        return math.sqrt(max(1.0, fan_out / fan_in))


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

    The other arguments are those of ``Optimizer``. The update does not depend on the size of the
    gradient, so clipping by global norm changes only how steps weigh in the momentum.

    Source: Jordan et al. 2024; Liu et al. (Moonlight), 2502.16982; Amsel et al. (Polar
    Express), 2505.16932.
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
            rules={
                Role.HIDDEN_MATRIX: matrix,
                Role.EXPERTS: dataclasses.replace(matrix, layout="experts"),
                Role.CONV: dataclasses.replace(matrix, layout="conv"),
                **_by_role(rest, adamw_lr_scale),
            },
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


def _alike(matrices: list[paddle.Tensor]) -> Iterable[list[int]]:
    """Indices of matrices of one shape, at most ``STACK`` elements together."""
    shapes: dict[tuple, list[int]] = {}
    for index, matrix in enumerate(matrices):
        shapes.setdefault(tuple(matrix.shape), []).append(index)
    for shape, indices in shapes.items():
        width = max(1, STACK // math.prod(shape))
        for start in range(0, len(indices), width):
            yield indices[start : start + width]


def _by_role(rule: AdamWRule, lr_scale: float | Mapping) -> dict[Role, Rule]:
    """The AdamW rule of each role, with its learning-rate factor."""
    roles = (Role.EMBEDDING, Role.HEAD, Role.VECTOR)
    if isinstance(lr_scale, Mapping):
        scales = {Role.parse(role): scale for role, scale in lr_scale.items()}
        if set(scales) != set(roles):
            names = sorted(role.value for role in scales)
            raise ValueError(
                f"adamw_lr_scale must have the roles embedding, head and vector, got {names}."
            )
    else:
        scales = dict.fromkeys(roles, lr_scale)
    return {role: dataclasses.replace(rule, lr_scale=scale) for role, scale in scales.items()}
