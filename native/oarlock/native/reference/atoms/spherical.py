"""Oracle of ``oarlock.native.spherical``, by other ways than the kernels': harmonics by derivatives of
Legendre polynomials, rotations by fitting harmonics of turned points, everything else by dense sums in float64.

Arguments are those of the kernels; results are returned.
"""

import math

import numpy as np

Array = np.ndarray
#: Components of degree 1, m = −1, 0, 1, are y, z, x.
AXES = [1, 2, 0]


def harmonics(vectors: Array, degree: int) -> Array:
    """[E, (degree + 1)²], Racah's normalisation, no sign of Condon and Shortley."""
    vectors = np.asarray(vectors, np.float64)
    x, y, z = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T
    columns = []
    for ell in range(degree + 1):
        for m in range(-ell, ell + 1):
            size = abs(m)
            norm = math.sqrt(
                (1 + (m != 0)) * math.factorial(ell - size) / math.factorial(ell + size)
            )
            around = (x + 1j * y) ** size
            legendre = np.polynomial.Legendre.basis(ell).deriv(size)(z)
            columns.append(norm * legendre * (around.real if m >= 0 else around.imag))
    return np.stack(columns, axis=1)


def turn_matrices(turn: Array, degree: int) -> list[Array]:
    """D⁰, D¹, … of a 3 × 3 rotation: what turning points does to their harmonics."""
    points = np.random.default_rng(0).standard_normal((4 * (degree + 1) ** 2, 3))
    before, after = harmonics(points, degree), harmonics(points @ turn.T, degree)
    found = []
    for ell in range(degree + 1):
        own = slice(ell * ell, (ell + 1) ** 2)
        found.append(np.linalg.lstsq(before[:, own], after[:, own], rcond=None)[0].T)
    return found


def axes(frames: Array) -> Array:
    """[E, 3, 3], the x, y and z axes of frames as rows, from their D¹."""
    first = np.asarray(frames, np.float64)[:, 1:10].reshape(-1, 3, 3)
    order = [AXES.index(axis) for axis in range(3)]
    return first[:, order][:, :, order]


def rotate(frames: Array, x: Array, *, inverse: bool = False) -> Array:
    degree = math.isqrt(x.shape[1]) - 1
    out = np.empty(x.shape)
    for edge, turn in enumerate(axes(frames)):
        for ell, matrix in enumerate(turn_matrices(turn, degree)):
            own = slice(ell * ell, (ell + 1) ** 2)
            out[edge, own] = (matrix.T if inverse else matrix) @ x[edge, own]
    return out


def spline(lengths: Array, table: Array, cutoff: float) -> Array:
    """[E, paths, C]: uniform cubic B-splines by de Boor's recursion."""
    intervals = len(table) - 3
    r = np.asarray(lengths, np.float64) * (intervals / cutoff)
    knots = np.arange(-3, intervals + 4)
    basis = [(r >= low) & (r < high) for low, high in zip(knots[:-1], knots[1:])]
    values = np.stack(basis, axis=-1).astype(np.float64)  # [E, intervals + 6], of degree 0
    for degree in range(1, 4):
        low, high = knots[: -degree - 1], knots[degree + 1 :]
        rising = (r[:, None] - low) / degree * values[:, :-1]
        values = rising + (high - r[:, None]) / degree * values[:, 1:]
    weights = np.tensordot(values, np.asarray(table, np.float64), axes=1)
    return np.where((lengths < cutoff)[:, None, None], weights, 0.0)


def convolve(
    x: list[Array],
    table: Array,
    frames: Array,
    offsets: Array,
    neighbours: Array,
    *,
    degree: int,
    cutoff: float,
) -> list[Array]:
    atoms, _, channels = x[0].shape
    weights = spline(np.asarray(frames[:, 0], np.float64), table, cutoff)
    out = [np.zeros((atoms, 2 * ell + 1, channels)) for ell in range(degree + 1)]
    turns = axes(frames)
    for center in range(atoms):
        for edge in range(offsets[center], offsets[center + 1]):
            matrices = turn_matrices(turns[edge], degree)
            turned = [matrices[ell] @ one[neighbours[edge]] for ell, one in enumerate(x)]
            path = 0
            for m in range(min(len(x) - 1, degree) + 1):
                for l_out in range(m, degree + 1):
                    for l_in in range(m, len(x)):
                        for sign in {m, -m}:
                            value = weights[edge, path] * turned[l_in][l_in + sign]
                            row = matrices[l_out][l_out + sign]
                            out[l_out][center] += row[:, None] * value
                        path += 1
    return out


def powers(x: list[Array], *, degree: int) -> list[Array]:
    """On a finer grid than is needed."""
    exact = 3 * (len(x) - 1) + degree + 4
    heights, shares = np.polynomial.legendre.leggauss(exact)
    angles = 2 * np.pi * np.arange(2 * exact) / (2 * exact)
    z, angle = np.meshgrid(heights, angles, indexing="ij")
    across = np.sqrt(1 - z * z)
    points = np.stack([across * np.cos(angle), across * np.sin(angle), z], axis=-1).reshape(-1, 3)
    share = np.repeat(shares / 2 / len(angles), len(angles))
    values = harmonics(points, len(x) - 1)
    f = np.einsum("pk,nkc->npc", values, np.concatenate(x, axis=1).astype(np.float64))
    both = np.concatenate([f**2, f**3], axis=2)
    out = np.einsum("p,pk,npc->nkc", share, values[:, : (degree + 1) ** 2], both)
    return [(2 * ell + 1) * out[:, ell * ell : (ell + 1) ** 2] for ell in range(degree + 1)]
