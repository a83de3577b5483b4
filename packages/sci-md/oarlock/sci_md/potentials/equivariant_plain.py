"""What `oarlock.native.spherical` computes, by Paddle's operators: any device, and exported programs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import paddle
from paddle import Tensor

from oarlock.native.spherical import sphere_points
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
    for ell in range(2, degree + 1):
        # D^l is what D^1 and D^(l − 1) do to products of degree l.
        couple = paddle.to_tensor(_coupling(ell), dtype=vectors.dtype)  # [3 (2l − 1), 2l + 1]
        below = turns[-1]
        size = 3 * (2 * ell - 1)
        product = first.unsqueeze(-1).unsqueeze(-3) * below.unsqueeze(-2).unsqueeze(-4)
        product = product.reshape([-1, size, size])
        turns.append(paddle.matmul(couple.t(), paddle.matmul(product, couple)))
    return Frames(lengths=lengths, turns=turns, cutoff=cutoff)


@cache
def _coupling(ell: int) -> np.ndarray:
    """How products of harmonics of degrees 1 and l − 1 make those of degree l. [3 (2l − 1), 2l + 1]."""
    values, weights = sphere_points(ell, ell)  # exact beyond the degree 2l that is needed
    products = values[:, 1:4, None] * values[:, None, (ell - 1) ** 2 : ell**2]
    couple = products.reshape(len(values), -1).T @ weights[:, ell**2 :]
    return couple / np.linalg.norm(couple, axis=0)


def spline(lengths: Tensor, table: Tensor, cutoff: float) -> Tensor:
    """Cubic B-splines of equal intervals. lengths: [E], table: [intervals + 3, P, C] → [E, P, C]."""
    intervals = table.shape[0] - 3
    place = lengths * (intervals / cutoff)
    row = paddle.clip(place.detach().astype("int64"), 0, intervals - 1)
    t = place - row.astype(place.dtype)
    s = 1.0 - t
    inside = (lengths < cutoff).astype(place.dtype) / 6.0
    shares = [
        s * s * s,
        4.0 + t * t * (3.0 * t - 6.0),
        1.0 + t * (3.0 + t * (3.0 - 3.0 * t)),
        t * t * t,
    ]
    parts = [
        (share * inside).unsqueeze(-1).unsqueeze(-1) * paddle.gather(table, row + k, axis=0)
        for k, share in enumerate(shares)
    ]
    return parts[0] + parts[1] + parts[2] + parts[3]


def convolve(
    features: Sequence[Tensor],
    table: Tensor,
    over: Frames,
    centers: Tensor,
    neighbours: Tensor,
    atoms: int,
) -> list[Tensor]:
    """Σ_j Dᵀ S(r_ij) D h_j for each degree up to that of the frames, see `oarlock.native.spherical`."""
    degree_in, degree_out = len(features) - 1, len(over.turns)
    shared = min(degree_in, degree_out)
    weights = spline(over.lengths, table, over.cutoff)
    turned = [plain.gather(features[0], neighbours)]
    for ell in range(1, degree_in + 1):
        turned.append(paddle.matmul(over.turns[ell - 1], plain.gather(features[ell], neighbours)))
    turned_all = paddle.concat(turned, axis=1)  # [E, (degree in + 1)², C]
    channels = table.shape[2]
    parts, order = [], []  # rows of the result in the frame, and the degree and m of each
    path = 0
    for m in range(shared + 1):
        size_out, size_in = degree_out + 1 - m, degree_in + 1 - m
        weight = weights[:, path : path + size_out * size_in]
        weight = weight.reshape([-1, size_out, size_in, channels])
        path += size_out * size_in
        for sign in (m, -m) if m > 0 else (0,):
            own = [one * one + one + sign for one in range(m, degree_in + 1)]
            parts.append((weight * _rows(turned_all, own).unsqueeze(1)).sum(axis=2))
            order += [(one, sign) for one in range(m, degree_out + 1)]
    result_rows = paddle.concat(parts, axis=1)
    result = []
    for out in range(degree_out + 1):
        seen = min(shared, out)
        own = [order.index((out, m)) for m in range(-seen, seen + 1)]
        values = _rows(result_rows, own)
        if out > 0:
            turn = over.turns[out - 1][:, out - seen : out + seen + 1]
            values = paddle.matmul(turn, values, transpose_x=True)
        # In a traced program sizes get lost on the way.
        values = values.reshape([-1, 2 * out + 1, channels])
        result.append(plain.scatter_sum(values, centers, atoms))
    return result


def _rows(features: Tensor, numbers: list[int]) -> Tensor:
    """[E, K, C] → [E, len(numbers), C]."""
    return paddle.index_select(features, paddle.to_tensor(numbers, dtype="int64"), axis=1)


def powers(features: Sequence[Tensor], values: Tensor, weights: Tensor) -> list[Tensor]:
    """The components of f² and f³ by their values at points, see `oarlock.native.spherical.powers`."""
    at_points = paddle.matmul(values, paddle.concat(list(features), axis=1))  # [N, points, C]
    squares = at_points * at_points
    both = paddle.concat([squares, squares * at_points], axis=-1)
    result = paddle.matmul(weights, both, transpose_x=True)
    degree = round(weights.shape[1] ** 0.5) - 1
    return [result[:, ell * ell : (ell + 1) ** 2] for ell in range(degree + 1)]
