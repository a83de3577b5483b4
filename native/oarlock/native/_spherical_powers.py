"""Squares and cubes of features as functions on a sphere."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from oarlock.native._spherical_call import run


def sphere_points(degree_in: int, degree_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Points that integrate cubes of degree ``degree_in`` times degree ``degree_out`` exactly.

    Gauss and Legendre's along z, equal angles around it.

    Returns:
        values [points, (degree_in + 1)²]: the harmonics of `harmonics`; weights
        [points, (degree_out + 1)²]: the harmonics by the weight of the point and 2l + 1, so that
        sums over points of ``weights * f`` are the components of f. float64.
    """
    from oarlock.native._spherical_frames import components, harmonics

    exact = 3 * degree_in + degree_out
    heights, shares = np.polynomial.legendre.leggauss(exact // 2 + 1)
    around = exact + 1
    angles = 2 * np.pi * (np.arange(around) + 0.25) / around
    z, angle = (axis.ravel() for axis in np.meshgrid(heights, angles, indexing="ij"))
    across = np.sqrt(1 - z * z)
    points = np.stack([across * np.cos(angle), across * np.sin(angle), z], axis=1)
    values = np.empty((len(points), components(degree_in)))
    harmonics(points, values, threads=1)
    degrees = np.sqrt(np.arange(components(degree_out))).astype(int)
    share = np.repeat(shares / 2 / around, around)[:, None]
    weights = values[:, : components(degree_out)] * share * (2 * degrees + 1)
    return values, weights


def powers(
    x: Sequence[Any], values: Any, weights: Any, out: Sequence[Any], *, threads: int | None = None
) -> None:
    r"""The components of :math:`f^2` and :math:`f^3`, where :math:`f(s) = \sum_{lm} x_{lm} C_{lm}(s)`.

    Each channel on its own; turning x turns the results.

    Args:
        x: for each degree l up to 3 [N, 2l + 1, C], float32 or float64; C a multiple of 16, at least
            degree 1.
        values, weights: of `sphere_points`, in x's dtype.
        out: for each degree up to that of x [N, 2l + 1, 2C], overwritten: squares, then cubes.
        threads: number of threads; None for Paddle's, or without Paddle the physical cores. It
            does not change the result.

    Raises:
        ValueError: an argument is not as above; nothing was changed.

    Source: products on a sphere as in Gaunt tensor products, 2401.10216; of an atom's density with
        itself as in the atomic cluster expansion, Drautz, PRB 99, 014104 (2019), and MACE, 2206.07697.
    """
    run("powers", {"x": x, "values": values, "weights": weights, "out": out}, threads=threads)


def powers_backward(
    x: Sequence[Any],
    values: Any,
    weights: Any,
    out_slope: Sequence[Any],
    x_slope: Sequence[Any],
    *,
    threads: int | None = None,
) -> None:
    """The gradient of `powers` by x. x_slope is overwritten; else as in `powers`."""
    given = {"x": x, "values": values, "weights": weights}
    run("powers_backward", given | {"out_slope": out_slope, "x_slope": x_slope}, threads=threads)


def powers_second(
    x: Sequence[Any],
    x_tangent: Sequence[Any],
    values: Any,
    weights: Any,
    out_slope: Sequence[Any],
    out: Sequence[Any],
    x_slope: Sequence[Any],
    *,
    threads: int | None = None,
) -> None:
    """How the result of `powers` changes as x does along x_tangent, and the gradient by x of that.

    Args:
        x, values, weights, threads: as in `powers`.
        x_tangent: like x.
        out_slope: like the result.
        out: like the result, overwritten: its change.
        x_slope: like x, overwritten: the gradient of ``sum(out_slope * out)`` by x.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    given = {"x": x, "x_tangent": x_tangent, "values": values, "weights": weights}
    given |= {"out_slope": out_slope, "out": out, "x_slope": x_slope}
    run("powers_second", given, threads=threads)
