"""Radial filters and their derivatives by the distance in float64, by the chain rule."""

import numpy as np

from oarlock.native.reference.atoms.edges import derivatives


def basis(radial, distances, parameters) -> list[np.ndarray]:
    """φ, φ′ and φ″, [P, K]."""
    r, p = distances.astype(np.float64)[:, None], parameters.astype(np.float64)
    if radial.basis == "gaussian":
        u = (r - p) / radial.width
        phi = np.exp(-0.5 * u**2)
        return [phi, -u / radial.width * phi, (u**2 - 1) / radial.width**2 * phi]
    a = np.sqrt(2 / radial.cutoff)
    s, c = np.sin(p * r), np.cos(p * r)
    return [
        a * s / r,
        a * (p * c / r - s / r**2),
        a * (-(p**2) * s / r - 2 * p * c / r**2 + 2 * s / r**3),
    ]


def envelope(radial, distances) -> list[np.ndarray]:
    """c, c′ and c″, [P, 1]."""
    r, limit = distances.astype(np.float64)[:, None], radial.cutoff
    if radial.envelope == "cosine":
        k = np.pi / limit
        found = [0.5 * (np.cos(k * r) + 1), -0.5 * k * np.sin(k * r), -0.5 * k**2 * np.cos(k * r)]
    else:
        n, u = radial.power, np.poly1d([1 / limit, 0])
        factors = (n + 1) * (n + 2) / 2, n * (n + 2), n * (n + 1) / 2
        c = 1 - factors[0] * u**n + factors[1] * u ** (n + 1) - factors[2] * u ** (n + 2)
        found = [c(r), c.deriv()(r), c.deriv(2)(r)]
    return [np.where(r < limit, values, 0.0) for values in found]


def filters(radial, distances, weights) -> list[np.ndarray]:
    """w, w′ and w″, [P, F]."""
    parameters, w1, b1, w2, b2 = (
        None if one is None else one.astype(np.float64) for one in weights
    )
    inner = basis(radial, distances, parameters)
    if w1 is not None:
        u, du, ddu = (one @ w1 for one in inner)
        f = derivatives(u + b1, radial.activation)
        inner = [f[0], f[1] * du, f[2] * du**2 + f[1] * ddu]
    o, do, ddo = (one @ w2 for one in inner)
    o = o + b2
    c, dc, ddc = envelope(radial, distances)
    return [c * o, dc * o + c * do, ddc * o + 2 * dc * do + c * ddo]
