"""The operators as compositions of Paddle's, none of which has a wrong second derivative."""

import math
from collections.abc import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from oarlock.native.atoms import Radial


def gather(features: Tensor, index: Tensor) -> Tensor:
    """Rows of features. features: [N, ...], index: [E] int64 → [E, ...]."""
    return paddle.gather(features, index, axis=0)


def scatter_sum(values: Tensor, index: Tensor, count: int) -> Tensor:
    """Sums of the rows with the same index. values: [E, ...], index: [E] int64 → [count, ...]."""
    zeros = paddle.zeros([count, *values.shape[1:]], dtype=values.dtype)
    return paddle.index_add(zeros, index, 0, values)


def convolve(
    features: Tensor, filters: Tensor, first: Tensor, second: Tensor, *, count: int, both: int = 0
) -> Tensor:
    """Features of neighbours times filters, summed up at each atom: y_i = Σ x_j ∘ w_ij.

    Args:
        features: x, [N, F] or [N, channels, F].
        filters: w, [P, F], the same for all channels.
        first: [P] int64, the atoms i, below `count`.
        second: [P] int64, the atoms j.
        count: atoms that sums are for.
        both: the first so many pairs also act the other way, y_j += x_i ∘ w_ij.

    Returns:
        [count, F] or [count, channels, F].
    """
    if both:
        first, second = (
            paddle.concat([first, second[:both]]),
            paddle.concat([second, first[:both]]),
        )
        filters = paddle.concat([filters, filters[:both]])
    wide = filters if len(features.shape) == 2 else filters.unsqueeze(1)
    return scatter_sum(gather(features, second) * wide, first, count)


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


def activation(x: Tensor, name: str, bias: Tensor | None = None) -> Tensor:
    """f(x + bias), "shifted_softplus" or "silu". x: [..., F], bias: [F]."""
    y = x if bias is None else x + bias
    return shifted_softplus(y) if name == "shifted_softplus" else F.silu(y)


def shifted_softplus(x: Tensor) -> Tensor:
    """ln(½ eˣ + ½). Source: SchNet, 1706.08566."""
    return F.softplus(x) - math.log(2.0)


def radial_filters(
    distances: Tensor,
    radial: Radial,
    parameters: Tensor,
    layers: Sequence[tuple[Tensor, Tensor]],
) -> Tensor:
    """The filter of each edge, a network of its length: c(r) (f(φ(r) W₁ + b₁) W₂ + b₂).

    Args:
        distances: r, [P].
        radial: basis φ, activation f and cut-off c.
        parameters: centres or frequencies of the basis, [K].
        layers: weights and biases of the last layer, or of a hidden layer before it too.

    Returns:
        [P, F].
    """
    if radial.basis == "gaussian":
        values = gaussian_basis(distances, parameters, radial.width)
    else:
        values = bessel_basis(distances, parameters, radial.cutoff)
    *hidden, (weight, bias) = layers
    for inner, added in hidden:
        values = activation(paddle.matmul(values, inner), radial.activation, added)
    if radial.envelope == "cosine":
        cut = cosine_cutoff(distances, radial.cutoff)
    else:
        cut = polynomial_cutoff(distances, radial.cutoff, radial.power)
    return (paddle.matmul(values, weight) + bias) * cut.unsqueeze(-1)
