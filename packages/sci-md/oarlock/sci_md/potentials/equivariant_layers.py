"""Parts of the equivariant potential: features as lists of degrees, radial tables, linear maps."""

import math
from collections.abc import Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

Features = list[Tensor]  # for each degree l [N, 2l + 1, C]


def spline_centers(cutoff: float, intervals: int) -> np.ndarray:
    """Where the cubic B-splines of a radial table are highest, Å: [intervals + 3].

    The last three reach beyond the cut-off.
    """
    return (np.arange(intervals + 3) - 1) * (cutoff / intervals)


class RadialTable(nn.Layer):
    """Weights of a convolution over the distance: a network, evaluated at the knots of a spline only.

    The spline is the weights' definition, no approximation to them: whatever the network is, an edge
    costs a mix of four rows. At the cut-off all weights vanish with two derivatives.

    Args:
        paths: weights of a channel.
        channels: C.
        cutoff: Å.
        intervals: of the spline.
        basis: Bessel functions that the network sees.
        width: of its two hidden layers.
    """

    def __init__(
        self, *, paths: int, channels: int, cutoff: float, intervals: int, basis: int, width: int
    ) -> None:
        super().__init__()
        self.shape = [intervals + 3, paths, channels]
        r = spline_centers(cutoff, intervals)
        n = np.arange(1, basis + 1)
        bessel = math.sqrt(2.0) * n * np.sinc(np.outer(r / cutoff, n)) * math.sqrt(1.0 / basis)
        u = np.clip(r / cutoff, 0.0, 1.0)
        fall = 1 - 21 * u**5 + 35 * u**6 - 15 * u**7
        fall[-3:] = 0.0
        dtype = paddle.get_default_dtype()
        self.register_buffer("bessel", paddle.to_tensor(bessel, dtype=dtype), persistable=False)
        self.register_buffer(
            "fall", paddle.to_tensor(fall[:, None], dtype=dtype), persistable=False
        )
        self.layers = nn.LayerList(
            [linear(basis, width), linear(width, width), linear(width, paths * channels)]
        )

    def forward(self) -> Tensor:
        """[intervals + 3, paths, C]."""
        hidden = 1.7 * F.silu(self.layers[0](self.bessel))
        hidden = 1.7 * F.silu(self.layers[1](hidden))
        return (self.layers[2](hidden) * self.fall).reshape(self.shape)


def linear(width_in: int, width_out: int) -> nn.Linear:
    """Without bias; keeps the variance of its input."""
    normal = nn.initializer.Normal(std=1.0 / math.sqrt(width_in))
    return nn.Linear(width_in, width_out, weight_attr=normal, bias_attr=False)


class DegreeLinear(nn.Layer):
    """A linear map of channels for each degree from 0. [N, 2l + 1, C] → [N, 2l + 1, C']."""

    def __init__(self, degree: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.channels = channels_in, channels_out
        self.maps = nn.LayerList(linear(channels_in, channels_out) for _ in range(degree + 1))

    def forward(self, features: Sequence[Tensor]) -> Features:
        """As far as both the maps and the features go."""
        reached = range(min(len(self.maps), len(features)))
        return [self._mapped(self.maps[ell], features[ell], 2 * ell + 1) for ell in reached]

    def _mapped(self, by: nn.Layer, features: Tensor, components: int) -> Tensor:
        # As one matrix: of a batch Paddle's second derivative makes a gradient for each atom.
        rows = features.reshape([-1, self.channels[0]])
        return by(rows).reshape([-1, components, self.channels[1]])
