"""SOAP-Muon: momentum whitened in Shampoo's eigenbasis, then orthogonalised; AdamW for the rest."""

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
from ._matrices import by_role, matrices, parted, stacked
from ._registry import register
from ._roles import Role, Roles
from ._rule import Batch
from .adamw import AdamWRule
from .muon import MuonRule


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SOAPMuonRule(MuonRule):
    """Options and update of SOAP-Muon's matrix part: Muon's, with ``conditioned`` momenta."""

    title: ClassVar[str] = "SOAP-Muon"

    soap_beta: float = 0.9
    epsilon: float = 1e-8
    precondition_frequency: int = 1
    max_precond_dim: int = 10000

    def __post_init__(self) -> None:
        MuonRule.__post_init__(self)
        _checks.fraction("soap_beta", self.soap_beta)
        _checks.real("epsilon", self.epsilon, 0.0, math.inf, open_low=True, open_high=True)
        _checks.whole("precondition_frequency", self.precondition_frequency, 1)
        _checks.whole("max_precond_dim", self.max_precond_dim, 0)

    @property
    def _eigenbases(self) -> Eigenbases:
        return Eigenbases(layout=self.layout, beta=self.soap_beta, limit=self.max_precond_dim)

    def state(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        return {
            **MuonRule.state(self, shape),
            "moment2": shape,
            **self._eigenbases.state(shape),
        }

    def conditioned(
        self, stack: paddle.Tensor, grads: list[paddle.Tensor], batch: Batch, members: list[int]
    ) -> paddle.Tensor:
        states, eigenbases = batch.states, self._eigenbases
        if batch.step == 1:
            eigenbases.observe(states, members, stacked(grads, members))
            eigenbases.begin(states, members)
            return stack
        bases = eigenbases.bases(states, members)
        coordinates = into(stack, bases)
        moments = [states["moment2"][index] for index in members]
        squares = paddle.square(coordinates)
        for moment, square in zip(moments, parted(squares, moments)):
            moment.lerp_(square, 1 - self.soap_beta)
        moment = stacked(matrices(self.layout, moments))
        found = back(coordinates / (paddle.sqrt(moment) + self.epsilon), bases)
        eigenbases.observe(states, members, stacked(grads, members))
        if (batch.step - 1) % self.precondition_frequency == 0:
            moment = reordered(moment, eigenbases.refresh(states, members))
            for tensor, part in zip(moments, parted(moment, moments)):
                paddle.assign(part, output=tensor)
        return found


@register(
    "soap_muon",
    paper="github.com/KellerJordan/modded-nanogpt/pull/321",
    year=2026,
    state_bytes_per_parameter=24,
    description="Muon of a momentum that is whitened in Shampoo's eigenbasis first.",
    needs_roles=True,
)
class SOAPMuon(Optimizer):
    r"""SOAP-Muon for hidden matrices, expert stacks and convolutions; AdamW for all other roles.

    With Muon's momentum :math:`U_t = (1-\mu) G_t + \mu M_t` of a matrix and the bases
    :math:`Q_L, Q_R` of SOAP,

    .. math::
        \hat U_t = Q_L^\top U_t Q_R, \qquad
        V_t = \beta V_{t-1} + (1-\beta) \hat U_t^{\odot 2}, \qquad
        O_t = \mathrm{NewtonSchulz}\!\left(
        Q_L \frac{\hat U_t}{\sqrt{V_t} + \epsilon} Q_R^\top \right)

    and the step is Muon's, :math:`W_t = (1 - \eta\lambda) W_{t-1} - \eta\, s\, O_t`, with its
    options for the variance of neurons and the update/weight floor. Afterwards :math:`L` and
    :math:`R`, averages of :math:`G_t G_t^\top` and :math:`G_t^\top G_t` by the same :math:`\beta`,
    turn the bases as in SOAP. The first step is Muon's and sets the bases.

    Args:
        soap_beta: :math:`\beta` in [0, 1) of :math:`V, L, R`.
        epsilon: :math:`\epsilon` > 0.
        precondition_frequency: steps between refreshes of the bases: 1 as in pull request 321;
            10, as in 278, costs less.
        max_precond_dim: a longer side of a matrix keeps its own coordinates.
        variance, beta2, uw_floor, uw_floor_per: as in ``Muon`` and ``NorMuon``. The source has
            the floor at 0.35 for each matrix (278) or 0.3825 for each neuron (328).

    The other arguments are those of ``Muon``. Of the source's recipe this is the optimiser of
    hidden matrices; its trust gate for attention's output, radius rescaling and averaging of
    weights are left out. Its Newton-Schulz takes 12 steps of another polynomial:
    ``coefficients="polar_express"`` or more ``ns_steps`` come near it. The state is 8 bytes a
    parameter and 16 for each element of a side's square, so 24 for a square matrix.

    Source: modded-nanogpt's optimisation track, pull requests 278 (the method) and 321 (on all
    hidden matrices, refreshed every step); Vyas et al. (SOAP), 2409.11321; Jordan et al. 2024.
    """

    def __init__(
        self,
        learning_rate: float | LRScheduler = 0.0375,
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
        soap_beta: float = 0.9,
        epsilon: float = 1e-8,
        precondition_frequency: int = 1,
        max_precond_dim: int = 10000,
        variance: str | None = None,
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
        matrix = SOAPMuonRule(
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
            soap_beta=soap_beta,
            epsilon=epsilon,
            precondition_frequency=precondition_frequency,
            max_precond_dim=max_precond_dim,
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
