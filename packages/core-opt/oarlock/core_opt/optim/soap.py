"""SOAP: Adam in the eigenbasis of Shampoo's statistics for hidden matrices, AdamW for the rest."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import paddle
from paddle.nn.clip import GradientClipBase
from paddle.optimizer.lr import LRScheduler

from . import _checks
from ._base import Optimizer
from ._eigenbases import Eigenbases, back, into, reordered
from ._matrices import MatrixRule, alike, by_role, gradients, matrices, parted, stacked
from ._registry import register
from ._roles import Role, Roles
from ._rule import Batch
from .adamw import AdamWRule


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SOAPRule(MatrixRule):
    """Options and update of SOAP's matrix part; the moments are kept in the eigenbases."""

    title: ClassVar[str] = "SOAP"

    beta1: float = 0.95
    beta2: float = 0.95
    shampoo_beta: float | None = None
    epsilon: float = 1e-8
    precondition_frequency: int = 10
    max_precond_dim: int = 10000

    def __post_init__(self) -> None:
        MatrixRule.__post_init__(self)
        _checks.fraction("beta1", self.beta1)
        _checks.fraction("beta2", self.beta2)
        if self.shampoo_beta is not None:
            _checks.fraction("shampoo_beta", self.shampoo_beta)
        _checks.real("epsilon", self.epsilon, 0.0, math.inf, open_low=True, open_high=True)
        _checks.whole("precondition_frequency", self.precondition_frequency, 1)
        _checks.whole("max_precond_dim", self.max_precond_dim, 0)

    @property
    def _eigenbases(self) -> Eigenbases:
        beta = self.beta2 if self.shampoo_beta is None else self.shampoo_beta
        return Eigenbases(layout=self.layout, beta=beta, limit=self.max_precond_dim)

    def state(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        return {"moment1": shape, "moment2": shape, **self._eigenbases.state(shape)}

    def updates(self, batch: Batch, native: bool) -> list[paddle.Tensor]:
        """Adam's directions, turned back; state changes here, parameters do not."""
        grads = matrices(self.layout, gradients(batch, "moment1"))
        updates = list(grads)
        for members in alike(grads):
            stack = stacked(grads, members)
            if batch.step == 1:
                self._eigenbases.observe(batch.states, members, stack)
                self._eigenbases.begin(batch.states, members)
                found = paddle.zeros_like(stack)
            else:
                bases = self._eigenbases.bases(batch.states, members)
                found = back(self._adam(batch, members, into(stack, bases), native), bases)
                self._eigenbases.observe(batch.states, members, stack)
                if (batch.step - 1) % self.precondition_frequency == 0:
                    self._refresh(batch.states, members, bases)
            parameters = [batch.parameters[index] for index in members]
            for index, part in zip(members, parted(found, parameters)):
                updates[index] = part
        return updates

    def _adam(
        self, batch: Batch, members: list[int], coordinates: paddle.Tensor, native: bool
    ) -> paddle.Tensor:
        """Adam's directions for gradients [n, rows, columns] in the coordinates of the bases."""
        moments = {
            name: [batch.states[name][index] for index in members]
            for name in ("moment1", "moment2")
        }
        origin = [paddle.zeros_like(moment) for moment in moments["moment1"]]
        adam = AdamWRule(beta1=self.beta1, beta2=self.beta2, epsilon=self.epsilon)
        inner = Batch(
            parameters=origin,
            grads=parted(coordinates, origin),
            states=moments,
            names=[batch.names[index] for index in members],
            lr=1.0,
            step=batch.step - 1,
            grad_scale=1.0,
            rounding_seed=None,
        )
        (adam.native if native else adam.plain)(inner)
        return stacked(matrices(self.layout, origin)).scale_(-1.0)

    def _refresh(self, states: Mapping, members: list[int], bases: Mapping) -> None:
        """Turn the bases, and the moments with them."""
        orders = self._eigenbases.refresh(states, members)
        turned = self._eigenbases.bases(states, members)
        for name in ("moment1", "moment2"):
            tensors = [states[name][index] for index in members]
            stack = stacked(matrices(self.layout, tensors))
            if name == "moment1":
                stack = into(back(stack, bases), turned)
            else:
                stack = reordered(stack, orders)
            for tensor, part in zip(tensors, parted(stack, tensors)):
                paddle.assign(part, output=tensor)


@register(
    "soap",
    paper="2409.11321",
    year=2024,
    state_bytes_per_parameter=24,
    description="Adam in Shampoo's eigenbasis for hidden matrices, AdamW for the rest.",
    needs_roles=True,
)
class SOAP(Optimizer):
    r"""SOAP for hidden matrices, expert stacks and convolutions; AdamW for all other roles.

    With the gradient :math:`G_t` of a matrix and the orthogonal bases :math:`Q_L, Q_R`,

    .. math::
        M_t = \beta_1 M_{t-1} + (1-\beta_1) G_t, \qquad
        V_t = \beta_2 V_{t-1} + (1-\beta_2) (Q_L^\top G_t Q_R)^{\odot 2}

        W_t = (1 - \eta\lambda) W_{t-1} - \eta\, Q_L
        \frac{Q_L^\top M_t Q_R / (1-\beta_1^{t-1})}{\sqrt{V_t / (1-\beta_2^{t-1})} + \epsilon}
        Q_R^\top

        L_t = \beta_s L_{t-1} + (1-\beta_s) G_t G_t^\top, \qquad
        R_t = \beta_s R_{t-1} + (1-\beta_s) G_t^\top G_t

    :math:`Q_L` are eigenvectors of :math:`L_1` at first; every ``precondition_frequency`` steps
    :math:`Q_L \leftarrow \mathrm{QR}(L_t Q_L)`, one power iteration, and :math:`V_t` goes along as
    the columns are sorted. :math:`Q_R` likewise. As in the authors' code the first step only sets
    the bases: in the basis of its own gradient Adam would divide rounding by rounding. Theirs
    leaves the weights wholly as they are at that step; that they decay is ours. Where a statistic
    is zero within rounding, its basis keeps its directions.

    Args:
        learning_rate: :math:`\eta`, a number >= 0 or an LRScheduler.
        parameters: parameters, or groups that may override the options.
        roles: roles of the parameters, ``oarlock.core_opt.optim.roles(model)``.
        beta1, beta2: decay of the moments, in [0, 1).
        epsilon: :math:`\epsilon` > 0.
        weight_decay: :math:`\lambda` >= 0 of the matrices.
        precondition_frequency: steps between refreshes of the bases.
        shampoo_beta: :math:`\beta_s` in [0, 1); None for ``beta2``.
        max_precond_dim: a longer side of a matrix keeps its own coordinates (one-sided SOAP); 0
            makes it AdamW from the second step on.
        adamw_lr_scale: AdamW's learning rate over SOAP's, one number or one for each role.
        adamw_beta1, adamw_beta2, adamw_epsilon, adamw_weight_decay: options of the AdamW part.

    The other arguments are those of ``Optimizer``. Defaults are those of the authors' code, which
    adds :math:`\epsilon` before bias correction and treats the axes of a convolution one by one;
    here a kernel [out, in, ...] is the matrix [out, in * ...]. The state is 8 bytes a parameter and
    16 for each element of a side's square, so 24 for a square matrix.

    Source: Vyas et al., 2409.11321.
    """

    def __init__(
        self,
        learning_rate: float | LRScheduler = 3e-3,
        beta1: float = 0.95,
        beta2: float = 0.95,
        epsilon: float = 1e-8,
        parameters: Iterable | None = None,
        roles: Roles | Mapping[str, Role] | None = None,
        weight_decay: float = 0.01,
        grad_clip: GradientClipBase | None = None,
        multi_precision: bool = False,
        *,
        precondition_frequency: int = 10,
        shampoo_beta: float | None = None,
        max_precond_dim: int = 10000,
        adamw_lr_scale: float | Mapping[Role | str, float] = 1.0,
        adamw_beta1: float = 0.95,
        adamw_beta2: float = 0.95,
        adamw_epsilon: float = 1e-8,
        adamw_weight_decay: float = 0.01,
        apply_decay_param_fun: Callable[[str], bool] | None = None,
        stochastic_rounding: bool = False,
        seed: int = 0,
        nonfinite: str = "raise",
        path: str | None = None,
        name: str | None = None,
    ):
        matrix = SOAPRule(
            beta1=beta1,
            beta2=beta2,
            shampoo_beta=shampoo_beta,
            epsilon=epsilon,
            precondition_frequency=precondition_frequency,
            max_precond_dim=max_precond_dim,
            weight_decay=weight_decay,
        )
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
