"""Sophia-G: momentum over a clipped diagonal of the Gauss-Newton matrix."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import paddle
from paddle.nn.clip import GradientClipBase
from paddle.optimizer.lr import LRScheduler

from . import _checks, _gradients, _state
from ._base import Optimizer, Slot
from ._registry import register
from ._rule import Batch, Rule


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SophiaGRule(Rule):
    """Options and update of Sophia-G."""

    beta1: float = 0.965
    beta2: float = 0.99
    gamma: float = 0.04
    epsilon: float = 1e-12
    hessian_interval: int | None = 10

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        _checks.fraction("beta1", self.beta1)
        _checks.fraction("beta2", self.beta2)
        _checks.real("gamma", self.gamma, 0.0, math.inf, open_low=True, open_high=True)
        _checks.real("epsilon", self.epsilon, 0.0, math.inf, open_low=True, open_high=True)
        if self.hessian_interval is not None:
            _checks.whole("hessian_interval", self.hessian_interval, 1)

    def state(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        return {"momentum": shape, "hessian": shape}

    def native(self, batch: Batch) -> None:
        from oarlock.native import optim as kernels

        kernels.sophia(
            batch.parameters,
            batch.grads,
            batch.states["momentum"],
            batch.states["hessian"],
            lr=batch.lr,
            beta1=self.beta1,
            gamma=self.gamma,
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            grad_scale=batch.grad_scale,
            rounding_seed=batch.rounding_seed,
        )

    def plain(self, batch: Batch) -> None:
        states = zip(batch.states["momentum"], batch.states["hessian"])
        for parameter, grad, (m, h) in zip(batch.parameters, batch.grads, states):
            m.scale_(self.beta1).add_(grad * (1 - self.beta1))
            ratio = paddle.clip(m / paddle.clip(h * self.gamma, min=self.epsilon), -1.0, 1.0)
            parameter.scale_(1 - batch.lr * self.weight_decay)
            parameter.subtract_(ratio.scale_(batch.lr))

    def native_hessian(self, grads: list, hessians: list, scale: float) -> None:
        """Take the estimate ``scale`` * grad^2 into the moving average with the native kernel."""
        from oarlock.native import optim as kernels

        kernels.sophia_hessian(grads, hessians, beta2=self.beta2, scale=scale)

    def plain_hessian(self, grads: list, hessians: list, scale: float) -> None:
        """The same with Paddle operators."""
        for grad, h in zip(grads, hessians):
            h.scale_(self.beta2).add_(paddle.square(grad) * ((1 - self.beta2) * scale))


@register(
    "sophia_g",
    paper="2305.14342",
    year=2023,
    state_bytes_per_parameter=8,
    description="Momentum over a clipped Gauss-Newton diagonal, from sampled labels.",
)
class SophiaG(Optimizer):
    r"""Sophia-G: a diagonal second-order method with elementwise clipping.

    Every :math:`k` steps, labels :math:`\hat y` are drawn from the model's own logits for the
    :math:`B` tokens of a batch. The gradient :math:`\hat g` of the mean cross-entropy with them
    gives an unbiased estimate of the diagonal of the Gauss-Newton matrix,

    .. math::
        h \leftarrow \beta_2 h + (1-\beta_2)\, B\, \hat g^2

    and every step, with the gradient :math:`g_t` of the true loss,

    .. math::
        m_t = \beta_1 m_{t-1} + (1-\beta_1) g_t, \qquad
        \theta_t = (1 - \eta\lambda)\,\theta_{t-1}
        - \eta\, \mathrm{clip}\!\left(\frac{m_t}{\max(\gamma h, \epsilon)}, -1, 1\right)

    >>> for number, (tokens, labels) in enumerate(batches):
    ...     if optimizer.hessian_due:
    ...         logits = model(tokens)
    ...         sampled = optim.sophia.sampled_labels(logits, seed=number)
    ...         cross_entropy(logits, sampled).backward()
    ...         optimizer.update_hessian(num_tokens=sampled.size)
    ...         optimizer.clear_grad()
    ...     cross_entropy(model(tokens), labels).backward()
    ...     optimizer.step()
    ...     optimizer.clear_grad()

    Where :math:`h` is still 0 a step is :math:`\pm\eta`, that of sign descent with momentum. The
    authors' training loop takes its first :math:`k-1` steps so. Here ``step()`` refuses to go on
    when the last estimate, or the start, lies ``hessian_interval`` steps back: an estimate that is
    forgotten would turn Sophia into sign descent in silence. ``hessian_interval=None`` allows it.

    Args:
        learning_rate: :math:`\eta`, a number >= 0 or an LRScheduler.
        beta1: decay of the momentum, in [0, 1).
        beta2: decay of the Hessian, in [0, 1).
        gamma: :math:`\gamma` > 0, ``rho`` in the authors' code. It sets the share of elements that
            are not clipped, which the paper wants at 10 to 50 %.
        epsilon: :math:`\epsilon` > 0.
        parameters: parameters, or groups that may override the options.
        weight_decay: :math:`\lambda` >= 0.
        hessian_interval: :math:`k` >= 1, or None to never ask for an estimate.

    The other arguments are those of ``Optimizer``. Clips do not apply to :math:`\hat g`.

    Source: Liu et al., 2305.14342; defaults of the authors' code, but for :math:`\epsilon`, which
    is the paper's, and k, which is both's.
    """

    def __init__(
        self,
        learning_rate: float | LRScheduler = 1e-4,
        beta1: float = 0.965,
        beta2: float = 0.99,
        gamma: float = 0.04,
        epsilon: float = 1e-12,
        parameters: Iterable | None = None,
        weight_decay: float = 0.1,
        grad_clip: GradientClipBase | None = None,
        multi_precision: bool = False,
        *,
        hessian_interval: int | None = 10,
        apply_decay_param_fun: Callable[[str], bool] | None = None,
        stochastic_rounding: bool = False,
        seed: int = 0,
        nonfinite: str = "raise",
        path: str | None = None,
        name: str | None = None,
    ):
        self._estimated_at: dict[str, int] = {}  # step of the last estimate of each parameter
        self._missed: set[str] = set()  # parameters without a gradient at the last estimate
        super().__init__(
            learning_rate=learning_rate,
            parameters=parameters,
            rules=SophiaGRule(
                beta1=beta1,
                beta2=beta2,
                gamma=gamma,
                epsilon=epsilon,
                weight_decay=weight_decay,
                hessian_interval=hessian_interval,
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

    @property
    def hessian_due(self) -> bool:
        """Whether to call ``update_hessian`` before the next step: at the first, then every k."""
        slots = [slot for slot in self._slots.values() if _interval(slot) is not None]
        return bool(slots) and (not self._estimated_at or any(map(self._overdue, slots)))

    @paddle.no_grad()
    def update_hessian(self, num_tokens: int) -> None:
        """Take the gradients of the loss with sampled labels into the Hessian.

        The loss must be the mean over tokens, without a loss scale; clear its gradients afterwards.
        With ``nonfinite="skip"`` an estimate that is not finite is left out and stays due.

        Args:
            num_tokens: number of tokens B over which the gradients are a mean; with data
                parallelism, which averages them, those of all workers.

        Raises:
            NonFiniteGradient: a gradient holds NaN or Inf and ``nonfinite="raise"``.
            ValueError: no parameter has a gradient, or one is sparse.
        """
        scale = float(_checks.whole("num_tokens", num_tokens, 1))
        pairs = _gradients.gather(_state.parameters(self))
        if not pairs:
            raise ValueError(
                "no parameter has a gradient; call backward() on the loss with sampled labels "
                "before update_hessian()."
            )
        check = self._nonfinite != "propagate"
        found = _gradients.clusters([(None, pairs)], self._path, check)
        if check and not _gradients.finite(found):
            if self._nonfinite == "raise":
                raise _gradients.refuse_non_finite(found, self._path)
            return
        batches: dict[tuple, list] = {}
        for parameter, grad in pairs:
            slot, target = self._slot(parameter), self._target(parameter)
            self._ensure_state(slot, parameter, target.dtype)
            hessian, native = slot.states["hessian"], self._is_native(target)
            if not native or grad.dtype != paddle.bfloat16:
                grad = grad.astype(hessian.dtype)
            batches.setdefault((slot.rule, native), []).append((grad, hessian))
            self._estimated_at[slot.name] = slot.step
        self._missed = set(self._slots) - {parameter.name for parameter, _ in pairs}
        for (rule, native), members in batches.items():
            grads, hessians = [grad for grad, _ in members], [h for _, h in members]
            (rule.native_hessian if native else rule.plain_hessian)(grads, hessians, scale)

    def _overdue(self, slot: Slot) -> bool:
        interval = _interval(slot)
        last = self._estimated_at.get(slot.name, 0)
        return interval is not None and slot.step - last >= interval

    def _take(self, work: list[tuple]) -> None:
        late = [slot for _, pairs in work for p, _ in pairs if self._overdue(slot := self._slot(p))]
        if late and all(slot.name in self._missed for slot in late):
            raise ValueError(
                f"parameter {late[0].name!r} ({len(late)} in all) had no gradient of the loss "
                "with sampled labels at the last update_hessian, and no estimate for "
                f"{_interval(late[0])} steps. If the logits do not depend on it, put it in a "
                'group of its own, {"params": [...], "hessian_interval": None}, for clipped steps '
                "without an estimate; else repeat update_hessian on a batch that reaches it."
            )
        if late:
            raise ValueError(
                f"the Hessian of parameter {late[0].name!r} ({len(late)} in all) was not estimated "
                f"for {_interval(late[0])} steps. Call update_hessian(num_tokens) where "
                "hessian_due, or pass hessian_interval=None for clipped steps without a new one."
            )
        super()._take(work)

    def state_dict(self) -> dict:
        """As ``Optimizer.state_dict``, with the step of the last estimate of each parameter."""
        state = super().state_dict()
        for name, estimated in self._estimated_at.items():
            # The step is 0 where an estimate came before the first step.
            steps = {"step": self._slots[name].step, "hessian_step": estimated}
            for key, value in steps.items():
                state[f"{name}_{self._state_key(key)}_0"] = paddle.to_tensor(
                    [value], dtype="int64", place=paddle.CPUPlace()
                )
        return state

    @paddle.no_grad()
    def set_state_dict(self, state: Mapping) -> None:
        """As ``Optimizer.set_state_dict``."""
        found = {name: _state.entries_of(self, name, state) for name in self._slots}
        estimated = {
            name: int(entries["hessian_step"].item())
            for name, entries in found.items()
            if "hessian_step" in entries
        }
        super().set_state_dict(state)
        self._estimated_at, self._missed = estimated, set()

    load_state_dict = set_state_dict
    set_dict = set_state_dict


def _interval(slot: Slot) -> int | None:
    assert isinstance(slot.rule, SophiaGRule)
    return slot.rule.hessian_interval


@paddle.no_grad()
def sampled_labels(logits: paddle.Tensor, seed: int) -> paddle.Tensor:
    r"""Labels drawn from :math:`\mathrm{softmax}` of the logits, for ``SophiaG.update_hessian``.

    Args:
        logits: [..., classes], floating; a class at -inf is never drawn.
        seed: integer >= 0; take another one each time, such as the number of the step.

    Returns:
        int64 labels [...], without gradient; the same for the same logits and seed.

    Raises:
        ValueError: logits are no floating tensor with at least one class, or the seed is wrong.
    """
    _checks.whole("seed", seed, 0)
    if not isinstance(logits, paddle.Tensor) or logits.dtype not in _checks.FLOATING:
        raise ValueError(f"logits must be a floating tensor, got {_checks.shown(logits)}.")
    if not logits.ndim or not logits.shape[-1]:
        raise ValueError(f"logits must have shape [..., classes], got {list(logits.shape)}.")
    wide = logits.astype("float32") if logits.dtype in _gradients.LOW_PRECISION else logits
    cumulated = paddle.cumsum(paddle.nn.functional.softmax(wide, axis=-1), axis=-1)
    # Midpoints of 2^22 cells: their products with the sum stay above 0 and below the sum.
    cells = np.random.default_rng(seed).integers(0, 2**22, size=[*logits.shape[:-1], 1])
    uniform = ((cells + 0.5) / 2**22).astype("float32")
    threshold = cumulated[..., -1:] * paddle.to_tensor(
        uniform, dtype=cumulated.dtype, place=cumulated.place
    )
    return (cumulated <= threshold).sum(axis=-1, dtype="int64")
