"""Harmonics, frames, rotations, convolutions and powers: oracles, paths, threads, derivatives, arguments."""

import numpy as np
import pytest

from oarlock import native
from oarlock.native import spherical
from oarlock.native.reference.atoms import spherical as reference

PATHS = native.info().paths
TEAMS = [(path, threads) for path in PATHS for threads in (1, 3)]
DEGREES = [(a, b) for b in (1, 2, 3) for a in range(b + 1)]
CUTOFF = 5.0
#: Directions at which other choices of axes break down.
POLES = [[0, 0, 1], [0, 0, -2], [0, 1.5, 0], [0, -1, 0], [3, 0, 0], [1e-9, 0, -1], [1e-4, 1e-5, 1]]


def some_vectors(count, seed=0, longest=5.5):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, 3))
    vectors *= rng.uniform(0.8, longest, (count, 1)) / np.linalg.norm(vectors, axis=1)[:, None]
    poles = np.array(POLES)[:count]
    vectors[: len(poles)] = poles
    return vectors


def frames_of(vectors, degree):
    frames = np.full((len(vectors), spherical.frame_size(degree)), np.nan, vectors.dtype)
    spherical.frames(vectors, frames)
    return frames


def agree(kernel, shapes, dtype, wanted, tolerance):
    """Run ``kernel(outs, threads)`` on every path: threads never change bits."""
    first = {}
    for path, threads in TEAMS:
        outs = [np.full(shape, np.nan, dtype) for shape in shapes]
        with native.forced_path(path):
            kernel(outs, threads)
        bits = b"".join(out.tobytes() for out in outs)
        assert first.setdefault(path, bits) == bits, (path, threads)
        for out, right in zip(outs, wanted, strict=True):
            scale = max(np.abs(right).max(initial=0.0), 1.0)
            np.testing.assert_allclose(out, right, rtol=0, atol=tolerance * scale, err_msg=path)


TOLERANCE = {np.float32: 3e-5, np.float64: 1e-11}
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@each_dtype
@pytest.mark.parametrize("count", [0, 1, 37])
@pytest.mark.parametrize("degree", range(5))
def test_harmonics(dtype, count, degree):
    vectors = some_vectors(count).astype(dtype)
    agree(
        lambda outs, threads: spherical.harmonics(vectors, *outs, threads=threads),
        [(count, spherical.components(degree))],
        dtype,
        [reference.harmonics(vectors, degree)],
        TOLERANCE[dtype],
    )


def test_derivatives_of_harmonics():
    vectors, step = some_vectors(29), 1e-5
    shape = (29, spherical.components(4))
    values, slopes, curves = (np.empty(shape + (3,) * order) for order in range(3))
    spherical.harmonics(vectors, values, gradients=slopes, hessians=curves)
    for axis in range(3):
        moved = []
        for sign in (step, -step):
            there = vectors.copy()
            there[:, axis] += sign
            moved.append([np.empty(shape + (3,) * order) for order in range(2)])
            spherical.harmonics(there, moved[-1][0], gradients=moved[-1][1])
        (up, up_slope), (down, down_slope) = moved
        np.testing.assert_allclose((up - down) / (2 * step), slopes[..., axis], atol=2e-8)
        np.testing.assert_allclose(
            (up_slope - down_slope) / (2 * step), curves[..., axis], atol=2e-7
        )


@each_dtype
@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_frames_turn_vectors_onto_the_z_axis(dtype, degree):
    vectors = some_vectors(37).astype(dtype)
    wanted = np.zeros((37, spherical.frame_size(degree)))
    axes = reference.axes(frames_of(vectors, degree))
    for edge, turn in enumerate(axes):
        matrices = reference.turn_matrices(turn, degree)
        wanted[edge] = np.concatenate([one.ravel() for one in matrices])
    wanted[:, 0] = np.linalg.norm(vectors.astype(np.float64), axis=1)
    agree(
        lambda outs, threads: spherical.frames(vectors, *outs, threads=threads),
        [wanted.shape],
        dtype,
        [wanted],
        TOLERANCE[dtype],
    )
    eye = np.broadcast_to(np.eye(3), (37, 3, 3))
    np.testing.assert_allclose(axes @ axes.transpose(0, 2, 1), eye, atol=TOLERANCE[dtype])
    np.testing.assert_allclose(np.linalg.det(axes), 1.0, atol=TOLERANCE[dtype])
    along = np.einsum("eij,ej->ei", axes, vectors)
    np.testing.assert_allclose(along[:, :2], 0.0, atol=TOLERANCE[dtype])
    assert (along[:, 2] > 0).all()


@each_dtype
@pytest.mark.parametrize("degree, channels", [(0, 3), (1, 1), (3, 16), (4, 5)])
@pytest.mark.parametrize("inverse", [False, True])
def test_rotate(dtype, degree, channels, inverse):
    frames = frames_of(some_vectors(19).astype(dtype), degree)
    x = np.random.default_rng(1).standard_normal((19, (degree + 1) ** 2, channels)).astype(dtype)
    if degree == 0:
        wanted = x
    else:
        wanted = reference.rotate(frames, x, inverse=inverse)
    agree(
        lambda outs, threads: spherical.rotate(frames, x, *outs, inverse=inverse, threads=threads),
        [x.shape],
        dtype,
        [wanted],
        TOLERANCE[dtype],
    )


def test_rotating_back_undoes_it():
    frames = frames_of(some_vectors(19), 4)
    x = np.random.default_rng(1).standard_normal((19, 25, 3))
    there, back = np.empty_like(x), np.empty_like(x)
    spherical.rotate(frames, x, there)
    spherical.rotate(frames, there, back, inverse=True)
    np.testing.assert_allclose(back, x, atol=1e-13)


class Problem:
    """A random convolution and everything that its kernels take."""

    def __init__(self, degree_in, degree_out, dtype=np.float64, atoms=7, edges=40, channels=16):
        rng = np.random.default_rng(degree_in + 10 * degree_out)
        centers = np.sort(rng.integers(0, atoms - 1, edges))  # the last atom has no edges
        self.offsets = np.searchsorted(centers, np.arange(atoms + 1))
        self.neighbours = rng.integers(0, atoms, edges)
        self.vectors = some_vectors(edges).astype(dtype)
        self.degree = degree_out
        intervals = 9

        def features(degree):
            return [
                rng.standard_normal((atoms, 2 * ell + 1, channels)).astype(dtype)
                for ell in range(degree + 1)
            ]

        self.x, self.dx, self.other_x = (features(degree_in) for _ in range(3))
        self.slope = features(degree_out)
        shape = (intervals + 3, spherical.paths(degree_in, degree_out), channels)
        self.table, self.other_table = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
        self.dv, self.other_v = (rng.standard_normal((edges, 3)).astype(dtype) for _ in range(2))

    @property
    def frames(self):
        return frames_of(self.vectors, self.degree)

    def moved(self, step):
        """Along the other directions."""
        there = Problem.__new__(Problem)
        there.__dict__.update(self.__dict__)
        there.x = [a + step * b for a, b in zip(self.x, self.other_x, strict=True)]
        there.table = self.table + step * self.other_table
        there.vectors = self.vectors + step * self.other_v
        return there

    def like(self, features):
        return [np.full_like(one, np.nan) for one in features]

    def forward(self):
        out = self.like(self.slope)
        lists = self.offsets, self.neighbours
        spherical.convolve(self.x, self.table, self.frames, *lists, out, cutoff=CUTOFF)
        return out

    def backward(self):
        out = (
            self.like(self.x),
            np.full_like(self.vectors, np.nan),
            np.full_like(self.table, np.nan),
        )
        given = self.x, self.table, self.frames, self.offsets, self.neighbours, self.slope
        spherical.convolve_backward(*given, *out, cutoff=CUTOFF)
        return out

    def tangent(self):
        out = self.like(self.slope)
        given = self.x, self.dx, self.table, self.frames, self.dv, self.offsets, self.neighbours
        spherical.convolve_tangent(*given, out, cutoff=CUTOFF)
        return out

    def second(self):
        out = (
            self.like(self.x),
            np.full_like(self.vectors, np.nan),
            np.full_like(self.table, np.nan),
        )
        given = self.x, self.dx, self.table, self.frames, self.dv, self.offsets, self.neighbours
        spherical.convolve_second(*given, self.slope, *out, cutoff=CUTOFF)
        return out


def dot(a, b):
    return sum(float((one * two).sum()) for one, two in zip(a, b, strict=True))


each_pair = pytest.mark.parametrize("degree_in, degree_out", DEGREES)


@each_dtype
@each_pair
def test_convolve(dtype, degree_in, degree_out):
    p = Problem(degree_in, degree_out, dtype, edges=25)
    given = p.x, p.table, p.frames, p.offsets, p.neighbours
    wanted = reference.convolve(*given, degree=degree_out, cutoff=CUTOFF)
    agree(
        lambda outs, threads: spherical.convolve(*given, outs, cutoff=CUTOFF, threads=threads),
        [one.shape for one in p.slope],
        dtype,
        wanted,
        TOLERANCE[dtype],
    )


@each_pair
def test_gradients_of_convolve(degree_in, degree_out):
    p, step = Problem(degree_in, degree_out), 1e-6
    slopes, by_vector, by_table = p.backward()
    found = dot(slopes, p.other_x) + dot([by_vector, by_table], [p.other_v, p.other_table])
    up, down = (dot(p.slope, p.moved(sign).forward()) for sign in (step, -step))
    assert found == pytest.approx((up - down) / (2 * step), rel=1e-7, abs=1e-6)


@each_pair
def test_second_gradients_of_convolve(degree_in, degree_out):
    p, step = Problem(degree_in, degree_out), 1e-6

    def change(problem):
        slopes, by_vector, _ = problem.backward()
        return dot(slopes, p.dx) + dot([by_vector], [p.dv])

    assert dot(p.slope, p.tangent()) == pytest.approx(change(p), rel=1e-11)
    slopes, by_vector, by_table = p.second()
    found = dot(slopes, p.other_x) + dot([by_vector, by_table], [p.other_v, p.other_table])
    up, down = (change(p.moved(sign)) for sign in (step, -step))
    assert found == pytest.approx((up - down) / (2 * step), rel=1e-6, abs=1e-5)


@each_dtype
def test_convolution_gradients_have_the_same_bits_for_all_threads(dtype):
    p = Problem(2, 3, dtype, atoms=150, edges=2500, channels=32)
    given = p.x, p.table, p.frames, p.offsets, p.neighbours, p.slope
    second = p.x, p.dx, p.table, p.frames, p.dv, p.offsets, p.neighbours, p.slope
    for kernel, arguments in (
        (spherical.convolve_backward, given),
        (spherical.convolve_second, second),
    ):
        wanted = None
        for path, threads in [(PATHS[-1], 1), (PATHS[-1], 2), (PATHS[-1], 7), (PATHS[0], 2)]:
            outs = p.like(p.x), np.empty_like(p.vectors), np.empty_like(p.table)
            with native.forced_path(path):
                kernel(*arguments, *outs, cutoff=CUTOFF, threads=threads)
            bits = [one.tobytes() for one in (*outs[0], *outs[1:])]
            if wanted is None:
                wanted, right = bits, outs
            if path == PATHS[-1]:
                assert bits == wanted
            for one, two in zip((*outs[0], *outs[1:]), (*right[0], *right[1:]), strict=True):
                scale = np.abs(two).max()
                np.testing.assert_allclose(one, two, rtol=0, atol=5 * TOLERANCE[dtype] * scale)


def test_convolution_turns_with_the_structure():
    p = Problem(3, 3)
    turn = np.linalg.qr(np.random.default_rng(3).standard_normal((3, 3)))[0]
    turn *= np.linalg.det(turn)
    matrices = reference.turn_matrices(turn, 3)
    before = p.forward()
    p.vectors = p.vectors @ turn.T
    p.x = [np.einsum("ab,nbc->nac", matrix, one) for matrix, one in zip(matrices, p.x)]
    for matrix, one, two in zip(matrices, before, p.forward()):
        np.testing.assert_allclose(np.einsum("ab,nbc->nac", matrix, one), two, atol=1e-11)


def test_convolution_keeps_parity():
    p = Problem(3, 3)
    before = p.forward()
    p.vectors = -p.vectors
    p.x = [(-1) ** ell * one for ell, one in enumerate(p.x)]
    for ell, (one, two) in enumerate(zip(before, p.forward())):
        np.testing.assert_allclose((-1) ** ell * one, two, atol=1e-11)


def test_a_spline_without_its_last_rows_ends_smoothly():
    p = Problem(0, 1, atoms=2, edges=1)
    p.offsets, p.neighbours = np.array([0, 1, 1]), np.array([1])
    p.table[-3:] = 0.0
    sizes = []
    for gap in (0.1, 0.05, 0.025):
        p.vectors = np.array([[0.0, 0.0, CUTOFF - gap]])
        sizes.append(np.abs(p.forward()[0]).max())
    assert sizes[0] / sizes[1] == pytest.approx(8.0, rel=1e-6)
    assert sizes[1] / sizes[2] == pytest.approx(8.0, rel=1e-6)
    p.vectors = np.array([[0.0, 0.0, CUTOFF]])
    assert not np.abs(p.forward()[0]).any()


@each_dtype
@pytest.mark.parametrize("degree, degree_out", [(1, 0), (1, 1), (2, 1), (2, 2), (3, 0), (3, 3)])
@pytest.mark.parametrize("atoms, channels", [(0, 16), (1, 48), (9, 16)])
def test_powers(dtype, degree, degree_out, atoms, channels):
    rng = np.random.default_rng(degree)
    x = [
        rng.standard_normal((atoms, 2 * ell + 1, channels)).astype(dtype)
        for ell in range(degree + 1)
    ]
    grid = [one.astype(dtype) for one in spherical.sphere_points(degree, degree_out)]
    agree(
        lambda outs, threads: spherical.powers(x, *grid, outs, threads=threads),
        [(atoms, 2 * ell + 1, 2 * channels) for ell in range(degree_out + 1)],
        dtype,
        reference.powers(x, degree=degree_out),
        TOLERANCE[dtype],
    )


@pytest.mark.parametrize("degree, degree_out", [(1, 0), (2, 2), (3, 1), (3, 3)])
def test_gradients_of_powers(degree, degree_out):
    rng, step = np.random.default_rng(0), 1e-6
    grid = spherical.sphere_points(degree, degree_out)

    def features(top, channels=16):
        return [rng.standard_normal((3, 2 * ell + 1, channels)) for ell in range(top + 1)]

    x, dx, other = (features(degree) for _ in range(3))
    slope = features(degree_out, 32)

    def forward(at):
        out = [np.empty_like(one) for one in slope]
        spherical.powers(at, *grid, out)
        return dot(slope, out)

    def backward(at):
        out = [np.empty_like(one) for one in x]
        spherical.powers_backward(at, *grid, slope, out)
        return out

    def along(size):
        return [a + size * b for a, b in zip(x, other, strict=True)]

    up, down = (forward(along(sign)) for sign in (step, -step))
    assert dot(backward(x), other) == pytest.approx((up - down) / (2 * step), rel=1e-7)
    change, slopes = [np.empty_like(one) for one in slope], [np.empty_like(one) for one in x]
    spherical.powers_second(x, dx, *grid, slope, change, slopes)
    assert dot(change, slope) == pytest.approx(dot(backward(x), dx), rel=1e-11)
    up, down = (dot(backward(along(sign)), dx) for sign in (step, -step))
    assert dot(slopes, other) == pytest.approx((up - down) / (2 * step), rel=1e-7)


def test_frames_refuse_what_does_not_fit():
    vectors = some_vectors(5)
    with pytest.raises(ValueError, match="frames of shape .* 11 numbers a frame"):
        spherical.frames(vectors, np.empty((5, 11)))
    with pytest.raises(ValueError, match=r"frames has shape \[4, 35\]"):
        spherical.frames(vectors, np.empty((4, 35)))
    with pytest.raises(ValueError, match="vectors is int64, but must be float32 or float64"):
        spherical.frames(np.ones((5, 3), np.int64), np.empty((5, 35)))
    with pytest.raises(ValueError, match="frames is float32"):
        spherical.frames(vectors, np.empty((5, 35), np.float32))
    with pytest.raises(ValueError, match="shares memory"):
        memory = np.empty((5, 35))
        spherical.frames(memory.reshape(-1)[:15].reshape(5, 3), memory)


def test_convolve_refuses_what_does_not_fit():
    p = Problem(1, 2)
    out = p.like(p.slope)

    def call(x=p.x, table=p.table, frames=p.frames, offsets=p.offsets, to=out, **given):
        neighbours = given.pop("neighbours", p.neighbours)
        spherical.convolve(x, table, frames, offsets, neighbours, to, **{"cutoff": CUTOFF} | given)

    with pytest.raises(ValueError, match="cutoff must be a positive length"):
        call(cutoff=0.0)
    with pytest.raises(ValueError, match="offsets must rise from 0 to the 40 edges"):
        call(offsets=p.offsets[::-1].copy())
    with pytest.raises(ValueError, match="neighbours holds 7 at 0, but there are atoms 0 to 6"):
        call(neighbours=np.where(np.arange(40) == 0, 7, p.neighbours))
    with pytest.raises(ValueError, match=r"table has shape .* but must have \[any, 8, 16\]"):
        call(table=p.table[:, 1:].copy())
    with pytest.raises(ValueError, match="multiple of 16"):
        call(x=[one[:, :, :8].copy() for one in p.x])
    with pytest.raises(ValueError, match="a degree of 1 or more that is at least its own"):
        call(to=out[:1])
    with pytest.raises(ValueError, match=r"x\[1\] has shape \[7, 1, 16\]"):
        call(x=[p.x[0], p.x[0]])
    with pytest.raises(ValueError, match="out.0. is float64, but must be float32"):
        call(x=[one.astype(np.float32) for one in p.x], table=p.table)
    assert all(np.isnan(one).all() for one in out)
