"""Rounding to formats, bit by bit, and the Hadamard transform."""

import ml_dtypes
import numpy as np
import pytest

from oarlock import native
from oarlock.native import lowp
from oarlock.native.reference import lowp as reference

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOAT32 = np.dtype(np.float32)
PATHS = native.info().paths
FORMATS = ("fp32", "bf16", "fp16", "int8", "int16", "fp8_e4m3", "fp8_e5m2")
FLOATING = ("bf16", "fp16", "fp8_e4m3", "fp8_e5m2")
SHAPES = [(1, 1), (3, 17), (64, 65), (130, 257)]
each_format = pytest.mark.parametrize("format", FORMATS)


def numbers(*shape, dtype=FLOAT32):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape) * np.exp(3 * rng.standard_normal(shape))
    return x.astype(FLOAT32).astype(dtype)


def on_all_paths(function):
    """The one result of all code paths and numbers of threads."""
    found = []
    for path in PATHS:
        for threads in (1, 2, 5):
            with native.forced_path(path):
                found.append(function(threads))
            assert found[-1].tobytes() == found[0].tobytes(), (path, threads)
    return found[0]


@each_format
@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
@pytest.mark.parametrize("seed", [None, 3, 2**64 - 1], ids=str)
def test_values_have_the_bits_of_the_oracle(format, dtype, seed):
    for shape in SHAPES:
        for axis in (0, 1):
            for block in (None, 32, 96) if format in reference.LARGEST else (None,):
                x, options = numbers(*shape, dtype=dtype), {"axis": axis, "block": block}
                options |= {"format": format, "rounding_seed": seed}
                found = on_all_paths(lambda threads: lowp.cast(x, threads=threads, **options))
                np.testing.assert_array_equal(found, reference.cast(x, **options))
                codes = lowp.quantize(x, **options)
                assert lowp.dequantize(codes).tobytes() == found.tobytes()
                assert codes.codes.shape == shape


def bits(low, high, count):
    return np.linspace(low, high, count).astype(np.uint32).view(FLOAT32)


@pytest.mark.parametrize("format", FLOATING)
def test_every_magnitude_rounds_to_nearest_without_scales(format):
    """Floats over the whole range, and the middles between neighbours, where ties are."""
    positive = bits(0, 0x7F800000, 200_001)
    if format != "bf16":
        codes = np.arange(2 ** (8 * np.dtype(reference.TYPES[format]).itemsize))
        unsigned = codes.astype(f"u{np.dtype(reference.TYPES[format]).itemsize}")
        every = np.sort(unsigned.view(reference.TYPES[format]).astype(FLOAT32))
        every = every[np.isfinite(every)]
        middles = (every[1:] + every[:-1]) / 2
        positive = np.concatenate([positive, every, middles, np.nextafter(middles, np.inf)])
    x = np.concatenate([positive, -positive, np.float32([np.nan])]).astype(FLOAT32)
    found = on_all_paths(lambda threads: lowp.cast(x, format=format, threads=threads))
    np.testing.assert_array_equal(found, reference.cast(x, format))
    np.testing.assert_array_equal(np.signbit(found[:-1]), np.signbit(x[:-1]))


@pytest.mark.parametrize("format", FLOATING)
def test_codes_are_the_bits_of_the_format(format):
    dtype = np.dtype(reference.TYPES[format])
    unsigned = np.arange(2 ** (8 * dtype.itemsize)).astype(f"u{dtype.itemsize}")
    values = unsigned.view(dtype).astype(FLOAT32)
    finite = np.isfinite(values)
    codes = lowp.quantize(values, format="bf16" if format == "bf16" else format, axis=0)
    if format in reference.LARGEST:  # scaled: NaN and Inf would make the scale NaN
        codes = lowp.quantize(values[finite], format=format, axis=0)
        assert codes.scales.tolist() == [[1.0]]
        np.testing.assert_array_equal(codes.codes.view(dtype), values[finite].astype(dtype))
    else:
        np.testing.assert_array_equal(codes.codes.view(dtype)[finite], values[finite].astype(dtype))
        np.testing.assert_array_equal(lowp.dequantize(codes), values)


def test_beyond_the_range():
    x = np.float32([448, 464, 1e9, np.inf, np.nan, -1e9, -np.inf])
    assert lowp.cast(x, format="fp8_e4m3").tolist()[:3] == [448, 448, 448]
    assert np.isnan(lowp.cast(x, format="fp8_e4m3")[3:5]).all()
    assert lowp.cast(x, format="fp8_e4m3")[5] == -448
    x = np.float32([57344, 61439, 61440, np.inf, -1e9])
    assert lowp.cast(x, format="fp8_e5m2").tolist() == [57344, 57344, np.inf, np.inf, -np.inf]
    x = np.float32([65504, 65519, 65520])
    assert lowp.cast(x, format="fp16").tolist() == [65504, 65504, np.inf]


@pytest.mark.parametrize("format", ["bf16", "fp16", "int8", "int16", "fp8_e4m3", "fp8_e5m2"])
def test_rounding_at_random_is_unbiased(format):
    x = np.tile(np.linspace(0.1, 1, 64, dtype=FLOAT32), (4096, 1))
    options = {"format": format, "axis": 1 if format in reference.LARGEST else None}
    found = lowp.cast(x, rounding_seed=11, **options)
    step = np.abs(lowp.cast(x, **options) - x).max() * 2
    assert np.abs(found - x).max() <= step * 1.01
    assert np.abs(found.mean(axis=0, dtype=np.float64) - x[0]).max() < 5 * step / np.sqrt(4096)
    assert (lowp.cast(x, rounding_seed=12, **options) != found).any()


@pytest.mark.parametrize("format", list(reference.LARGEST))
def test_bad_numbers_make_the_scale_nan(format):
    for axis in (0, 1):
        x = numbers(6, 70)
        x[2, 3], x[4, 5] = np.nan, np.inf

        def where_bad(threads):  # what NaN holds besides is not promised
            return np.isnan(lowp.cast(x, format=format, axis=axis, threads=threads))

        found = on_all_paths(where_bad)
        bad = np.zeros_like(x, bool)
        if axis == 1:
            bad[[2, 4]] = True
        else:
            bad[:, [3, 5]] = True
        np.testing.assert_array_equal(found, bad)


def test_tensors_of_more_axes():
    x = numbers(3, 5, 64)
    last = lowp.cast(x, format="int8", axis=-1, block=32)
    np.testing.assert_array_equal(
        last.reshape(15, 64), lowp.cast(x.reshape(15, 64), format="int8", axis=1, block=32)
    )
    first = lowp.cast(x, format="int8", axis=0)
    np.testing.assert_array_equal(
        first.reshape(3, 320), lowp.cast(x.reshape(3, 320), format="int8", axis=0)
    )
    with pytest.raises(ValueError, match="axis must be 0 or the last one, 2, of x"):
        lowp.cast(x, format="int8", axis=1)
    assert lowp.cast(np.zeros((0, 4), FLOAT32), format="int8", axis=0).shape == (0, 4)


@pytest.mark.parametrize("block", [1, 2, 4, 8, 16, 32, 64, 256])
@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
def test_hadamard(block, dtype):
    x = numbers(3, 7, 2 * block, dtype=dtype)

    def transformed(threads):
        out = np.empty(x.shape, FLOAT32)
        lowp.hadamard(x, out, block=block, threads=threads)
        return out

    found = on_all_paths(transformed)
    np.testing.assert_array_equal(found, reference.hadamard(x, block))
    back = np.empty(x.shape, dtype)
    lowp.hadamard(found, back, block=block)
    np.testing.assert_allclose(
        back.astype(FLOAT32), x.astype(FLOAT32), rtol=1e-2, atol=1e-5 * np.abs(found).max()
    )


def test_hadamard_leaves_products():
    a, b = numbers(5, 64), numbers(7, 64)
    turned = [np.empty_like(x) for x in (a, b)]
    for x, y in zip((a, b), turned):
        lowp.hadamard(x, y, block=32)
    np.testing.assert_allclose(turned[0] @ turned[1].T, a @ b.T, rtol=1e-3, atol=1e-2)


WRONG = [
    (lambda x: lowp.cast(x, format="int8"), "axis must be given"),
    (lambda x: lowp.cast(x, format="fp8_e4m3", block=32), "block must be None without an axis"),
    (lambda x: lowp.quantize(x, format="bf16", axis=1, block=32), "bf16 has none"),
    (lambda x: lowp.quantize(x, format="int8", axis=1, block=31), "multiple of 32"),
    (lambda x: lowp.quantize(x, format="int9", axis=1), "format must be one of"),
    (lambda x: lowp.quantize(x.astype(np.float16), format="int8", axis=1), r"x\[0\] is float16"),
    (lambda x: lowp.quantize(x[:, ::2], format="int8", axis=1), "not contiguous"),
    (lambda x: lowp.cast(x, x, format="bf16"), "shares memory"),
    (lambda x: lowp.dequantize(x), "what quantize returns"),
    (lambda x: lowp.hadamard(x, np.empty_like(x), block=3), "power of 2"),
    (lambda x: lowp.hadamard(x, np.empty_like(x), block=32), "divides the last axis, of 48"),
    (lambda x: lowp.hadamard(x, x, block=16), "shares memory"),
]


@pytest.mark.parametrize("call, message", WRONG, ids=[text for _, text in WRONG])
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(numbers(4, 48))
