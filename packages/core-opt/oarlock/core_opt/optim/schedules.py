"""Learning-rate schedules with a warm-up, as ``paddle.optimizer.lr.LRScheduler``."""

import math

from paddle.optimizer.lr import LRScheduler

from . import _checks


class _Schedule(LRScheduler):
    """A peak learning rate times ``factor(step)``; call ``step()`` after each optimiser step.

    The rate of the first optimiser step is that of step 0, and the rate stays at its last value
    after ``total_steps``.
    """

    def __init__(self, learning_rate: float, total_steps: int, warmup_steps: int):
        peak = _checks.non_negative("learning_rate", learning_rate)
        self.total_steps, self.warmup_steps = _steps(total_steps, warmup_steps)
        super().__init__(peak)

    def get_lr(self) -> float:
        step = self.last_epoch
        if step < self.warmup_steps:
            return self.base_lr * (step + 1) / self.warmup_steps
        return self.base_lr * self.factor(min(step, self.total_steps))

    def factor(self, step: int) -> float:
        """Factor on the peak after the warm-up."""
        raise NotImplementedError


class WSD(_Schedule):
    r"""Warm-up, stable, decay: linear up, constant, then down.

    With :math:`x` the share of the decay that is done and :math:`f` the final factor, ``decay`` is

    - ``"linear"``: :math:`f + (1 - f)(1 - x)`
    - ``"sqrt"``: :math:`f + (1 - f)(1 - \sqrt{x})`, which falls at once and then slowly
    - ``"exponential"``: :math:`f^x`, for :math:`f > 0`

    Args:
        learning_rate: peak.
        total_steps: optimiser steps in all.
        warmup_steps: steps of linear warm-up, from ``learning_rate / warmup_steps``.
        decay_steps: steps of the decay at the end; None for a fifth of ``total_steps``.
        final_factor: factor on the peak at the end.
        decay: the form of the decay.

    Source: Hu et al. (MiniCPM), 2404.06395 (exponential); Hägele et al., 2405.18392 (linear and
    "1-sqrt", of which the latter ended lowest).
    """

    def __init__(
        self,
        learning_rate: float,
        total_steps: int,
        *,
        warmup_steps: int = 0,
        decay_steps: int | None = None,
        final_factor: float = 0.0,
        decay: str = "linear",
    ):
        total_steps, warmup_steps = _steps(total_steps, warmup_steps)
        self.decay = _checks.choice("decay", decay, ("linear", "sqrt", "exponential"))
        given = "" if decay_steps is not None else " (by default, a fifth of total_steps)"
        if decay_steps is None:
            decay_steps = max(1, total_steps // 5)
        self.decay_steps = _checks.whole("decay_steps", decay_steps, 1)
        self.final_factor = _checks.real("final_factor", final_factor, 0.0, 1.0)
        if self.decay_steps > total_steps - warmup_steps:
            raise ValueError(
                f"decay_steps must be at most total_steps - warmup_steps = "
                f"{total_steps - warmup_steps}, got {decay_steps}{given}."
            )
        if decay == "exponential" and self.final_factor == 0:
            raise ValueError(
                'final_factor must be above 0 with decay="exponential", which never reaches zero;'
                " take 0.1, say, or another decay."
            )
        super().__init__(learning_rate, total_steps, warmup_steps)

    def factor(self, step: int) -> float:
        done = max(0.0, 1 - (self.total_steps - step) / self.decay_steps)
        if self.decay == "exponential":
            return self.final_factor**done
        left = 1 - (math.sqrt(done) if self.decay == "sqrt" else done)
        return self.final_factor + (1 - self.final_factor) * left


class WarmupCosine(_Schedule):
    """Linear warm-up, then half a cosine from the peak to ``final_factor`` times the peak.

    Source: Loshchilov & Hutter, 1608.03983.
    """

    def __init__(
        self,
        learning_rate: float,
        total_steps: int,
        *,
        warmup_steps: int = 0,
        final_factor: float = 0.0,
    ):
        self.final_factor = _checks.real("final_factor", final_factor, 0.0, 1.0)
        super().__init__(learning_rate, total_steps, warmup_steps)

    def factor(self, step: int) -> float:
        done = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return self.final_factor + (1 - self.final_factor) * (1 + math.cos(math.pi * done)) / 2


class LinearToZero(_Schedule):
    """Linear warm-up, then linear decay to zero at ``total_steps``.

    Source: Bergsma et al., 2502.15938.
    """

    def __init__(self, learning_rate: float, total_steps: int, *, warmup_steps: int = 0):
        super().__init__(learning_rate, total_steps, warmup_steps)

    def factor(self, step: int) -> float:
        return (self.total_steps - step) / (self.total_steps - self.warmup_steps)


class PowerCool(_Schedule):
    r"""Linear warm-up, constant, then a cool-down by a power of what is left.

    With the fraction :math:`x` of the cool-down that is still ahead and the final factor :math:`f`,

    .. math::
        \eta = \eta_{peak} \left(f + (1 - f)\, x^{p}\right)

    ``power=1`` is ``WSD``'s linear decay; a larger power falls sooner and ends flatter.

    Args:
        learning_rate: peak.
        total_steps: optimiser steps in all.
        warmup_steps: steps of linear warm-up, from ``learning_rate / warmup_steps``.
        cooldown_steps: steps of the cool-down at the end; None for all after the warm-up.
        power: :math:`p` > 0.
        final_factor: :math:`f`, factor on the peak at the end.

    Source: the power-law cool-down of modded-nanogpt's track 3 (KL-SOAP-H, pull request 293: power
    1.5, no warm-up, over the whole run for matrices and its last 40 % for the rest). The warm-up
    and the name are ours.
    """

    def __init__(
        self,
        learning_rate: float,
        total_steps: int,
        *,
        warmup_steps: int = 0,
        cooldown_steps: int | None = None,
        power: float = 1.5,
        final_factor: float = 0.0,
    ):
        total_steps, warmup_steps = _steps(total_steps, warmup_steps)
        if cooldown_steps is None:
            cooldown_steps = total_steps - warmup_steps
        self.cooldown_steps = _checks.whole("cooldown_steps", cooldown_steps, 1)
        self.power = _checks.real("power", power, 0.0, math.inf, open_low=True, open_high=True)
        self.final_factor = _checks.real("final_factor", final_factor, 0.0, 1.0)
        if self.cooldown_steps > total_steps - warmup_steps:
            raise ValueError(
                f"cooldown_steps must be at most total_steps - warmup_steps = "
                f"{total_steps - warmup_steps}, got {cooldown_steps}."
            )
        super().__init__(learning_rate, total_steps, warmup_steps)

    def factor(self, step: int) -> float:
        left = min(1.0, (self.total_steps - step) / self.cooldown_steps)
        return self.final_factor + (1 - self.final_factor) * left**self.power


def _steps(total_steps: int, warmup_steps: int) -> tuple[int, int]:
    total = _checks.whole("total_steps", total_steps, 1)
    warmup = _checks.whole("warmup_steps", warmup_steps, 0)
    if warmup >= total:
        raise ValueError(f"warmup_steps must be smaller than total_steps ({total}), got {warmup}.")
    return total, warmup
