"""Products with weights in few bits against their oracle: formats, shapes, code paths, threads, bad numbers."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oarlock import native
from oarlock.native import quant
from oarlock.native.reference import quant as reference

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
PATHS = native.info().paths
FORMATS = ("fp32", "bf16", "int8", "int4")
CODES = ("int8", "int4")
# rows, inputs, outputs: a tile has 6 rows or 3, a panel 32 outputs, a block 64 inputs; int4 is widened from 24 rows on
SHAPES = [
    (1, 1, 1),
    (1, 64, 16),
    (2, 32, 17),
    (3, 33, 5),
    (5, 100, 40),
    (11, 65, 31),
    (13, 256, 48),
    (25, 127, 33),
    (50, 320, 65),
]
each_format = pytest.mark.parametrize("format", FORMATS)
each_code = pytest.mark.parametrize("format", CODES)


def numbers(*shape, seed=0):
    """With some large ones, so that scales matter."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * np.exp(rng.standard_normal(shape))).astype(np.float32)


def results(x, weight, **options):
    """By path, threads and instructions."""
    found = {}
    for path in PATHS:
        for threads, base in ((1, False), (3, False), (2, True)):
            out = np.full((len(x), weight.outputs), np.nan, np.float32)
            with native.forced_path(path):
                quant.run(x, weight, out, threads=threads, base=base, **options)
            found[path, threads, base] = out
    return found


@each_format
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_of_any_shape(shape, format):
    rows, inputs, outputs = shape
    x, w, bias = numbers(rows, inputs), numbers(inputs, outputs, seed=1), numbers(outputs, seed=2)
    found = results(x, quant.Matrix.pack(w, format=format), bias=bias)
    wanted = reference.matmul(x, w, format, bias)
    # An element half-way between two codes may go either way.
    limit = (4 + inputs) * 2.0**-24 * (np.abs(x) @ np.abs(w)) + 1e-6
    if format in CODES:
        scale = np.abs(x).max(1, keepdims=True) / 127
        limit = limit + 1e-3 * scale * np.abs(w).max(0) * np.sqrt(inputs)
    for key, one in found.items():
        assert (np.abs(one - wanted) <= limit).all(), key
    fused = [one.tobytes() for (path, _, _), one in found.items() if path != "portable"]
    assert len(set(fused)) <= 1
    plain = [one.tobytes() for (path, _, _), one in found.items() if path == "portable"]
    assert len(set(plain)) == 1


@each_format
def test_a_row_does_not_depend_on_the_others(format):
    x, weight = numbers(40, 200), quant.Matrix.pack(numbers(200, 70, seed=1), format=format)
    for path in PATHS:
        with native.forced_path(path):
            whole = np.empty((40, 70), np.float32)
            quant.matmul(x, weight, whole)
            for rows in (1, 2, 3, 4, 5, 8, 12, 23, 24):
                part = np.empty((rows, 70), np.float32)
                quant.matmul(x[7 : 7 + rows][: 40 - 7].copy(), weight, part)
                assert part.tobytes() == whole[7 : 7 + rows].tobytes(), (path, rows)


@each_format
@pytest.mark.parametrize("source", [np.dtype(np.float32), BFLOAT16], ids=str)
def test_packing_rounds_as_the_oracle_does(format, source):
    w = numbers(70, 19).astype(source)
    packed = quant.Matrix.pack(w, format=format)
    wanted = reference.rounded(w.astype(np.float32), format)
    np.testing.assert_array_equal(packed.dequantize(), wanted)
    transposed = quant.Matrix.pack(np.ascontiguousarray(w.T), format=format, transposed=True)
    assert transposed.packed.tobytes() == packed.packed.tobytes()
    np.testing.assert_array_equal(packed.rows(np.array([3, 18, 3])), wanted.T[[3, 18, 3]])


@each_code
def test_codes_go_in_and_come_out_as_they_are(format):
    rng = np.random.default_rng(0)
    low, high = (-128, 127) if format == "int8" else (-8, 7)
    codes = rng.integers(low, high + 1, (21, 96)).astype(np.int8)
    scales = rng.standard_normal((21, 3)).astype(np.float16).astype(np.float32)
    found = quant.Matrix.from_codes(codes, scales, format=format).dequantize()
    np.testing.assert_array_equal(found.T, codes * np.repeat(scales, 32, 1))


@pytest.mark.parametrize("shape", [(32, 32), (64, 1), (96, 33), (40, 70), (1, 5)])
@each_code
def test_codes_of_a_rounded_weight(format, shape):
    matrix = quant.Matrix.pack(numbers(*shape), format=format)
    codes, scales = matrix.codes()
    inputs, outputs = shape
    assert codes.shape == (outputs, inputs) and scales.shape == (outputs, -(-inputs // 32))
    wide = np.repeat(scales, 32, axis=1)[:, :inputs]
    np.testing.assert_array_equal((codes * wide).T, matrix.dequantize())
    if inputs % 32 == 0:
        again = quant.Matrix.from_codes(codes, scales, format=format)
        np.testing.assert_array_equal(again.packed, matrix.packed)
    with pytest.raises(ValueError, match="format must be int8 or int4"):
        quant.Matrix.pack(numbers(4, 4), format="fp32").codes()


@given(st.floats(width=16, allow_nan=False, allow_infinity=False))
@settings(max_examples=300, deadline=None)
def test_every_float16_scale_is_kept(scale):
    codes = np.full((1, 32), 7, np.int8)
    scales = np.array([[scale]], np.float32)
    matrix = quant.Matrix.from_codes(codes, scales, format="int4")
    np.testing.assert_array_equal(matrix.dequantize()[:, 0], np.float32(7) * np.float32(scale))
    out = np.empty((1, 1), np.float32)
    x = np.zeros((1, 32), np.float32)
    x[0, 0] = 1.0
    for path in PATHS:
        with native.forced_path(path):
            quant.matmul(x, matrix, out)
        assert out[0, 0] == pytest.approx(7 * scale, rel=1e-6)


def test_extreme_codes_do_not_saturate():
    """Sums of products of the largest codes, of both signs."""
    for format, low, high in (("int8", -128, 127), ("int8", -128, -127), ("int4", -8, 7)):
        codes = np.tile(np.array([[low], [high]], np.int8), (8, 128))
        weight = quant.Matrix.from_codes(codes, np.ones((16, 4), np.float32), format=format)
        x = np.vstack([np.full(128, 127.0), np.full(128, -127.0)]).astype(np.float32)
        wanted = x.astype(np.float64) @ codes.T.astype(np.float64)
        for one in results(x, weight).values():
            np.testing.assert_allclose(one, wanted, rtol=1e-6)


@each_format
def test_accumulates(format):
    x, weight = numbers(3, 64), quant.Matrix.pack(numbers(64, 20, seed=1), format=format)
    out, more = np.empty((3, 20), np.float32), numbers(3, 20, seed=2)
    quant.matmul(x, weight, out)
    wanted = more + out
    quant.matmul(x, weight, more, accumulate=True)
    np.testing.assert_array_equal(more, wanted)


@each_code
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_shows_in_its_row_only(format, bad):
    x, weight = numbers(3, 64), quant.Matrix.pack(numbers(64, 20, seed=1), format=format)
    x[1, 40] = bad
    for one in results(x, weight).values():
        assert np.isnan(one[1]).all() and np.isfinite(one[[0, 2]]).all()
    w = numbers(64, 20)
    w[5, 5] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        quant.Matrix.pack(w, format=format)


@each_code
def test_tiny_and_large_numbers(format):
    weight = quant.Matrix.pack(np.ones((32, 1), np.float32), format=format)
    for size in (0.0, 1e-38, 1e-20, 1e20):
        x = np.full((1, 32), size, np.float32)
        for one in results(x, weight).values():
            assert one[0, 0] == pytest.approx(32 * size, rel=1e-2, abs=32 * 2.0**-100)
    with pytest.raises(ValueError, match="too large for float16"):
        quant.Matrix.pack(np.full((32, 1), 1e8, np.float32), format=format)


def test_bad_arguments_are_named():
    w = numbers(64, 20)
    weight = quant.Matrix.pack(w, format="int8")
    x, out = numbers(2, 64), np.empty((2, 20), np.float32)
    for arguments, message in (
        ((x[:, :60].copy(), weight, out), r"x has shape \[2, 60\], but must be \[any, 64\]"),
        ((x, weight, out[:1].copy()), r"out has shape \[1, 20\], but must be \[2, 20\]"),
        ((x.astype(np.float64), weight, out), "x is float64, but must be float32"),
        ((x, w, out), "weight must be a quant.Matrix, not ndarray"),
    ):
        with pytest.raises(ValueError, match=message):
            quant.matmul(*arguments)
    with pytest.raises(ValueError, match=r"bias has shape \[19\], but must be \[20\]"):
        quant.matmul(x, weight, out, bias=numbers(19))
    with pytest.raises(ValueError, match="shares memory"):
        quant.matmul(x, quant.Matrix.pack(numbers(64, 64), format="fp32"), x)
    with pytest.raises(
        ValueError, match="format must be one of fp32, bf16, int8, int4, not 'int3'"
    ):
        quant.Matrix.pack(w, format="int3")
    with pytest.raises(ValueError, match=r"outputs must be in \[0, 20\), not 20"):
        weight.rows([20])
    codes, scales = np.zeros((4, 64), np.int8), np.ones((4, 2), np.float32)
    for bad, message in (
        ((codes, scales * 1.0001), "scales must be finite numbers of float16"),
        ((codes, scales * np.nan), "scales must be finite numbers of float16"),
        ((codes + 8, scales), "-8 to 7 for int4"),
        ((codes, scales[:, :1].copy()), r"scales has shape \[4, 1\], but must be \[4, 2\]"),
        ((codes[:, :40].copy(), scales), "multiple of 32 inputs, not 40"),
    ):
        with pytest.raises(ValueError, match=message):
            quant.Matrix.from_codes(*bad, format="int4")


def test_sizes():
    for format, bits in (("fp32", 32), ("bf16", 16), ("int8", 8.5), ("int4", 4.5)):
        assert quant.Matrix.pack(numbers(128, 32), format=format).nbytes * 8 == bits * 128 * 32
