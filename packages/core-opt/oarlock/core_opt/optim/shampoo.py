"""Shampoo: inverse roots of both sides' statistics, in blocks, with the length of Adam's steps."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import paddle
from paddle.nn.clip import GradientClipBase
from paddle.optimizer.lr import LRScheduler

from . import _checks
from ._base import Optimizer
from ._blocks import Tiling, flat, joined, tilings
from ._matrices import MatrixRule, alike, by_role, extents, gradients, matrices, parted, stacked
from ._registry import register
from ._roles import Role, Roles
from ._roots import inverse_root
from ._rule import Batch
from .adamw import AdamWRule

NORM_FLOOR = 1e-16  # beside norms of updates, as in Distributed Shampoo


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShampooRule(MatrixRule):
    """Options and update of Shampoo's matrix part."""

    title: ClassVar[str] = "Shampoo"

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-12
    block_size: int = 1024
    precondition_frequency: int = 10
    start_preconditioning_step: int | None = None
    grafting: str | None = "adam"
    grafting_epsilon: float = 1e-8
    sides: str = "both"
    exponent: float | None = None
    pseudo_inverse: bool = False

    def __post_init__(self) -> None:
        MatrixRule.__post_init__(self)
        _checks.fraction("beta1", self.beta1)
        _checks.fraction("beta2", self.beta2)
        for name in ("epsilon", "grafting_epsilon"):
            value = getattr(self, name)
            _checks.real(name, value, 0.0, math.inf, open_low=True, open_high=True)
        _checks.whole("block_size", self.block_size, 1)
        _checks.whole("precondition_frequency", self.precondition_frequency, 1)
        _checks.choice("grafting", self.grafting, (None, "adam"))
        _checks.choice("sides", self.sides, ("both", "smaller"))
        _checks.flag("pseudo_inverse", self.pseudo_inverse)
        if self.exponent is not None:
            _checks.real("exponent", self.exponent, 0.0, 1.0, open_low=True)
        if self.start_preconditioning_step is not None:
            start = _checks.whole("start_preconditioning_step", self.start_preconditioning_step, 1)
            if start > 1 and self.grafting is None:
                raise ValueError(
                    f"start_preconditioning_step must be 1 without grafting, got {start}: there "
                    'are no other steps to take before. Use grafting="adam" or leave it at None.'
                )

    def state(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        lead, rows, columns = extents(self.layout, shape)
        found = {"moment1": shape}
        if self.grafting is not None:
            found["moment2"] = shape
        for index, tiling in enumerate(flat(tilings(rows, columns, self.block_size))):
            count = tiling.down * tiling.across
            for side in self._sides(tiling):
                size = tiling.height if side == "left" else tiling.width
                found[f"{side}{index}"] = (*lead, count, size, size)
                found[f"{side}{index}_root"] = (*lead, count, size, size)
        return found

    def updates(self, batch: Batch, native: bool) -> list[paddle.Tensor]:
        """Preconditioned momenta; state changes here, parameters do not."""
        grads = gradients(batch, "moment1")
        grafts = None if self.grafting is None else self._adam(batch, grads, native)
        if grafts is None:
            for moment, grad in zip(batch.states["moment1"], grads):
                moment.lerp_(grad, 1 - self.beta1)
        grads = matrices(self.layout, grads)
        momenta = matrices(self.layout, batch.states["moment1"])
        shaped = None if grafts is None else matrices(self.layout, grafts)
        updates = list(grads)
        for members in alike(grads):
            found = self._directions(
                batch,
                members,
                stacked(grads, members),
                stacked(momenta, members).scale_(1 / (1 - self.beta1**batch.step)),
                None if shaped is None else stacked(shaped, members),
            )
            parameters = [batch.parameters[index] for index in members]
            for index, part in zip(members, parted(found, parameters)):
                updates[index] = part
        return updates

    def _sides(self, tiling: Tiling) -> tuple[str, ...]:
        if self.sides == "both":
            return ("left", "right")
        return ("left",) if tiling.height <= tiling.width else ("right",)

    def _start(self) -> int:
        if self.start_preconditioning_step is not None:
            return self.start_preconditioning_step
        return 1 if self.grafting is None else self.precondition_frequency

    def _adam(self, batch: Batch, grads: list, native: bool) -> list[paddle.Tensor]:
        """Adam's directions, whose moments are those of Shampoo."""
        origin = [paddle.zeros_like(moment) for moment in batch.states["moment1"]]
        adam = AdamWRule(beta1=self.beta1, beta2=self.beta2, epsilon=self.grafting_epsilon)
        states = {name: batch.states[name] for name in ("moment1", "moment2")}
        inner = dataclasses.replace(
            batch, parameters=origin, grads=grads, states=states, lr=1.0, grad_scale=1.0,
            rounding_seed=None,
        )  # fmt: skip
        (adam.native if native else adam.plain)(inner)
        return [direction.scale_(-1.0) for direction in origin]

    def _directions(
        self,
        batch: Batch,
        members: list[int],
        grads: paddle.Tensor,
        momenta: paddle.Tensor,
        grafts: paddle.Tensor | None,
    ) -> paddle.Tensor:
        """Updates [n, rows, columns] from gradients, corrected momenta and Adam's directions."""
        start, (rows, columns) = self._start(), grads.shape[-2:]
        bands = tilings(rows, columns, self.block_size)
        due = batch.step == start or (
            batch.step > start and batch.step % self.precondition_frequency == 0
        )
        found = []
        for index, tiling in enumerate(flat(bands)):
            blocks, block_grads = tiling.cut(momenta), tiling.cut(grads)
            sides = self._sides(tiling)
            exponent = self.exponent or 1 / (2 * len(sides))
            for side in sides:
                left = side == "left"
                states = [batch.states[f"{side}{index}"][member] for member in members]
                roots = [batch.states[f"{side}{index}_root"][member] for member in members]
                square = paddle.matmul(
                    block_grads, block_grads, transpose_x=not left, transpose_y=left
                )
                for state, part in zip(states, parted(square, states)):
                    state.lerp_(part, 1 - self.beta2)
                if due:
                    average = stacked(states)
                    average = average.scale_(1 / (1 - self.beta2**batch.step))
                    root = inverse_root(
                        average, exponent, epsilon=self.epsilon, pseudo=self.pseudo_inverse
                    )
                    for state, part in zip(roots, parted(root, roots)):
                        paddle.assign(part, output=state)
                if batch.step >= start:
                    root = stacked(roots)
                    blocks = paddle.matmul(root, blocks) if left else paddle.matmul(blocks, root)
            if grafts is not None:
                graft = tiling.cut(grafts)
                if batch.step < start:
                    blocks = graft
                else:
                    blocks = blocks * (_norm(graft) / (_norm(blocks) + NORM_FLOOR))
            found.append(blocks)
        return joined(bands, found)


def _norm(blocks: paddle.Tensor) -> paddle.Tensor:
    """Frobenius norms [n, 1, 1]."""
    return paddle.sqrt(paddle.square(blocks).sum([-2, -1], keepdim=True))


@register(
    "shampoo",
    paper="1802.09568",
    year=2018,
    state_bytes_per_parameter=24,
    description="Inverse roots of both sides' statistics, in blocks; AdamW for the rest.",
    needs_roles=True,
)
class Shampoo(Optimizer):
    r"""Shampoo for hidden matrices, expert stacks and convolutions; AdamW for all other roles.

    For each block :math:`G_t` of a matrix' gradient,

    .. math::
        L_t = \beta_2 L_{t-1} + (1-\beta_2) G_t G_t^\top, \qquad
        R_t = \beta_2 R_{t-1} + (1-\beta_2) G_t^\top G_t, \qquad
        M_t = \beta_1 M_{t-1} + (1-\beta_1) G_t

        P_t = (\hat L + \epsilon I)^{-1/4} \, \hat M_t \, (\hat R + \epsilon I)^{-1/4}, \qquad
        W_t = (1 - \eta\lambda) W_{t-1} - \eta \frac{\|A_t\|_F}{\|P_t\|_F} P_t

    where hats correct the bias of averages, :math:`\hat L, \hat R` are those of the last refresh,
    and :math:`A_t = \hat M_t / (\sqrt{\hat V_t} + \epsilon_g)` is Adam's direction, whose length the
    step takes (grafting): learning rates are Adam's. Steps before the first refresh are Adam's.

    Args:
        learning_rate: :math:`\eta`, a number >= 0 or an LRScheduler.
        parameters: parameters, or groups that may override the options.
        roles: roles of the parameters, ``oarlock.core_opt.optim.roles(model)``.
        beta1, beta2: decay of the averages, in [0, 1).
        epsilon: :math:`\epsilon` > 0, added to the eigenvalues of the statistics. Float32 does not
            hold eigenvalues below 1e-7 of the largest: where statistics are singular, take a
            larger one or ``pseudo_inverse``.
        weight_decay: :math:`\lambda` >= 0 of the matrices.
        block_size: longest side of a block; a matrix is cut into such squares and what remains.
        precondition_frequency: steps between refreshes of the roots, which take an
            eigendecomposition of each statistic in float64.
        start_preconditioning_step: step of the first refresh; None for
            ``precondition_frequency``, or without grafting 1.
        grafting: ``"adam"``, or None for :math:`W_t = (1-\eta\lambda) W_{t-1} - \eta P_t`.
        grafting_epsilon: :math:`\epsilon_g` > 0.
        sides: ``"both"``, or ``"smaller"`` for the shorter side of each block only.
        exponent: of the inverse roots, in (0, 1]; None for 1/4 with both sides and 1/2 with one.
        pseudo_inverse: take directions in which a statistic is zero within rounding out of the
            update, in place of adding :math:`\epsilon`.
        adamw_lr_scale: AdamW's learning rate over Shampoo's, one number or one for each role.
        adamw_beta1, adamw_beta2, adamw_epsilon, adamw_weight_decay: options of the AdamW part.

    The other arguments are those of ``Optimizer``. The original sums the statistics without decay
    and has no grafting. Block size, :math:`\epsilon` and the rest follow Distributed Shampoo with
    grafting from AdamW; its roots are refreshed every step by default and every 50 in its paper, 10
    is ours. The state is 8 bytes a parameter and 8 for each element of the squares of a block's
    sides, so 24 for a square matrix.

    Source: Gupta et al., 1802.09568; Anil et al., 2002.09018; Shi et al. (Distributed Shampoo),
    2309.06497.
    """

    def __init__(
        self,
        learning_rate: float | LRScheduler = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-12,
        parameters: Iterable | None = None,
        roles: Roles | Mapping[str, Role] | None = None,
        weight_decay: float = 0.01,
        grad_clip: GradientClipBase | None = None,
        multi_precision: bool = False,
        *,
        block_size: int = 1024,
        precondition_frequency: int = 10,
        start_preconditioning_step: int | None = None,
        grafting: str | None = "adam",
        grafting_epsilon: float = 1e-8,
        sides: str = "both",
        exponent: float | None = None,
        pseudo_inverse: bool = False,
        adamw_lr_scale: float | Mapping[Role | str, float] = 1.0,
        adamw_beta1: float = 0.9,
        adamw_beta2: float = 0.999,
        adamw_epsilon: float = 1e-8,
        adamw_weight_decay: float = 0.01,
        apply_decay_param_fun: Callable[[str], bool] | None = None,
        stochastic_rounding: bool = False,
        seed: int = 0,
        nonfinite: str = "raise",
        path: str | None = None,
        name: str | None = None,
    ):
        matrix = ShampooRule(
            beta1=beta1,
            beta2=beta2,
            epsilon=epsilon,
            block_size=block_size,
            precondition_frequency=precondition_frequency,
            start_preconditioning_step=start_preconditioning_step,
            grafting=grafting,
            grafting_epsilon=grafting_epsilon,
            sides=sides,
            exponent=exponent,
            pseudo_inverse=pseudo_inverse,
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
