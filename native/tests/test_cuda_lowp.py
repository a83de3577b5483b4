"""The CUDA kernels of lowp against the oracle and the CPU: on an emulator, and where one is on a GPU."""

import numpy as np
import pytest
from native.tests.test_lowp import FORMATS, SCALED, bound, numbers, operands  # pants: no-infer-dep
from native.tests.util_cuda_lowp import BFLOAT16, Emulator  # pants: no-infer-dep
from native.tests.util_cuda_lowp import compile_for_cpu, product, rounded  # pants: no-infer-dep
from native.tests.util_gpu import Gpu, needs_gpu  # pants: no-infer-dep

from oarlock.native import _abi, _lowp_codes, lowp
from oarlock.native._tensors import TensorList
from oarlock.native.reference import lowp as reference

FLOAT32 = np.dtype(np.float32)
# Few rows, small tiles with ends, and several of them; the reduction in parts of all kinds of tiles.
SHAPES = [(1, 1, 1), (2, 300, 48), (8, 64, 33), (9, 31, 5), (65, 129, 70), (20, 600, 64)]
TRANSPOSED = [(False, False), (False, True), (True, False), (True, True)]
each_format = pytest.mark.parametrize("format", FORMATS)
each_scaled = pytest.mark.parametrize("format", SCALED)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    return Emulator(compile_for_cpu(tmp_path_factory.mktemp("cuda_on_cpu"), "lowp"))


@pytest.fixture(params=["emulator", pytest.param("gpu", marks=needs_gpu)])
def place(request):
    if request.param == "gpu":
        return Gpu()
    found = request.getfixturevalue("emulator")
    found.set()
    return found


def limit(place, a, b, options):
    """What the sums may be wrong by: tensor cores of GPUs cut off where float32 rounds, and of fp8
    keep 14 bits of 128 products."""
    factor = 1 if place.exact else 2**10 if options["format"][:3] == "fp8" else 4
    return factor * bound(a, b, options)


def agrees(place, a, b, **options):
    """With the oracle, and in bits with the CPU where sums are exact or have one order."""
    found = product(place, a, b, **options)
    wanted = reference.matmul(a, b, **options)
    wrong = ~(np.abs(found - wanted) <= limit(place, a, b, options))
    assert not wrong.any(), (found[wrong][:3], wanted[wrong][:3])
    if options["format"] in ("int8", "int16", "fp32"):
        on_cpu = np.empty_like(found)
        lowp.matmul(a, b, on_cpu, **options)
        assert found.tobytes() == on_cpu.tobytes()
    return found


@each_format
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_of_any_shape(place, shape, format):
    for transposed in TRANSPOSED:
        options = dict(zip(("transpose_a", "transpose_b"), transposed))
        agrees(place, *operands(*shape, **options)[:2], format=format, **options)


@each_scaled
@pytest.mark.parametrize("rows", [3, 8, 17])
@pytest.mark.parametrize("block", [32, 64, 96, 256])
def test_blocks_along_the_reduction(place, block, rows, format):
    for transposed in TRANSPOSED[:3]:
        options = dict(zip(("transpose_a", "transpose_b"), transposed))
        options |= {"format": format, "block": block}
        agrees(place, *operands(rows, 301, 48, *transposed)[:2], **options)


@pytest.mark.parametrize("format", ["int8", "fp16"])
def test_large_tiles(place, format):
    """Enough of them for every processor of the emulator, with the ends of rows and columns."""
    agrees(place, *operands(257, 140, 259)[:2], format=format)


@pytest.mark.parametrize("formats", [("fp8_e5m2", "fp8_e4m3"), ("fp8_e4m3", "fp8_e5m2"),
                                     ("bf16", "fp16"), ("fp32", "bf16")], ids=str)  # fmt: skip
@pytest.mark.parametrize("rows", [2, 17])
def test_a_format_for_each_operand(place, rows, formats):
    a, b, _ = operands(rows, 165, 33)
    wanted = reference.matmul(a, b, format=formats)
    room = limit(place, a, b, {"format": formats[0]})
    assert (np.abs(product(place, a, b, format=formats) - wanted) <= room).all()


@each_scaled
def test_fp8_by_fp16_and_other_base_instructions(place, format):
    a, b, _ = operands(18, 200, 35)
    wanted, room = reference.matmul(a, b, format=format), limit(place, a, b, {"format": format})
    for block in (None, 64):
        wanted = reference.matmul(a, b, format=format, block=block)
        found = product(place, a, b, format=format, block=block, base=True)
        assert (np.abs(found - wanted) <= room).all()
    if isinstance(place, Emulator):  # and on a GPU that has no products of fp8
        place.set(version=80)
        assert product(place, a, b, format=format, block=64).tobytes() == found.tobytes()


@pytest.mark.parametrize("activation", [None, "relu", "gelu", "silu"])
@pytest.mark.parametrize("rows", [4, 19])
@pytest.mark.parametrize("columns", [45, 46])
def test_bias_activation_and_bfloat16(place, activation, rows, columns):
    a, b, on_cpu = operands(rows, 40, columns, dtype=BFLOAT16)
    bias = numbers(columns, seed=3) * 10
    options = {"format": "int8", "bias": bias, "activation": activation}
    for dtype in (FLOAT32, BFLOAT16):
        on_cpu = on_cpu.astype(dtype)
        lowp.matmul(a, b, on_cpu, **options)
        assert product(place, a, b, dtype, **options).tobytes() == on_cpu.tobytes()


@each_format
@pytest.mark.parametrize("rows", [5, 18])
def test_quantised_operands_give_the_same_bits(place, rows, format):
    for columns, depth in ((48, 96), (35, 77)):  # as they are, and copied for their alignment
        for transposed in TRANSPOSED:
            options = dict(zip(("transpose_a", "transpose_b"), transposed)) | {"format": format}
            options["block"] = 32 if format in SCALED else None
            a, b, _ = operands(rows, depth, columns, *transposed)
            axes = (0 if transposed[0] else 1, 1 if transposed[1] else 0)
            qa, qb = (
                rounded(place, x, format=format, axis=axis, block=options["block"])
                for x, axis in zip((a, b), axes)
            )
            wanted = product(place, a, b, **options).tobytes()
            for x, y in ((qa, b), (a, qb), (qa, qb)):
                assert product(place, x, y, **options).tobytes() == wanted


@pytest.mark.parametrize("rows, length", [(2, 300001), (9, 140000)])
def test_sums_larger_than_int32(place, rows, length):
    a, b = np.ones((rows, length), FLOAT32), np.ones((length, 3), FLOAT32)
    a[1] = -1
    agrees(place, a, b, format="int8")


@each_format
@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
@pytest.mark.parametrize("seed", [None, 3, 2**64 - 1], ids=str)
def test_rounding_has_the_bits_of_the_cpu(place, format, dtype, seed):
    for shape in ((1, 1), (3, 17), (64, 65), (33, 2100), (300, 7)):
        x = numbers(*shape, dtype=dtype)
        for axis in (0, 1):
            for block in (None, 32, 96) if format in SCALED else (None,):
                options = {"format": format, "axis": axis, "block": block, "rounding_seed": seed}
                here, there = lowp.quantize(x, **options), rounded(place, x, **options)
                assert place.get(there.codes).tobytes() == here.codes.tobytes()
                if here.scales is not None:
                    assert place.get(there.scales).tobytes() == here.scales.tobytes()
                with place.active():
                    back, cast = lowp.dequantize(there), lowp.cast(place.put(x), **options)
                wanted = lowp.cast(x, **options).tobytes()
                assert place.get(back).tobytes() == place.get(cast).tobytes() == wanted


@each_format
def test_rounding_at_random_in_products(place, format):
    for rows in (3, 17):
        a, b, _ = operands(rows, 100, 33)
        agrees(place, a, b, format=format, rounding_seed=7)


@pytest.mark.parametrize("format", ["bf16", "fp16", "fp8_e4m3", "fp8_e5m2"])
def test_casts_without_scales(place, format):
    """Over the whole range, Inf and NaN too."""
    magnitudes = np.linspace(0, 0x7F800000, 20_001).astype(np.uint32).view(FLOAT32)
    x = np.concatenate([magnitudes, -magnitudes, np.float32([np.nan])])
    with place.active():
        found = place.get(lowp.cast(place.put(x), format=format))
    np.testing.assert_array_equal(found, lowp.cast(x, format=format))


@each_format
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("rows", [8, 17])
def test_bad_numbers_reach_the_output(place, format, bad, rows):
    for transposed in (False, True):
        a, b, _ = operands(rows, 70, 32, transposed, transposed)
        a[(40, 2) if transposed else (2, 40)] = bad
        b[(5, 40) if transposed else (40, 5)] = bad
        with np.errstate(invalid="ignore"):
            out = product(
                place, a, b, format=format, transpose_a=transposed, transpose_b=transposed
            )
        assert not np.isfinite(out[2]).any() and not np.isfinite(out[:, 5]).any()
        assert np.isfinite(np.delete(np.delete(out, 2, axis=0), 5, axis=1)).all()


@each_format
def test_without_elements(place, format):
    for shape in ((0, 3, 4), (3, 4, 0), (0, 0, 0)):
        product(place, *operands(*shape)[:2], format=format)
    for rows in (3, 12):
        a, b, _ = operands(rows, 0, 4)
        bias = np.float32([1, -2, 3, -4])
        out = product(place, a, b, format=format, bias=bias, activation="relu")
        assert out.tolist() == [[1, 0, 3, 0]] * rows


@pytest.mark.parametrize("block", [1, 2, 16, 64, 1024])
@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
def test_hadamard(place, block, dtype):
    x = numbers(3, 5, 2 * block, dtype=dtype)
    for out_dtype in (FLOAT32, BFLOAT16):
        here = np.empty(x.shape, out_dtype)
        lowp.hadamard(x, here, block=block)
        with place.active():
            there = place.put(np.zeros(x.shape, out_dtype))
            lowp.hadamard(place.put(x), there, block=block)
        assert place.get(there).tobytes() == here.tobytes()


def test_what_a_gpu_refuses(place):
    with place.active():
        x, out = (place.put(np.zeros((1, 16384), FLOAT32)) for _ in range(2))
        with pytest.raises(ValueError, match="block must be at most 8192 on a GPU, not 16384"):
            lowp.hadamard(x, out, block=16384)
        with pytest.raises(ValueError, match="multiple of 32"):
            lowp.cast(x, out, format="int8", axis=1, block=33)


def test_codes_on_a_gpu_are_tensors_of_the_same_library():
    paddle = pytest.importorskip("paddle")
    tensor = paddle.zeros([2, 3])  # on the CPU, but read as if it were not
    for like, fits in ((tensor, True), (tensor.numpy(), False)):
        read_as = TensorList("x", [like])
        read_as.items[0].device = _abi.CUDA
        for dtype in (*_lowp_codes._CODES.values(), FLOAT32):
            if fits:
                found = _lowp_codes.empty(like, read_as, (4, 5), dtype)
                assert found.shape == [4, 5] and found.place == tensor.place
                assert str(found.dtype) == f"paddle.{np.dtype(dtype).name}"
            else:
                with pytest.raises(ValueError, match="x is on a GPU, where memory of numpy"):
                    _lowp_codes.empty(like, read_as, (4, 5), dtype)


def test_the_order_of_threads_changes_nothing(emulator):
    """Where a barrier is missing, one of the two orders reads too early."""
    cases = [("int8", 17, None), ("int16", 17, 32), ("fp8_e4m3", 70, 64), ("fp16", 9, None),
             ("fp32", 9, None), ("int8", 5, 32), ("bf16", 2, None)]  # fmt: skip
    for format, rows, block in cases:
        for transposed in (False, True):
            a, b, _ = operands(rows, 530, 80, transpose_b=transposed)
            found = set()
            for backwards in (False, True):
                emulator.set(backwards=backwards)
                options = {"format": format, "block": block, "transpose_b": transposed}
                found.add(product(emulator, a, b, **options).tobytes())
            assert len(found) == 1
