"""The networks of the Deep Potential: layers with a shortcut where the widths allow one.

y = x' + t ∘ tanh(x W + b), with x' = x where the width stays, (x, x) where it doubles and 0 elsewhere.
Source: DeepPot-SE, 1805.09003.
"""

import math
from collections.abc import Sequence

import paddle
from paddle import Tensor, nn


class ResidualLayer(nn.Layer):
    """Args:
    timestep: t is learned; else it is 1. A layer without a shortcut has none.
    """

    def __init__(self, width_in: int, width_out: int, *, timestep: bool) -> None:
        super().__init__()
        normal = nn.initializer.Normal
        self.repeats = width_out // width_in if width_out in (width_in, 2 * width_in) else 0
        self.weight = self.create_parameter(
            [width_in, width_out],
            default_initializer=normal(std=1.0 / math.sqrt(width_in + width_out)),
        )
        self.bias = self.create_parameter([width_out], is_bias=True, default_initializer=normal())
        self.timestep = None
        if timestep and self.repeats:
            self.timestep = self.create_parameter(
                [width_out], default_initializer=normal(mean=0.1, std=1e-3)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = paddle.tanh(paddle.matmul(x, self.weight) + self.bias)
        if self.timestep is not None:
            y = y * self.timestep
        if self.repeats == 2:
            return y + paddle.concat([x, x], axis=-1)
        return y + x if self.repeats else y


class EmbeddingNet(nn.Layer):
    """A number for each edge → its features. [..., 1] → [..., widths[-1]]."""

    def __init__(self, widths: Sequence[int], *, timestep: bool) -> None:
        super().__init__()
        pairs = zip((1, *widths[:-1]), widths, strict=True)
        self.layers = nn.LayerList(
            ResidualLayer(before, after, timestep=timestep) for before, after in pairs
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class FittingNet(nn.Layer):
    """Descriptor of each atom → its energy. [n, width] → [n]."""

    def __init__(self, width: int, widths: Sequence[int], *, timestep: bool) -> None:
        super().__init__()
        pairs = zip((width, *widths[:-1]), widths, strict=True)
        self.layers = nn.LayerList(
            ResidualLayer(before, after, timestep=timestep) for before, after in pairs
        )
        self.out = nn.Linear(widths[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.out(x).squeeze(-1)
