"""The operators as compositions of Paddle's, none of which has a wrong second derivative."""

import math

import paddle
import paddle.nn.functional as F
from paddle import Tensor


def gather(features: Tensor, index: Tensor) -> Tensor:
    """Rows of features. features: [N, ...], index: [E] int64 → [E, ...]."""
    return paddle.gather(features, index, axis=0)


def scatter_sum(values: Tensor, index: Tensor, count: int) -> Tensor:
    """Sums of the rows with the same index. values: [E, ...], index: [E] int64 → [count, ...]."""
    zeros = paddle.zeros([count, *values.shape[1:]], dtype=values.dtype)
    return paddle.index_add(zeros, index, 0, values)


def lengths(vectors: Tensor) -> Tensor:
    """|r| of each row. vectors: [E, 3] → [E]; no row may be zero."""
    return paddle.sqrt(paddle.square(vectors).sum(axis=-1))


def cosine_cutoff(distances: Tensor, cutoff: float) -> Tensor:
    """½ (1 + cos(π r / r_c)) below the cut-off, 0 from there. [E] → [E]. Source: Behler 2011."""
    values = 0.5 * (paddle.cos(distances * (math.pi / cutoff)) + 1.0)
    return paddle.where(distances < cutoff, values, paddle.zeros_like(values))


def polynomial_cutoff(distances: Tensor, cutoff: float, power: int = 6) -> Tensor:
    """A polynomial that falls from 1 to 0 with two vanishing derivatives at the cut-off. [E] → [E].

    1 − (p+1)(p+2)/2 uᵖ + p(p+2) uᵖ⁺¹ − p(p+1)/2 uᵖ⁺², u = r / r_c. Source: DimeNet, 2003.03123.
    """
    u = distances / cutoff
    base = u
    for _ in range(power - 1):  # products: Paddle's power of a tensor is slow
        base = base * u
    a = (power + 1.0) * (power + 2.0) / 2.0
    b = power * (power + 2.0)
    c = power * (power + 1.0) / 2.0
    values = 1.0 - base * (a - u * (b - c * u))
    return paddle.where(distances < cutoff, values, paddle.zeros_like(values))


def gaussian_basis(distances: Tensor, centers: Tensor, width: float) -> Tensor:
    """exp(−½ ((r − μ) / w)²). distances: [E], centers: [K] → [E, K]. Source: SchNet, 1706.08566."""
    offset = distances.unsqueeze(-1) - centers
    return paddle.exp(paddle.square(offset) * (-0.5 / width**2))


def bessel_basis(distances: Tensor, frequencies: Tensor, cutoff: float) -> Tensor:
    """√(2 / r_c) sin(n π r / r_c) / r. distances: [E], frequencies nπ/r_c: [K] → [E, K].

    Source: DimeNet, 2003.03123.
    """
    r = distances.unsqueeze(-1)
    return math.sqrt(2.0 / cutoff) * paddle.sin(r * frequencies) / r


def shifted_softplus(x: Tensor) -> Tensor:
    """ln(½ eˣ + ½). Source: SchNet, 1706.08566."""
    return F.softplus(x) - math.log(2.0)
