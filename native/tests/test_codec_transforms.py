"""Largest magnitudes of a tensor, packed bits, orthogonal columns and cosine transforms."""

import numpy as np
import pytest

from oarlock import native
from oarlock.native import codec
from oarlock.native.reference import codec as reference

FLOAT32 = np.float32
PATHS = native.info().paths
SIZES = [0, 1, 7, 8, 9, 31, 33, 64, 255, 1000, 40001, 140001]

each_path = pytest.mark.parametrize("path", PATHS)


def normals(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(FLOAT32)


@pytest.mark.parametrize("count", [1, 17, 4097, 65537, 200007])
@pytest.mark.parametrize("ties", [False, True])
def test_kth_magnitude(count, ties):
    acc = normals(count).round() if ties else normals(count)
    acc[count // 3] = np.inf
    order = np.sort(np.abs(acc))[::-1]
    for k in sorted({1, 2, count // 1000, count // 100, count // 7, count // 2, count} - {0}):
        if k > count:
            continue
        for path in PATHS:
            for threads in (1, 3):
                with native.forced_path(path):
                    assert codec.kth_magnitude(acc, k, threads=threads) == order[k - 1]
    assert reference.kth_magnitude(acc, count // 2 + 1) == order[count // 2]


@each_path
def test_kth_magnitude_where_a_sample_misleads(path):
    """What is sampled is all large, or all small."""
    acc = np.zeros(2**18, FLOAT32)
    for begin, others in ((0, 1.0), (32768, 2.0)):
        acc[:] = 1.5
        acc.reshape(4, -1)[:, begin : begin + 4096] = 3.0 - others
        with native.forced_path(path):
            for k in (100, 3000, 20000):
                assert codec.kth_magnitude(acc, k) == reference.kth_magnitude(acc, k)


@each_path
@pytest.mark.parametrize("count", [10, 1000, 200003])
def test_nan_is_the_largest(path, count):
    acc = normals(count)
    acc[[1, 4, 9]] = np.nan, np.inf, -np.nan
    with native.forced_path(path):
        assert np.isnan(codec.kth_magnitude(acc, 2))
        assert codec.kth_magnitude(acc, 3) == np.inf
        indices, values = np.zeros(3, np.uint32), np.zeros(3, FLOAT32)
        assert codec.select(acc, np.inf, indices, values) == 3
        assert indices.tolist() == [1, 4, 9] and np.isnan(values).tolist() == [True, False, True]
        assert codec.select(acc, np.nan, indices, values) == 2
        assert codec.select(acc, np.nan, indices, values, most=1) == 1 and indices[0] == 1


@each_path
@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0, 2.0, 100.0, np.inf, np.nan])
def test_select(path, threshold):
    for count in SIZES:
        acc = normals(count).round(1)
        indices, values, rest = reference.select(acc, threshold)
        for threads in (1, 3):
            found, taken = np.zeros(count + 3, np.uint32), np.zeros(count + 3, FLOAT32)
            kept = acc.copy()
            with native.forced_path(path):
                number = codec.select(kept, threshold, found, taken, keep=True, threads=threads)
            assert number == indices.size and np.array_equal(kept, rest)
            assert np.array_equal(found[:number], indices)
            assert np.array_equal(taken[:number], values)
            assert not found[number:].any(), "nothing is written beyond"


def test_select_says_how_much_room_it_needs():
    acc = normals(5000)
    before, needed = acc.copy(), int((np.abs(acc) >= 1).sum())
    indices, values = np.zeros(needed - 1, np.uint32), np.zeros(needed - 1, FLOAT32)
    with pytest.raises(codec.CapacityError, match=f"{needed} magnitudes reach") as error:
        codec.select(acc, 1.0, indices, values, keep=True)
    assert error.value.needed == needed and isinstance(error.value, ValueError)
    with pytest.raises(codec.CapacityError, match=f"most is 5, but {needed} .* above") as error:
        codec.select(acc, 1.0, np.zeros(5000, np.uint32), np.zeros(5000, FLOAT32), most=5)
    assert error.value.needed == needed
    assert np.array_equal(acc, before) and not indices.any() and not values.any()


@each_path
@pytest.mark.parametrize("width", range(1, 17))
def test_bits(path, width):
    for count in SIZES:
        values = np.random.default_rng(count).integers(0, 2**width, count).astype(np.uint16)
        packed = np.full(codec.packed_size(count, width), 255, np.uint8)
        back = np.full(count, 7, np.uint16)
        for threads in (1, 3):
            with native.forced_path(path):
                codec.pack_bits(values, packed, width, threads=threads)
                codec.unpack_bits(packed, back, width, threads=threads)
            assert np.array_equal(packed, reference.pack_bits(values, width))
            assert np.array_equal(back, values)


SHAPES = [(1, 1), (5, 3), (64, 64), (65, 7), (1000, 4), (3001, 17), (2500, 64), (70000, 2)]


def off_orthonormal(q):
    wide = q.astype(np.float64)
    return np.abs(wide.T @ wide - np.eye(q.shape[1])).max(initial=0)


@each_path
@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonalise(path, shape):
    matrix = normals(*shape) * np.logspace(-12, 12, shape[1], dtype=FLOAT32)
    found = matrix.copy()
    with native.forced_path(path):
        codec.orthogonalise(found, threads=2)
    assert off_orthonormal(found) < 1e-6
    np.testing.assert_allclose(found, reference.orthogonalise(matrix), atol=2e-4 / shape[0] ** 0.5)


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonalise_has_the_same_bits_everywhere(shape):
    results = set()
    for path in PATHS:
        for threads in (1, 2, 3):
            matrix = normals(*shape)
            matrix[:, shape[1] // 2] = matrix[:, 0]
            with native.forced_path(path):
                codec.orthogonalise(matrix, threads=threads)
            results.add(matrix.tobytes())
    assert len(results) == 1


@each_path
def test_columns_close_to_others(path):
    """Remainders of 1e-4 of a column are found as well as large ones."""
    matrix = normals(2000, 8)
    matrix[:, 1:] = matrix[:, :1] + FLOAT32(1e-4) * matrix[:, 1:]
    found = matrix.copy()
    with native.forced_path(path):
        codec.orthogonalise(found)
    assert off_orthonormal(found) < 1e-6
    np.testing.assert_allclose(found, reference.orthogonalise(matrix), atol=1e-4)


@pytest.mark.parametrize("what", ["zero", "twice", "sum", "all zero", "all alike"])
def test_columns_without_a_direction_get_one(what):
    matrix = normals(300, 5)
    if what == "all zero":
        matrix[:] = 0
    elif what == "all alike":
        matrix[:] = matrix[:, :1]
    else:
        matrix[:, 3] = {"zero": 0, "twice": 2 * matrix[:, 1], "sum": matrix[:, 0] + matrix[:, 2]}[
            what
        ]
    before, found = matrix.copy(), matrix.copy()
    codec.orthogonalise(found)
    assert off_orthonormal(found) < 1e-6
    # All columns lie within the span.
    wide, q = before.astype(np.float64), found.astype(np.float64)
    np.testing.assert_allclose(q @ (q.T @ wide), wide, atol=1e-5)
    again = before.copy()
    codec.orthogonalise(again, threads=3)
    assert np.array_equal(found, again)


def test_power_iteration_survives_a_step_without_gradient():
    gradient = normals(60, 3) @ normals(3, 40, seed=1)
    q = normals(40, 3)
    for step in (np.zeros_like(gradient), gradient, gradient):
        p = step @ q
        codec.orthogonalise(p)
        q = step.T @ p
    np.testing.assert_allclose(p @ q.T, gradient, atol=1e-4)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_orthogonalise_shows_what_is_not_finite(odd):
    matrix = normals(3000, 3)
    matrix[2000, 2] = odd
    codec.orthogonalise(matrix)
    assert np.isnan(matrix).all()
    codec.orthogonalise(np.empty((5, 0), FLOAT32))


@pytest.mark.parametrize("chunk", [8, 9, 16, 31, 32, 64, 100, 128, 255, 256])
def test_dct(chunk):
    for count in (0, 1, 7, 8, 300, 5003, 40001):
        x = normals(count)
        wanted, results = reference.dct(x, chunk), set()
        for path in PATHS:
            for threads in (1, 2):
                out, back = np.empty_like(x), np.empty_like(x)
                with native.forced_path(path):
                    codec.dct(x, out, chunk, threads=threads)
                    codec.dct(out, back, chunk, inverse=True, threads=threads)
                np.testing.assert_allclose(out, wanted, atol=1e-5)
                np.testing.assert_allclose(back, x, atol=1e-5)
                results.add(out.tobytes() + back.tobytes())
        assert len(results) == 1
        inplace = x.copy()
        codec.dct(inplace, inplace, chunk)
        assert np.array_equal(inplace, out)


def test_dct_spreads_nan_over_its_chunk_only():
    x = normals(100)
    x[40] = np.nan
    codec.dct(x, x, 32)
    assert np.array_equal(np.isnan(x), np.arange(100) // 32 == 1)
