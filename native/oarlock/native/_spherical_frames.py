"""Frames of edges, rotations by them, and spherical harmonics."""

import ctypes
from typing import Any

from oarlock.native._spherical_call import run


def components(degree: int) -> int:
    """How many components features of degrees 0 to ``degree`` have: (degree + 1)²."""
    return (degree + 1) ** 2


def frame_size(degree: int) -> int:
    """How many numbers a frame to this degree has: the length, and D¹ to D^degree."""
    return (degree + 1) * (2 * degree + 1) * (2 * degree + 3) // 3


def frames(vectors: Any, out: Any, *, threads: int | None = None) -> None:
    r"""The length of each vector, and the matrices that turn features so that it becomes the z axis.

    Components of degree l are those of the real spherical harmonics, m = −l … l (of degree 1: y, z, x).
    :math:`D^l [2l + 1, 2l + 1]` takes them from the axes of the box to those of the frame. The two axes
    across the vector are chosen such that no direction is inaccurate; they jump where z = 0, so only
    what does not depend on their choice is smooth.

    Args:
        vectors: [E, 3], float32 or float64, none of them zero.
        out: [E, frame_size(degree)], overwritten; its width says the degree, up to 4. The length, then
            :math:`D^1, D^2, …` row by row.
        threads: number of threads; None for Paddle's, or without Paddle the physical cores. It
            does not change the result.

    Raises:
        ValueError: an argument is not as above; nothing was changed.

    Source: Ivanic & Ruedenberg, J. Phys. Chem. 100, 6342 (1996); Duff et al., JCGT 6 (2017).
    """
    run("frames", {"vectors": vectors, "frames": out}, threads=threads)


def rotate(
    frames: Any, x: Any, out: Any, *, inverse: bool = False, threads: int | None = None
) -> None:
    """Features of edges turned into their frames, D x, or back, Dᵀ x.

    Args:
        frames: [E, frame_size(degree)], of `frames`.
        x: [E, components(degree), C], of the same dtype.
        out: like x, overwritten.
        inverse: turn back.
        threads: as in `frames`.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    given = {"frames": frames, "x": x, "out": out}
    run("rotate", given, ctypes.c_int32(bool(inverse)), threads=threads)


def harmonics(
    vectors: Any,
    out: Any,
    *,
    gradients: Any = None,
    hessians: Any = None,
    threads: int | None = None,
) -> None:
    r"""Real spherical harmonics of the directions of vectors, in Racah's normalisation.

    :math:`C_{lm} = \sqrt{4π / (2l + 1)}\, Y_{lm}`, without the sign of Condon and Shortley: the squares of
    each degree add up to 1, and those of degree 1 are y/r, z/r, x/r.

    Args:
        vectors: [E, 3], float32 or float64, none of them zero.
        out: [E, (degree + 1)²], overwritten; its width says the degree, up to 4.
        gradients: None, or [E, (degree + 1)², 3], overwritten: derivatives by the vectors.
        hessians: None, or [E, (degree + 1)², 3, 3], overwritten: second derivatives.
        threads: as in `frames`.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    given = {"vectors": vectors, "values": out, "gradients": gradients, "hessians": hessians}
    run("harmonics", given, threads=threads)
