"""How far training strays when one product of one layer is rounded, predicted and measured.

The model is trained for a while in float32. From there every choice of layer, product and format trains a
few steps more on the same batches; measured is the root mean square of how much the losses of those
steps differ from those without rounding. Predicted is the same from a probe at the beginning.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from oarlock.accept.convergence import race
from oarlock.accept.convergence.settings import Setting, Task
from oarlock.accept.low_precision import arms
from oarlock.core_opt import precision
from oarlock.core_opt.precision.apply import only


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One product of one layer in a format: what the probe says, and what became of it."""

    layer: str
    role: str
    format: str
    loss_increase: float
    gradient_error: float
    tokens: int
    change: float  #: root mean square of the difference of losses, nats

    def predicted(self, drift: float) -> float:
        r"""Root mean square change of the loss: of the product's own error at once, and of drift.

        An error of random sign changes the loss of a batch of N tokens by a first-order term of
        variance :math:`\sum_i (G_i \cdot E_i)^2 = 2 \Delta L / N`, with the second-order increase
        :math:`\Delta L` of the probe. The error of gradients moves the weights, whose effect grows
        with its square; ``drift`` is nats² for a gradient error of 1.
        """
        return math.sqrt(2 * self.loss_increase / self.tokens + drift * self.gradient_error)


def choices(
    task: Task,
    setting: Setting,
    text: str,
    *,
    seed: int,
    formats: tuple[str, ...],
    steps: int,
    total_steps: int,
    on_choice: Callable[[int, int], None] = lambda done, total: None,
) -> list[Choice]:
    """All choices of a small model, each trained for ``steps`` after ``task.steps`` without rounding.

    Args:
        task: its ``steps`` come before.
        total_steps: of the schedule of the learning rate.
    """
    training, _ = race.tokens(text)
    runner = race.runner_of(task, setting, total_steps, training, seed)
    runner.advance(task.steps)
    model, optimizer = runner.model, runner.optimizer
    weights, state = _copies(model.state_dict()), _copies(optimizer.state_dict())
    batches = [next(runner.batches) for _ in range(steps)]
    found = precision.probe(model, batches[0], arms.loss, formats)

    def losses() -> np.ndarray:
        model.set_state_dict(weights)
        optimizer.set_state_dict(state)
        values = []
        for batch in batches:
            value = arms.loss(model, batch)
            value.backward()
            optimizer.step()
            optimizer.clear_grad()
            values.append(float(value))
        return np.array(values)

    exact, result = losses(), []
    for number, ((layer, role, name), effect) in enumerate(found.effects.items()):
        with only(model, layer, role, name):
            change = losses() - exact
        result.append(
            Choice(
                layer=layer,
                role=role,
                format=name,
                loss_increase=effect.loss_increase,
                gradient_error=effect.gradient_error,
                tokens=task.tokens_a_step,
                change=float(np.sqrt(np.mean(change**2))),
            )
        )
        on_choice(number + 1, len(found.effects))
    return result


def drift_of(found: list[Choice]) -> float:
    """Nats² for a gradient error of 1: the median over choices that change gradients only."""
    ratios = [
        one.change**2 / one.gradient_error
        for one in found
        if one.role != "forward" and one.gradient_error > 0
    ]
    return float(np.median(ratios))


def rank_correlation(found: list[Choice], drift: float) -> float:
    """Spearman's, between predicted and measured changes."""
    from scipy.stats import spearmanr

    predicted = [one.predicted(drift) for one in found]
    return float(spearmanr(predicted, [one.change for one in found]).statistic)


def _copies(state: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value.clone() if hasattr(value, "clone") else value for key, value in state.items()
    }
