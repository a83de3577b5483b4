"""Shared second moments: shapes of matrices and blocks, zeros, extremes and NaN."""

import ml_dtypes
import numpy as np
import pytest

from oarlock import native
from oarlock.native import optim
from oarlock.native.reference import optim as reference

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOAT32 = np.dtype(np.float32)
PATHS = native.info().paths
TEAMS = [(path, threads) for path in PATHS for threads in (1, 2, 5)]
ADAM = {"lr": 0.01, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1, "step": 3}
ADAFACTOR = {"lr": 0.05, "clip_threshold": 1.0, "eps_scale": 1e-3, "weight_decay": 0.1}
RELATIVE = ADAFACTOR | {"relative": True, "grad_scale": 0.5}
each_type = pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)


def normals(*shapes, dtype=FLOAT32, seed=0):
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape), FLOAT32).astype(dtype) for shape in shapes]


def agree(kernel, given, written, options):
    """Run on every path and number of threads: all must give the same bits. Returns those lists."""
    results = []
    for path, threads in TEAMS:
        lists = [[array.copy()] for array in given]
        with native.forced_path(path):
            kernel(*lists, threads=threads, **options)
        results.append([lists[index][0] for index in written])
        for first, other in zip(results[0], results[-1]):
            assert first.tobytes() == other.tobytes(), (path, threads)
    return results[0]


MATRICES = [(1, 1), (7, 63), (63, 7), (5, 16), (9, 33), (300, 517), (1, 70000), (70000, 1)]


@each_type
@pytest.mark.parametrize("shape", MATRICES)
def test_adafactor_on_matrices_of_any_shape(shape, dtype):
    p, g = normals(shape, shape)
    rows, columns = (np.square(x) for x in normals(shape[:1], shape[1:], seed=1))
    given = p, g.astype(dtype), rows, columns
    if dtype == BFLOAT16:
        given = p.astype(dtype), *given[1:]
    (found,) = agree(optim.adafactor, given, [0], RELATIVE)
    (wanted,) = reference.adafactor(*given, **RELATIVE)
    tolerance = 1e-6 if dtype == FLOAT32 else 2.0**-8
    np.testing.assert_allclose(found.astype(FLOAT32), wanted, rtol=tolerance, atol=tolerance)


def test_adafactor_of_a_gradient_of_rank_one_is_its_sign():
    a, b = normals((30,), (50,))
    g = np.outer(a, b)
    rows, columns, p = np.zeros(30, FLOAT32), np.zeros(50, FLOAT32), np.zeros((30, 50), FLOAT32)
    optim.row_column_mean_squares([g], [rows], [columns], decay=0.0)
    optim.adafactor([p], [g], [rows], [columns], relative=False, **ADAFACTOR | {"lr": 1.0})
    np.testing.assert_allclose(p, -np.sign(g), rtol=1e-5)


def test_adafactor_clips_the_update_to_the_threshold():
    (g,) = normals((30, 50))
    moments = np.ones(30, FLOAT32), np.ones(50, FLOAT32)
    for threshold, wanted in [(0.25, 0.25), (None, 1.0), (100.0, 1.0)]:
        p = np.zeros((30, 50), FLOAT32)
        options = ADAFACTOR | {"lr": 1.0, "clip_threshold": threshold}
        optim.adafactor([p], [g], [moments[0]], [moments[1]], relative=False, **options)
        assert np.sqrt(np.mean(np.square(p))) == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize("empty", ["row", "column", "all"])
def test_adafactor_without_moment_stays(empty):
    p, g = normals((9, 33), (9, 33))
    kept = np.s_[4, :] if empty == "row" else np.s_[:, 20] if empty == "column" else np.s_[:, :]
    g[kept] = 0.0
    rows, columns = np.square(g).mean(axis=1), np.square(g).mean(axis=0)
    options = RELATIVE | {"weight_decay": 0.0}
    (found,) = agree(optim.adafactor, (p, g, rows, columns), [0], options)
    assert np.array_equal(found[kept], p[kept]) and np.isfinite(found).all()
    wanted = reference.adafactor(p, g, rows, columns, **options)[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)
    g[kept] = 1.0  # what is there now does not count, only what the moments know
    (found,) = agree(optim.adafactor, (p, g, rows, columns), [0], options)
    assert np.array_equal(found[kept], p[kept])


@pytest.mark.parametrize("clip_threshold", [1.0, None])
@pytest.mark.parametrize("row", [4, 5])
def test_adafactor_shows_nan(row, clip_threshold):
    p, g = np.ones((9, 33), FLOAT32), np.ones((9, 33), FLOAT32)
    g[row, 20] = np.nan
    rows, columns = np.ones(9, FLOAT32), np.ones(33, FLOAT32)
    rows[5] = 0.0
    options = RELATIVE | {"clip_threshold": clip_threshold}
    optim.adafactor([p], [g], [rows], [columns], **options)
    assert np.isnan(p[row, 20])
    assert np.isnan(p).sum() == (1 if clip_threshold is None else p.size)


@pytest.mark.parametrize("broken", ["rows", "columns"])
def test_adafactor_shows_nan_in_the_moments(broken):
    p, g = np.ones((9, 33), FLOAT32), np.ones((9, 33), FLOAT32)
    moments = {"rows": np.ones(9, FLOAT32), "columns": np.ones(33, FLOAT32)}
    moments[broken][3] = np.nan
    optim.adafactor([p], [g], [moments["rows"]], [moments["columns"]], **RELATIVE)
    assert np.isnan(p).all()


@pytest.mark.parametrize("size", [1e-22, 1e-15, 1.0, 1e15])
def test_adafactor_with_moments_at_the_ends_of_float32(size):
    p, g = normals((9, 33), (9, 33))
    g = g * FLOAT32.type(size)
    rows, columns = (np.mean(np.square(g.astype(np.float64)), axis) for axis in (1, 0))
    given = p, g, rows.astype(FLOAT32), columns.astype(FLOAT32)
    (found,) = agree(optim.adafactor, given, [0], RELATIVE)
    np.testing.assert_allclose(found, reference.adafactor(*given, **RELATIVE)[0], rtol=1e-5)


def test_adafactor_with_one_vector_for_rows_and_columns():
    p, g = normals((9, 9), (9, 9))
    shared = np.ones(9, FLOAT32)
    optim.adafactor([p], [g], [shared], [shared], **RELATIVE)
    assert np.array_equal(shared, np.ones(9))


# Numbers of blocks and their sizes; a chunk of work has 32768 elements.
BLOCKS = [(1, 1), (5, 16), (40001, 1), (4681, 7), (9, 4000), (3, 32768), (2, 50000), (1, 100003)]


@each_type
@pytest.mark.parametrize("blocks, size", BLOCKS)
def test_adam_mini_with_blocks_of_any_size(blocks, size, dtype):
    p, g, m, v = normals(blocks * size, blocks * size, blocks * size, blocks)
    given = p, g.astype(dtype), m, np.square(v)
    if dtype == BFLOAT16:
        given = p.astype(dtype), *given[1:]
    options = ADAM | {"grad_scale": 0.5}
    found = agree(optim.adam_mini, given, [0, 2, 3], options)
    for ours, right, bits in zip(found, reference.adam_mini(*given, **options), (8, 20, 20)):
        tolerance = 2.0**-bits if dtype == BFLOAT16 else 1e-6
        np.testing.assert_allclose(ours.astype(FLOAT32), right, rtol=tolerance, atol=tolerance)


def test_adam_mini_with_blocks_of_one_element_is_adamw():
    p, g, m, v = normals(1000, 1000, 1000, 1000)
    v = np.square(v)
    ours = [[array.copy()] for array in (p, g, m, v)]
    optim.adam_mini(*ours, **ADAM)
    optim.adamw([p], [g], [m], [v], **ADAM)
    for found, wanted in zip(ours, (p, g, m, v)):
        np.testing.assert_allclose(found[0], wanted, rtol=1e-6, atol=1e-6)


def test_adam_mini_of_zeros_only_decays():
    p, zeros = np.ones(100, FLOAT32), [np.zeros(100, FLOAT32) for _ in range(2)]
    v = np.zeros(5, FLOAT32)
    optim.adam_mini([p], [zeros[0]], [zeros[1]], [v], **ADAM)
    np.testing.assert_allclose(p, np.full(100, 0.999), rtol=1e-6)
    assert not v.any()


def test_adam_mini_of_no_elements_stays():
    empty = [np.zeros((3, 0), FLOAT32) for _ in range(3)]
    for blocks in (0, 4):
        v = np.ones(blocks, FLOAT32)
        optim.adam_mini([empty[0]], [empty[1]], [empty[2]], [v], **ADAM)
        assert np.array_equal(v, np.ones(blocks))


def test_adam_mini_shows_nan_in_its_block():
    p, g, m = (np.ones(40000, FLOAT32) for _ in range(3))
    g[32800] = np.nan
    v = np.ones(4, FLOAT32)
    optim.adam_mini([p], [g], [m], [v], **ADAM)
    assert np.isnan(v).tolist() == [False, False, False, True]
    assert np.array_equal(np.isnan(p), np.repeat(np.isnan(v), 10000))
