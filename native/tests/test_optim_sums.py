"""Sums over tensors, rows and columns, and estimates of curvature, against the oracle."""

import math

import ml_dtypes
import numpy as np
import pytest

from oarlock import native
from oarlock.native import optim
from oarlock.native.reference import optim as reference

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOAT32 = np.dtype(np.float32)
PATHS = native.info().paths
SHAPES = [(0,), (1,), (7,), (3, 0), (15,), (16,), (17,), (63,), (33, 31), (2, 3, 5), (), (32769,)]
LARGE = [(1000003,), (5,), (32768,), (70000,)]
each_path = pytest.mark.parametrize("path", PATHS)
each_type = pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)


def normals(shapes, dtype=FLOAT32, seed=0):
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape), FLOAT32).astype(dtype) for shape in shapes]


@each_path
@each_type
def test_squared_norm(path, dtype):
    for shapes in ([], [(0,)], SHAPES, LARGE):
        tensors = normals(shapes, dtype)
        with native.forced_path(path):
            found = {optim.squared_norm(tensors, threads=threads) for threads in (1, 2, 3, 5)}
        assert len(found) == 1
        assert found.pop() == pytest.approx(reference.squared_norm(tensors), rel=1e-12)


def test_squared_norm_is_the_same_on_every_path():
    tensors = normals(LARGE)
    found = set()
    for path in PATHS:
        with native.forced_path(path):
            found.add(optim.squared_norm(tensors))
    assert len(found) == 1


def test_squared_norm_beyond_float32():
    assert optim.squared_norm([np.full(1000, 1e30, FLOAT32)]) == pytest.approx(1e63)
    assert optim.squared_norm([np.full(1000, 1e-30, FLOAT32)]) == pytest.approx(1e-57)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [1, 17, 100000])
def test_squared_norm_propagates(bad, size):
    array = np.ones(size, FLOAT32)
    array[size // 2] = bad
    assert not math.isfinite(optim.squared_norm([np.ones(5, FLOAT32), array]))


@each_path
@each_type
@pytest.mark.parametrize("shape", [(1, 1), (7, 63), (63, 7), (300, 517), (1, 70000), (70000, 1)])
def test_row_column_mean_squares(path, dtype, shape):
    rng = np.random.default_rng(0)
    grads = [np.asarray(rng.standard_normal(shape), FLOAT32).astype(dtype)]
    rows, columns = (np.square(rng.standard_normal(n)).astype(FLOAT32) for n in shape)
    options = {"decay": 0.9, "eps": 1e-3, "grad_scale": 0.5}
    wanted = reference.row_column_mean_squares(grads[0], rows, columns, **options)
    found = []
    for threads in (1, 2, 3, 5):
        ours = rows.copy(), columns.copy()
        with native.forced_path(path):
            optim.row_column_mean_squares(grads, [ours[0]], [ours[1]], threads=threads, **options)
        found.append([[array] for array in ours])
        assert all(np.array_equal(a, b) for a, b in zip(found[0], found[-1]))
    for ours, right in zip(found[0], wanted):
        np.testing.assert_allclose(ours[0], right, rtol=1e-6)


def test_row_column_of_no_elements_stays():
    rows, columns = np.ones(0, FLOAT32), np.ones(4, FLOAT32)
    optim.row_column_mean_squares([np.ones((0, 4), FLOAT32)], [rows], [columns], decay=0.5)
    assert np.array_equal(columns, np.ones(4))


@each_path
@each_type
def test_sophia_hessian(path, dtype):
    options = {"beta2": 0.9, "scale": 40.0, "grad_scale": 0.5}
    grads, before = normals(SHAPES + LARGE, dtype), normals(SHAPES + LARGE, seed=1)
    found = []
    for at, threads in [(path, 1), (path, 2), (path, 5), ("portable", 1)]:
        h = [array.copy() for array in before]
        with native.forced_path(at):
            optim.sophia_hessian(grads, h, threads=threads, **options)
        found.append([array.tobytes() for array in h])
        assert found[0] == found[-1], (at, threads)
    for ours, g, old in zip(h, grads, before):
        wanted = reference.sophia_hessian(g, old, **options)
        np.testing.assert_allclose(ours, wanted, rtol=1e-6, atol=1e-6)


def test_sophia_hessian_propagates_nan():
    h = np.ones(40, FLOAT32)
    g = np.ones(40, FLOAT32)
    g[5] = np.nan
    optim.sophia_hessian([g], [h], beta2=0.9, scale=1.0)
    assert np.flatnonzero(np.isnan(h)).tolist() == [5]
