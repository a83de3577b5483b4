"""Training under a plan that is made, renewed and, where it does harm, given up by itself."""

import logging
import math
from collections.abc import Iterable
from typing import Any

import paddle
from paddle import nn

from .._checks import real, whole
from .apply import Applied, apply
from .plan import Plan
from .search import Budget, search
from .sensitivity import Loss

logger = logging.getLogger(__name__)

SMOOTHING = 0.9  #: of the loss that divergence is judged by
WARM_UP = 10  #: steps before it is judged


class MixedPrecision:
    """Computes a model's loss by a plan: found on the first batch, renewed, given up on divergence.

        training = MixedPrecision(model, loss=lambda model, batch: model.loss(*batch))
        for batch in batches:
            training.loss(batch).backward()
            optimizer.step()
            optimizer.clear_grad()

    A loss that is not finite is computed anew without the plan before anything was changed by it. If
    the smoothed loss stays above its lowest by ``tolerance`` for ``patience`` steps, the plan is taken
    out; both are logged with the reason, and noted in ``events``. The next renewal tries again with
    half the budget.

    Attributes:
        plan: at work now; None before the first batch and after the plan was given up.
        events: (step, what happened and why).
    """

    def __init__(
        self,
        model: nn.Layer,
        *,
        loss: Loss,
        plan: Plan | None = None,
        formats: Iterable[str] = ("bf16", "int8", "int8_block"),
        budget: Budget = Budget(),
        replan_every: int | None = None,
        tolerance: float = 0.05,
        patience: int = 20,
    ):
        """
        Args:
            model: that is trained.
            loss: ``loss(model, batch)``, a scalar.
            plan: to begin with; None searches for one on the first batch.
            formats, budget: of each search.
            replan_every: steps between searches; None: the first plan stays.
            tolerance: relative rise of the smoothed loss over its lowest that counts as divergence.
            patience: steps it must last.

        Raises:
            ValueError: an argument is out of its range, or the plan does not fit the model.
        """
        self.model, self.formats, self.budget = model, tuple(formats), budget
        self._loss = loss
        self.replan_every = None if replan_every is None else whole("replan_every", replan_every, 1)
        self.tolerance = real("tolerance", tolerance, 0.0, math.inf, open_low=True)
        self.patience = whole("patience", patience, 1)
        self.step = 0
        self.events: list[tuple[int, str]] = []
        self._applied: Applied | None = None if plan is None else apply(model, plan)
        self._searched = plan is not None
        self._smooth, self._lowest, self._above = math.nan, math.inf, 0

    @property
    def plan(self) -> Plan | None:
        return None if self._applied is None else self._applied.plan

    def loss(self, batch: Any) -> paddle.Tensor:
        """The loss of a batch, to call ``backward()`` on; counts as one step."""
        due = self.replan_every is not None and self.step and self.step % self.replan_every == 0
        if due or not self._searched:
            self._search(batch)
        value = self._loss(self.model, batch)
        number = float(value)
        if not math.isfinite(number) and self._applied is not None:
            self._give_up(f"the loss of the step was {number}; computed anew in full precision")
            value = self._loss(self.model, batch)
            number = float(value)
        self._judge(number)
        self.step += 1
        return value

    def stop(self) -> None:
        """Let the model compute as it did before; ``loss`` goes on without a plan."""
        self._take_out()
        self._searched = True

    def _search(self, batch: Any) -> None:
        self._take_out()
        plan = search(self.model, batch, loss=self._loss, formats=self.formats, budget=self.budget)
        self._applied, self._searched = apply(self.model, plan), True
        self._note(f"plan: {plan.forecast}")

    def _judge(self, number: float) -> None:
        first = math.isnan(self._smooth)
        self._smooth = number if first else SMOOTHING * self._smooth + (1 - SMOOTHING) * number
        if self.step < WARM_UP or not math.isfinite(self._smooth):
            return
        self._lowest = min(self._lowest, self._smooth)
        rise = self._smooth - self._lowest
        self._above = self._above + 1 if rise > self.tolerance * abs(self._lowest) else 0
        if self._above >= self.patience and self._applied is not None:
            self._give_up(
                f"the smoothed loss {self._smooth:.4g} was {rise / abs(self._lowest):.1%} above its"
                f" lowest, {self._lowest:.4g}, for {self._above} steps"
            )

    def _give_up(self, reason: str) -> None:
        self._take_out()
        self.budget = Budget(
            loss_increase=self.budget.loss_increase / 2,
            gradient_error=self.budget.gradient_error / 2,
        )
        self._above = 0
        self._note(f"back to full precision: {reason}", logging.WARNING)

    def _take_out(self) -> None:
        if self._applied is not None:
            self._applied.remove()
            self._applied = None

    def _note(self, what: str, level: int = logging.INFO) -> None:
        self.events.append((self.step, what))
        logger.log(level, "step %d: %s", self.step, what)
