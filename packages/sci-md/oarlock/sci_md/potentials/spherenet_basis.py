"""Functions of a distance, an angle and a torsion: spherical Bessel functions and harmonics.

Everything is made of products, quotients, sines and cosines, which Paddle differentiates twice. Angles
come as the cosine, torsions as components across the axis, so that no angle is ever computed and
nothing is singular where three atoms lie on a line.
"""

import math

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor, nn
from scipy.optimize import brentq
from scipy.special import spherical_jn


def bessel_zeros(orders: int, count: int) -> NDArray[np.float64]:
    """[orders, count], the first positive zeros of the spherical Bessel functions j_0, j_1, …"""
    between = (
        np.arange(1, count + orders) * np.pi
    )  # of j_0; those of j_l+1 lie between those of j_l
    zeros = [between[:count]]
    for order in range(1, orders):
        between = np.array(
            [
                brentq(lambda x, order=order: spherical_jn(order, x), low, high, xtol=1e-14)
                for low, high in zip(between[:-1], between[1:], strict=True)
            ]
        )
        zeros.append(between[:count])
    return np.array(zeros)


class SphericalBessel(nn.Layer):
    """Distances [E] → [E, orders, count] float64: j_l(z_ln r / r_c), of norm 1 inside the cut-off.

    Source: DimeNet, 2003.03123. Zero at the cut-off, with a slope.
    """

    def __init__(self, orders: int, count: int, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.orders = orders
        zeros = bessel_zeros(orders, count)
        norms = np.sqrt(2.0) / np.abs(spherical_jn(np.arange(1, orders + 1)[:, None], zeros))
        for name, values in (("zeros", zeros), ("norms", norms)):  # no parameters
            self.register_buffer(name, paddle.to_tensor(values, dtype="float64"), persistable=False)

    def forward(self, distances: Tensor) -> Tensor:
        scaled = distances.astype("float64").unsqueeze(-1) / self.cutoff
        functions = [
            self.norms[order] * _spherical_bessel(order, scaled * self.zeros[order])
            for order in range(self.orders)
        ]
        return paddle.concat([one.unsqueeze(1) for one in functions], axis=1)


def _spherical_bessel(order: int, x: Tensor) -> Tensor:
    """j_l(x) by the recurrence upwards: with float64, right where x is not far below l."""
    before = paddle.sin(x) / x
    if order == 0:
        return before
    current = (before - paddle.cos(x)) / x
    for step in range(1, order):
        before, current = current, (2 * step + 1) / x * current - before
    return current


def legendre(cosine: Tensor, degrees: int) -> Tensor:
    """Y_l0(θ), l = 0 … degrees − 1. cos θ: [T] → [T, degrees]."""
    polynomials = _associated(cosine, degrees)
    return _columns([_norm(degree, 0) * polynomials[degree][0] for degree in range(degrees)])


def harmonics(
    cosine: Tensor, across: Tensor, turned: Tensor, degrees: int, *, odd: bool
) -> tuple[Tensor, list[int]]:
    """Real spherical harmonics of an angle θ and a torsion φ.

    Args:
        cosine: [T], cos θ.
        across, turned: [T], a sin θ cos φ and a sin θ sin φ, 0 ≤ a ≤ 1: how definite the direction is
            from which φ counts. A harmonic of order m has the factor aᵐ.
        degrees: l = 0 … degrees − 1.
        odd: also those that change their sign with φ, which tell an image from its mirror image.

    Returns:
        [T, F] in the order m = 0, 1, …, l and, of the odd ones, −l, …, −1, for each l; and the l of
        each.
    """
    polynomials = _associated(cosine, degrees)
    cosines, sines = [0.0 * across + 1.0], [0.0 * across]
    for _ in range(1, degrees):  # (cos φ + i sin φ)ᵐ
        real, imaginary = cosines[-1], sines[-1]
        cosines.append(across * real - turned * imaginary)
        sines.append(across * imaginary + turned * real)
    functions, of_degree = [], []
    for degree in range(degrees):
        orders = list(range(degree + 1)) + (list(range(-degree, 0)) if odd else [])
        for order in orders:
            size = abs(order)
            torsion = cosines[size] if order >= 0 else sines[size]
            functions.append(_norm(degree, size) * polynomials[degree][size] * torsion)
            of_degree.append(degree)
    return _columns(functions), of_degree


def _columns(functions: list[Tensor]) -> Tensor:
    """[T] each → [T, F]."""
    return paddle.concat([one.unsqueeze(-1) for one in functions], axis=-1)


def _associated(cosine: Tensor, degrees: int) -> list[list[Tensor]]:
    """P_l^m(cos θ) / sinᵐ θ, polynomials of the cosine, by [l][m]."""
    ones = 0.0 * cosine + 1.0  # with a gradient: Paddle's concat has no second one without
    table = [[ones]]
    for degree in range(1, degrees):
        row = []
        for order in range(degree - 1):
            row.append(
                (
                    (2.0 * degree - 1.0) * cosine * table[degree - 1][order]
                    - (degree + order - 1.0) * table[degree - 2][order]
                )
                / (degree - order)
            )
        row.append((2.0 * degree - 1.0) * cosine * table[degree - 1][degree - 1])
        row.append((1.0 - 2.0 * degree) * table[degree - 1][degree - 1])
        table.append(row)
    return table


def _norm(degree: int, order: int) -> float:
    """Of a real harmonic: its square has the mean 1 / 4π over the sphere."""
    ratio = math.factorial(degree - order) / math.factorial(degree + order)
    return math.sqrt((2.0 if order else 1.0) * (2 * degree + 1) / (4.0 * math.pi) * ratio)
