"""What `oarlock.native.spherical` computes, by Paddle's operators: any device, and exported programs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import paddle
from paddle import Tensor

from oarlock.native.spherical import paths
from oarlock.sci_md.ops import plain


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Frames:
    """Args:
    lengths: [E], Å.
    turns: D^1, D^2, …: [E, 2l + 1, 2l + 1].
    cutoff: Å.
    """

    lengths: Tensor
    turns: list[Tensor]
    cutoff: float


def frames(vectors: Tensor, *, degree: int, cutoff: float) -> Frames:
    """The axes of each edge and what they do to features, see `oarlock.native.spherical.frames`."""
    lengths = plain.lengths(vectors)
    n = vectors / lengths.unsqueeze(-1)
    x, y, z = n[:, 0], n[:, 1], n[:, 2]
    ones = paddle.ones_like(z)
    sign = paddle.where(z < 0.0, -ones, ones)
    a = -1.0 / (sign + z)
    b = x * y * a
    rows = [
        [sign + y * y * a, -y, b],
        [y, z, x],
        [sign * b, -sign * x, ones + sign * x * x * a],
    ]
    first = paddle.stack([paddle.stack(row, axis=-1) for row in rows], axis=-2)
    turns = [first]
    for l in range(2, degree + 1):
        # D^l is what D^1 and D^(l − 1) do to products of degree l.
        couple = paddle.to_tensor(_coupling(l), dtype=vectors.dtype)  # [3 (2l − 1), 2l + 1]
        below = turns[-1]
        size = 3 * (2 * l - 1)
        product = (first.unsqueeze(-1).unsqueeze(-3)) * (below.unsqueeze(-2).unsqueeze(-4))
        product = product.transpose([0, 1, 2, 3, 4]).reshape([-1, size, size])
        turns.append(paddle.matmul(couple.t(), paddle.matmul(product, couple)))
    return Frames(lengths=lengths, turns=turns, cutoff=cutoff)
