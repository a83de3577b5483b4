"""Products of sparse matrices: odd shapes, block sizes, code paths, threads, emptiness and NaN."""

import numpy as np
import pytest

from oarlock import native
from oarlock.native import sparse
from oarlock.native.reference import sparse as reference

FLOAT32 = np.float32
PATHS = native.info().paths
TEAMS = [(path, threads) for path in PATHS for threads in (1, 2, 5)]


def normals(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(FLOAT32)


def pattern(rows, columns, density, seed=0):
    """Pointers and indices of a random structure."""
    kept = np.random.default_rng(seed).random((rows, columns)) < density
    pointers = np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(np.int32)
    return pointers, np.nonzero(kept)[1].astype(np.int32)


def agree(kernel, shape, wanted, length):
    """Run ``kernel(out, threads)`` on every path: threads never change bits. ``length`` of sums."""
    tolerance = 2e-7 * max(length, 1) ** 0.5 * 4
    scale = max(float(np.abs(wanted).max(initial=0.0)), 1.0)
    results = {}
    for path, threads in TEAMS:
        out = np.full(shape, np.nan, FLOAT32)
        with native.forced_path(path):
            kernel(out, threads)
        first = results.setdefault(path, out)
        assert first.tobytes() == out.tobytes(), (path, threads)
        np.testing.assert_allclose(out, wanted, rtol=0, atol=tolerance * scale, err_msg=path)
    return results


# Rows of x, rows and columns of blocks, size of a block, density.
BLOCKS = [
    (1, 1, 1, (1, 1), 1.0),
    (3, 2, 3, (2, 5), 0.5),
    (7, 5, 4, (16, 16), 0.5),
    (25, 3, 7, (16, 16), 1.0),
    (50, 6, 2, (8, 32), 0.4),
    (29, 2, 3, (32, 48), 0.5),
    (33, 3, 3, (17, 31), 0.6),
    (600, 4, 5, (16, 16), 0.3),
    (0, 2, 2, (4, 4), 0.5),
    (5, 0, 3, (4, 4), 0.5),
    (5, 3, 0, (4, 4), 0.5),
    (5, 3, 3, (4, 4), 0.0),
    (260, 2, 40, (4, 16), 0.25),
]
each_block = pytest.mark.parametrize("rows, down, across, block, density", BLOCKS)


@each_block
@pytest.mark.parametrize("transpose", [False, True])
def test_bsr_matmul(rows, down, across, block, density, transpose):
    pointers, indices = pattern(down, across, density)
    values = normals(len(indices), *block)
    k, n = down * block[0], across * block[1]
    x = normals(rows, n if transpose else k, seed=1)
    wanted = reference.bsr_matmul(x, pointers, indices, values, columns=n, transpose=transpose)
    agree(
        lambda out, threads: sparse.bsr_matmul(
            x, pointers, indices, values, out, transpose=transpose, threads=threads
        ),
        (rows, k if transpose else n),
        wanted,
        x.shape[1],
    )


@each_block
def test_bsr_sample(rows, down, across, block, density):
    pointers, indices = pattern(down, across, density)
    a, b = normals(rows, down * block[0]), normals(rows, across * block[1], seed=1)
    wanted = reference.bsr_sample(a, b, pointers, indices, block=block)
    agree(
        lambda out, threads: sparse.bsr_sample(a, b, pointers, indices, out, threads=threads),
        (len(indices), *block),
        wanted,
        rows,
    )


def test_fused_paths_give_the_same_bits():
    """Sums are chains of fused multiply-adds in one order wherever there are such instructions."""
    pointers, indices = pattern(6, 5, 0.5)
    values, x, y = normals(len(indices), 16, 16), normals(70, 96), normals(70, 80, seed=1)
    bits = {
        "matmul": agree(
            lambda out, threads: sparse.bsr_matmul(
                x, pointers, indices, values, out, threads=threads
            ),
            (70, 80),
            reference.bsr_matmul(x, pointers, indices, values, columns=80),
            96,
        ),
        "sample": agree(
            lambda out, threads: sparse.bsr_sample(x, y, pointers, indices, out, threads=threads),
            (len(indices), 16, 16),
            reference.bsr_sample(x, y, pointers, indices, block=(16, 16)),
            70,
        ),
    }
    for results in bits.values():
        fused = [out.tobytes() for path, out in results.items() if path != "portable"]
        assert len(set(fused)) <= 1


# Rows and columns of S, columns of the dense factor, density.
ENTRIES = [
    (1, 1, 1, 1.0),
    (3, 7, 5, 0.5),
    (33, 65, 129, 0.2),
    (70, 64, 128, 1.0),
    (130, 200, 17, 0.05),
    (1030, 70, 260, 0.1),
    (5, 300, 1100, 0.3),
    (0, 4, 4, 0.5),
    (4, 0, 4, 0.5),
    (4, 4, 0, 0.5),
    (9, 9, 9, 0.0),
]
each_entries = pytest.mark.parametrize("rows, columns, width, density", ENTRIES)


@each_entries
@pytest.mark.parametrize("flags", [(), ("dense",), ("out",), ("self",), ("self", "dense", "out")])
def test_csr_matmul(rows, columns, width, density, flags):
    pointers, indices = pattern(rows, columns, density)
    values = normals(len(indices))
    depth, result = (rows, columns) if "self" in flags else (columns, rows)
    dense = normals(depth, width, seed=1)
    if "dense" in flags:
        dense = np.ascontiguousarray(dense.T)
    options = {
        "transpose": "self" in flags,
        "transpose_dense": "dense" in flags,
        "transpose_out": "out" in flags,
    }
    given = pointers, indices, values, dense
    agree(
        lambda out, threads: sparse.csr_matmul(*given, out, threads=threads, **options),
        (width, result) if "out" in flags else (result, width),
        reference.csr_matmul(*given, columns=columns, **options),
        depth,
    )


@each_entries
@pytest.mark.parametrize("transpose", [False, True])
def test_csr_sample(rows, columns, width, density, transpose):
    pointers, indices = pattern(rows, columns, density)
    a, b = normals(rows, width), normals(columns, width, seed=1)
    if transpose:
        a, b = (np.ascontiguousarray(matrix.T) for matrix in (a, b))
    agree(
        lambda out, threads: sparse.csr_sample(
            a, b, pointers, indices, out, transpose=transpose, threads=threads
        ),
        len(indices),
        reference.csr_sample(a, b, pointers, indices, transpose=transpose),
        width,
    )


@each_entries
@pytest.mark.parametrize("above", [None, 0.0, 0.7, -1.0])
def test_csr_from_dense(rows, columns, width, density, above):
    x = normals(rows, columns) * (np.random.default_rng(2).random((rows, columns)) < density)
    x = x.astype(FLOAT32)
    wanted = reference.csr_from_dense(x, above=above)
    for path, threads in TEAMS:
        with native.forced_path(path):
            found = sparse.csr_from_dense(x, above=above, threads=threads)
        for ours, right, dtype in zip(found, wanted, (np.int32, np.int32, FLOAT32)):
            assert ours.dtype == dtype
            np.testing.assert_array_equal(ours, right, err_msg=path)


@each_entries
def test_csr_transpose(rows, columns, width, density):
    pointers, indices = pattern(rows, columns, density)
    found = sparse.csr_transpose(pointers, indices, columns=columns)
    for ours, right in zip(found, reference.csr_transpose(pointers, indices, columns=columns)):
        np.testing.assert_array_equal(ours, right)


def codes_of(rows, columns, keep, group, seed=0):
    """Which `keep` rows of each group every column has, rising within a group."""
    order = np.random.default_rng(seed).random((rows // group, group, columns)).argsort(1)
    codes = np.sort(order[:, :keep], axis=1)
    return codes.reshape(rows // group * keep, columns).astype(np.uint8)


# Rows of x, rows and columns of W, kept rows of a group.
GROUPS = [
    (1, 4, 1, (2, 4)),
    (33, 68, 70, (2, 4)),
    (130, 256, 40, (2, 4)),
    (20, 64, 65, (1, 4)),
    (9, 32, 300, (3, 16)),
    (5, 8, 9, (8, 8)),
    (0, 8, 8, (2, 4)),
    (3, 0, 8, (2, 4)),
    (3, 8, 0, (2, 4)),
    (3, 8, 4, (0, 4)),
]
each_group = pytest.mark.parametrize("rows, down, across, keep", GROUPS)


@each_group
@pytest.mark.parametrize("transpose", [False, True])
def test_nm_matmul(rows, down, across, keep, transpose):
    codes = codes_of(down, across, *keep)
    values, x = normals(*codes.shape), normals(rows, across if transpose else down, seed=1)
    agree(
        lambda out, threads: sparse.nm_matmul(
            x, codes, values, out, group=keep[1], transpose=transpose, threads=threads
        ),
        (rows, down if transpose else across),
        reference.nm_matmul(x, codes, values, rows=down, group=keep[1], transpose=transpose),
        x.shape[1],
    )


@each_group
def test_nm_sample(rows, down, across, keep):
    codes = codes_of(down, across, *keep)
    a, b = normals(rows, down), normals(rows, across, seed=1)
    agree(
        lambda out, threads: sparse.nm_sample(a, b, codes, out, group=keep[1], threads=threads),
        codes.shape,
        reference.nm_sample(a, b, codes, group=keep[1]),
        rows,
    )


def test_nan_shows_where_entries_are_kept():
    x = normals(3, 8)
    x[1, 2] = np.nan
    pointers, indices, values = sparse.csr_from_dense(x, above=0.0)
    assert np.isnan(values).sum() == 1
    out = np.empty((3, 4), FLOAT32)
    sparse.csr_matmul(pointers, indices, values, normals(8, 4), out, threads=1)
    assert np.isnan(out).all(1).tolist() == [False, True, False]
    out = np.empty((3, 32), FLOAT32)
    blocks = np.array([0, 1, 1], np.int32), np.array([1], np.int32), normals(1, 4, 16)
    sparse.bsr_matmul(x, *blocks, out, threads=1)
    assert np.isnan(out[1, 16:]).all() and np.isfinite(out[[0, 2]]).all()
    assert not out[1, :16].any()
