"""Problems whose constants are known, on which the theory can be checked."""

import math

import numpy as np

from .. import _checks
from .strategies import Vector


class Chain:
    r"""The quadratic of the lower bounds, with Gaussian noise on its gradient.

    .. math::
        f(x) = \tfrac12 x^\top A x - b^\top x, \qquad
        A = \tfrac{L}{4}\,\mathrm{tridiag}(-1, 2, -1), \quad b = \tfrac{L}{4} (-1, 0, \dots, 0)

    The gradient is as smooth as L says, and information moves by one coordinate a step, which makes
    first-order methods slow.

    Args:
        dimension: d >= 2.
        smoothness: L > 0; the largest eigenvalue is :math:`L \sin^2(\pi d / (2 d + 2)) < L`.
        noise: :math:`\sigma` >= 0; :math:`E\|g - \nabla f\|^2 = \sigma^2`, spread over all d.

    Source: Nesterov 2018, section 2.1.2; used in 2305.12387 and 2501.16168.
    """

    def __init__(self, dimension: int, *, smoothness: float = 1.0, noise: float = 0.0):
        self.dimension = _checks.whole("dimension", dimension, 2)
        self.smoothness = _checks.real(
            "smoothness", smoothness, 0.0, math.inf, open_low=True, open_high=True
        )
        self.noise = _checks.non_negative("noise", noise)
        self._coordinate_noise = self.noise / math.sqrt(self.dimension)

    def true_gradient(self, parameters: Vector) -> Vector:
        """A x - b."""
        quarter = self.smoothness / 4
        gradient = (2 * quarter) * parameters
        gradient[1:] -= quarter * parameters[:-1]
        gradient[:-1] -= quarter * parameters[1:]
        gradient[0] += quarter
        return gradient

    def gradient(self, parameters: Vector, worker: int, rng: np.random.Generator) -> Vector:
        """The true gradient and noise; the same for every worker."""
        gradient = self.true_gradient(parameters)
        if self.noise:
            gradient += rng.standard_normal(self.dimension) * self._coordinate_noise
        return gradient

    def squared_norm(self, parameters: Vector) -> float:
        """Squared norm of the true gradient."""
        gradient = self.true_gradient(parameters)
        return float(gradient @ gradient)

    def value(self, parameters: Vector) -> float:
        """f(x)."""
        quarter = self.smoothness / 4
        curved = parameters @ parameters - parameters[:-1] @ parameters[1:]
        return float(quarter * (curved + parameters[0]))

    @property
    def minimum(self) -> float:
        r"""f at the minimiser :math:`x_i = -(1 - i / (d + 1))`, which is -(L/8) (1 - 1/(d+1))."""
        return -self.smoothness / 8 * (1 - 1 / (self.dimension + 1))
