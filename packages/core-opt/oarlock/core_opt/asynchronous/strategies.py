"""What a server does with the gradients that come: wait, apply, correct or discard them."""

import math
from typing import TypeAlias

import numpy as np

from .. import _checks

Vector: TypeAlias = np.ndarray


class Strategy:
    """Base class: SGD that applies each gradient as soon as it comes.

    A strategy decides two things. Which gradients count: those with a delay below ``limit``, where
    the delay of a gradient is the number of updates since its computation began. And what they do
    to the parameters: ``apply`` returns the new ones, or None while it gathers more. Server and
    clock are not its business: `Cluster` runs it on a simulated clock, `Processes` on real ones.

    Args:
        learning_rate: step size > 0.
    """

    #: gradients of this delay or above are discarded; None keeps all
    limit: int | None = None
    #: whether a worker that has delivered waits for the next update
    waits = False
    #: where workers wait: how many gradients make an update; None for one of each worker
    gradients: int | None = None
    #: whether computations that can only be discarded are stopped and begun anew
    stops = False

    def __init__(self, learning_rate: float):
        self.learning_rate = _checks.real(
            "learning_rate", learning_rate, 0.0, math.inf, open_low=True, open_high=True
        )

    def reset(self, workers: int) -> None:
        """Begin a run with this many workers; forgets everything of an earlier one.

        Raises:
            ValueError: it needs more workers.
        """

    def accepts(self, delay: int) -> bool:
        """Whether a gradient of this delay counts."""
        return self.limit is None or delay < self.limit

    def apply(
        self, parameters: Vector, gradient: Vector, *, worker: int, then: Vector
    ) -> Vector | None:
        """New parameters, or None while more gradients are needed; arguments are left as they are.

        Args:
            parameters: those of now, [d].
            gradient: an accepted one, [d].
            worker: who computed it.
            then: the parameters at which it was computed, [d].
        """
        return parameters - self.learning_rate * gradient


class Asynchronous(Strategy):
    r"""Plain asynchronous SGD: :math:`x \leftarrow x - \eta\, g` for each gradient that comes.

    Source: Recht et al. (Hogwild), 1106.5730; Mishchenko et al., 2206.07638.
    """


class DelayCompensated(Strategy):
    r"""DC-ASGD: a first-order correction of what has changed since the gradient was begun.

    .. math::
        x \leftarrow x - \eta \left( g + \lambda\, g \odot g \odot (x - x_{then}) \right)

    where :math:`g \odot g` stands in for the Hessian's diagonal. With ``adaptive``,
    :math:`\lambda / \sqrt{v + 10^{-7}}` takes the place of :math:`\lambda`, with
    :math:`v \leftarrow m v + (1 - m)\, g \odot g`.

    Args:
        learning_rate: :math:`\eta` > 0.
        compensation: :math:`\lambda` >= 0; the paper's settings are 0.04 constant and 2 adaptive.
        adaptive: DC-ASGD-a rather than DC-ASGD-c.
        decay: :math:`m` in [0, 1).

    Source: Zheng et al., 1609.08326.
    """

    def __init__(
        self,
        learning_rate: float,
        *,
        compensation: float = 2.0,
        adaptive: bool = True,
        decay: float = 0.95,
    ):
        super().__init__(learning_rate)
        self.compensation = _checks.non_negative("compensation", compensation)
        self.adaptive = _checks.flag("adaptive", adaptive)
        self.decay = _checks.fraction("decay", decay)
        self._mean_square: Vector | float = 0.0

    def reset(self, workers: int) -> None:
        self._mean_square = 0.0

    def apply(
        self, parameters: Vector, gradient: Vector, *, worker: int, then: Vector
    ) -> Vector | None:
        square = np.square(gradient)
        factor: Vector | float = self.compensation
        if self.adaptive:
            self._mean_square = self.decay * self._mean_square + (1 - self.decay) * square
            factor = self.compensation / np.sqrt(self._mean_square + 1e-7)
        if then is not parameters:
            gradient = gradient + factor * square * (parameters - then)
        return parameters - self.learning_rate * gradient


class Ringmaster(Strategy):
    r"""Ringmaster ASGD: asynchronous SGD that discards gradients with a delay of R or more.

    With :math:`R = \max(1, \lceil \sigma^2 / \epsilon \rceil)` and
    :math:`\eta = \min(1 / (2RL), \epsilon / (4L\sigma^2))` it reaches
    :math:`E\|\nabla f\|^2 \le \epsilon` in the least time possible, up to a constant; see `bounds`.

    Args:
        learning_rate: :math:`\eta` > 0.
        threshold: R >= 1; 1 keeps only gradients at the current parameters.
        stops: stop computations whose delay has reached R and begin them anew (the paper's
            algorithm 5) rather than let them finish (algorithm 4).

    Source: Maranjyan et al., 2501.16168.
    """

    def __init__(self, learning_rate: float, *, threshold: int, stops: bool = True):
        super().__init__(learning_rate)
        self.limit = _checks.whole("threshold", threshold, 1)
        self.stops = _checks.flag("stops", stops)


class _Mean(Strategy):
    """Takes a step along the mean of several gradients at the current parameters."""

    limit = 1

    def __init__(self, learning_rate: float, gradients: int | None):
        super().__init__(learning_rate)
        if gradients is not None:
            self.gradients = _checks.whole("gradients", gradients, 1)
        self._needed = self.gradients or 1
        self._held: list[tuple[int, Vector]] = []

    def reset(self, workers: int) -> None:
        self._needed = self.gradients or workers
        self._held = []

    def apply(
        self, parameters: Vector, gradient: Vector, *, worker: int, then: Vector
    ) -> Vector | None:
        self._held.append((worker, gradient))
        if len(self._held) < self._needed:
            return None
        # summed in the order of workers, so that the result does not depend on who was first
        held = [g for _, g in sorted(self._held, key=lambda one: one[0])]
        self._held = []
        total = held[0]
        for one in held[1:]:
            total = total + one
        return parameters - self.learning_rate * (total / len(held))


class Synchronous(_Mean):
    r"""One gradient of each worker at the same parameters, then a step along their mean.

    Args:
        learning_rate: > 0.
        gradients: take the first so many of a round and stop the rest; None waits for all. With
            fixed delays these are the fastest workers (backup workers: Chen et al., 1604.00981).
    """

    waits = True

    def __init__(self, learning_rate: float, *, gradients: int | None = None):
        super().__init__(learning_rate, gradients)

    def reset(self, workers: int) -> None:
        if self.gradients is not None and self.gradients > workers:
            raise ValueError(
                f"gradients must be at most the number of workers, {workers}, since each gives one "
                f"a round; got {self.gradients}."
            )
        super().reset(workers)
        self.stops = self._needed < workers


class Rennala(_Mean):
    r"""Rennala SGD: as many gradients at the same parameters as needed, whoever computes them.

    Fast workers give several a round. Attains the same time as Ringmaster, up to a constant, with
    :math:`\lceil \sigma^2 / \epsilon \rceil` gradients.

    Args:
        learning_rate: > 0.
        gradients: of a step, >= 1.
        stops: stop computations at old parameters rather than let them finish.

    Source: Tyurin & Richtárik, 2305.12387.
    """

    def __init__(self, learning_rate: float, *, gradients: int, stops: bool = False):
        super().__init__(learning_rate, _checks.whole("gradients", gradients, 1))
        self.stops = _checks.flag("stops", stops)
