"""The CUDA kernels of quant against the oracle and the CPU: on an emulator, and where one is on a GPU."""

import numpy as np
import pytest
from native.tests.test_quant import CODES, numbers  # pants: no-infer-dep
from native.tests.util_cuda_lowp import BFLOAT16, Emulator  # pants: no-infer-dep
from native.tests.util_cuda_lowp import compile_for_cpu  # pants: no-infer-dep
from native.tests.util_gpu import Gpu, needs_gpu  # pants: no-infer-dep

from oarlock import native
from oarlock.native import quant, quant_cuda
from oarlock.native.reference import quant as reference

# Rows of each kernel, 1 to 8, 16, 32 and tiles of both sizes; inputs that fill slices and do not.
SHAPES = [(1, 1, 1), (2, 300, 48), (5, 64, 33), (8, 2100, 17), (9, 70, 40), (16, 130, 16),
          (17, 1100, 20), (32, 520, 18), (33, 200, 70), (70, 1030, 50)]  # fmt: skip
FUSED = len(native.info().paths) > 1  # a path of the CPU with fused multiply-add, like the GPU's
each_code = pytest.mark.parametrize("format", CODES)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    return Emulator(compile_for_cpu(tmp_path_factory.mktemp("cuda_on_cpu"), "quant"))


@pytest.fixture(params=["emulator", pytest.param("gpu", marks=needs_gpu)])
def place(request):
    if request.param == "gpu":
        return Gpu()
    found = request.getfixturevalue("emulator")
    found.set()
    return found


def arranged(place, packed):
    return quant_cuda.Matrix.arrange(packed, place.put(packed.packed))


def product(place, x, packed, dtype=np.float32, given=None, **options):
    """Rows times a weight of the CPU's, on the device."""
    with place.active():
        out = np.full((len(x), packed.outputs), np.nan, dtype) if given is None else given
        out = place.put(out)
        if "bias" in options:
            options["bias"] = place.put(options["bias"])
        rows = quant_cuda.encode(place.put(x))
        quant_cuda.matmul(rows, arranged(place, packed), out, **options)
        return place.get(out)


def on_cpu(x, packed, **options):
    out = np.empty((len(x), packed.outputs), np.float32)
    quant.matmul(x, packed, out, **options)
    return out


@each_code
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_of_any_shape(place, shape, format):
    rows, inputs, outputs = shape
    x, w, bias = numbers(rows, inputs), numbers(inputs, outputs, seed=1), numbers(outputs, seed=2)
    packed = quant.Matrix.pack(w, format=format)
    found = product(place, x, packed, bias=bias)
    size = np.abs(x) @ np.abs(packed.dequantize()) + np.abs(bias)
    # The same products of integers; only the order of groups differs.
    assert (np.abs(found - on_cpu(x, packed, bias=bias)) <= 2.0**-19 * size).all()
    scale = np.abs(x).max(1, keepdims=True) / 127  # a row's element half-way may go either way
    room = 2.0**-19 * size + 1e-3 * scale * np.abs(w).max(0) * np.sqrt(inputs) + 1e-6
    assert (np.abs(found - reference.matmul(x, w, format, bias)) <= room).all()


@each_code
def test_one_block_of_inputs_has_the_bits_of_the_cpu(place, format):
    if not FUSED:
        pytest.skip("this processor has no fused multiply-add, so its bits are others")
    for rows in (1, 7, 20, 40):
        for inputs in (1, 31, 33, 64):
            x = numbers(rows, inputs, seed=inputs)
            packed = quant.Matrix.pack(numbers(inputs, 37, seed=1), format=format)
            assert product(place, x, packed).tobytes() == on_cpu(x, packed).tobytes()


@each_code
def test_large_tiles_and_bits_in_any_batch(place, format):
    """Enough tiles for every processor of the emulator, with the ends of rows and outputs."""
    x, packed = numbers(140, 1100), quant.Matrix.pack(numbers(1100, 261, seed=1), format=format)
    whole = product(place, x, packed)
    size = np.abs(x) @ np.abs(packed.dequantize())
    assert (np.abs(whole - on_cpu(x, packed)) <= 2.0**-19 * size).all()
    for first, rows in ((3, 1), (0, 5), (7, 9), (50, 30), (100, 40)):
        part = product(place, x[first : first + rows], packed)
        assert part.tobytes() == whole[first : first + rows].tobytes(), rows


@each_code
@pytest.mark.parametrize("rows", [3, 35])
def test_bias_accumulation_and_bfloat16(place, rows, format):
    x, bias = numbers(rows, 64), numbers(19, seed=3)
    packed = quant.Matrix.pack(numbers(64, 19, seed=1), format=format)
    plain = product(place, x, packed)
    given = numbers(rows, 19, seed=2)
    assert (product(place, x, packed, bias=bias) == plain + bias).all()
    more = product(place, x, packed, given=given, accumulate=True, bias=bias)
    assert (more == given + (plain + bias)).all()
    narrow = product(place, x, packed, BFLOAT16)
    assert narrow.tobytes() == plain.astype(BFLOAT16).tobytes()
    wanted = product(place, x.astype(BFLOAT16).astype(np.float32), packed)
    assert product(place, x.astype(BFLOAT16), packed).tobytes() == wanted.tobytes()


@each_code
def test_extreme_codes_and_rows(place, format):
    low, high = (-127, 127) if format == "int8" else (-8, 7)
    codes = np.tile(np.array([[low], [high]], np.int8), (8, 96))
    packed = quant.Matrix.from_codes(codes, np.ones((16, 3), np.float32), format=format)
    x = np.vstack([np.full(96, 127.0), np.full(96, -127.0)]).astype(np.float32)
    wanted = x.astype(np.float64) @ codes.T.astype(np.float64)
    np.testing.assert_allclose(product(place, x, packed), wanted, rtol=1e-6)
    weight = quant.Matrix.pack(np.ones((32, 1), np.float32), format=format)
    for size in (0.0, 1e-38, 1e-20, 1e20):
        found = product(place, np.full((1, 32), size, np.float32), weight)
        assert found[0, 0] == pytest.approx(32 * size, rel=1e-2, abs=32 * 2.0**-100)


@each_code
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("rows", [3, 34])
def test_what_is_not_finite_shows_in_its_row_only(place, rows, bad, format):
    x, packed = numbers(rows, 70), quant.Matrix.pack(numbers(70, 20, seed=1), format=format)
    x[1, 40] = bad
    found = product(place, x, packed)
    assert np.isnan(found[1]).all() and np.isfinite(np.delete(found, 1, axis=0)).all()


def test_the_order_of_threads_changes_nothing(emulator):
    """Where a barrier is missing, one of the two orders reads too early."""
    for format in CODES:
        packed = quant.Matrix.pack(numbers(1100, 70, seed=1), format=format)
        for rows in (5, 40):
            found = set()
            for backwards in (False, True):
                emulator.set(backwards=backwards)
                found.add(product(emulator, numbers(rows, 1100), packed).tobytes())
            assert len(found) == 1
    emulator.set()


def test_bad_arguments_are_named(place):
    packed, floats = (quant.Matrix.pack(numbers(64, 20), format=one) for one in ("int8", "bf16"))
    with place.active():
        weight, x = arranged(place, packed), place.put(numbers(2, 64))
        rows, out = quant_cuda.encode(x), place.put(numbers(2, 20))
        for call, message in (
            (lambda: quant_cuda.matmul(rows, packed, out), "weight must be a quant_cuda.Matrix"),
            (lambda: quant_cuda.matmul(rows, weight, x), r"out has shape \[2, 64\], but must be \[2, 20\]"),
            (lambda: quant_cuda.encode(out, rows), r"out is for \[2, 64\], but must be for \[2, 20\]"),
            (lambda: quant_cuda.matmul(quant_cuda.encode(out), weight, out), r"rows is for \[2, 20\]"),
            (lambda: quant_cuda.matmul(rows, weight, out, bias=x), r"bias has shape \[2, 64\]"),
            (lambda: quant_cuda.Matrix.arrange(packed, out), "panels is float32, but must be uint8"),
        ):  # fmt: skip
            with pytest.raises(ValueError, match=message):
                call()
        with pytest.raises(ValueError, match="int8 or int4; of floats, lowp.matmul has products"):
            quant_cuda.Matrix.arrange(floats, place.put(floats.packed))
    if isinstance(place, Emulator):  # where arrays say that they are on the CPU
        with pytest.raises(ValueError, match="like must be on a GPU"):
            quant_cuda._cuda_call.empty(numbers(2), (3,), np.uint8)
