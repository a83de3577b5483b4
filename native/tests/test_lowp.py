"""Products in low precision against their oracle: formats, shapes, code paths, threads, bad numbers."""

import ml_dtypes
import numpy as np
import pytest

from oarlock import native
from oarlock.native import _lowp_matmul, lowp
from oarlock.native.reference import lowp as reference

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOAT32 = np.dtype(np.float32)
PATHS = native.info().paths
FORMATS = ("fp32", "bf16", "fp16", "int8", "int16", "fp8_e4m3", "fp8_e5m2")
SCALED = tuple(reference.LARGEST)
# M, K, N
SHAPES = [(1, 1, 1), (3, 17, 5), (17, 64, 33), (15, 31, 129), (64, 257, 31), (130, 96, 257)]
each_format = pytest.mark.parametrize("format", FORMATS)
each_scaled = pytest.mark.parametrize("format", SCALED)


def numbers(*shape, seed=0, dtype=FLOAT32):
    """With some large ones, so that scales matter."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * np.exp(rng.standard_normal(shape))
    return x.astype(FLOAT32).astype(dtype)


def operands(m, k, n, transpose_a=False, transpose_b=False, dtype=FLOAT32):
    a = numbers(*((k, m) if transpose_a else (m, k)), seed=1, dtype=dtype)
    b = numbers(*((n, k) if transpose_b else (k, n)), seed=2, dtype=dtype)
    return a, b, np.full((m, n), np.nan, FLOAT32)


def results(a, b, out, **options):
    """By path, threads and instructions."""
    found = {}
    for path in PATHS:
        for threads, base in ((1, False), (3, False), (2, True)):
            with native.forced_path(path):
                _lowp_matmul.run(a, b, out, threads=threads, base_instructions=base, **options)
            found[path, threads, base] = out.copy()
            out[...] = 0
    return found


def bound(a, b, options):
    """What sums of K products of float32 may be wrong by, with room."""
    a = np.abs(a.astype(np.float64).T if options.get("transpose_a") else a.astype(np.float64))
    b = np.abs(b.astype(np.float64).T if options.get("transpose_b") else b.astype(np.float64))
    return (8 + 4 * np.sqrt(a.shape[1])) * 2.0**-24 * (1.2 * a @ b) + 1e-30


def agree(a, b, out, **options):
    """All paths, threads and instructions agree with the oracle, and in bits where promised."""
    found = results(a, b, out, **options)
    wanted, limit = reference.matmul(a, b, **options), bound(a, b, options)
    for key, one in found.items():
        wrong = np.abs(one - wanted) > limit
        assert not wrong.any(), (key, one[wrong][:3], wanted[wrong][:3])
    exact = options["format"] in ("int8", "int16")
    same = [key for key in found if exact or key[2]]  # bf16 may have instructions of its own
    if options["format"] == "fp32":
        same = [key for key in same if key[0] != "portable"]  # which has no fused multiply-add
    for key in same:
        assert found[key].tobytes() == found[same[0]].tobytes(), (key, same[0])
    for path in PATHS:
        assert found[path, 1, False].tobytes() == found[path, 3, False].tobytes(), path
    return found[PATHS[-1], 1, False]


@each_format
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_of_any_shape(shape, format):
    agree(*operands(*shape), format=format)


@each_format
@pytest.mark.parametrize("transposed", [(False, True), (True, False), (True, True)], ids=str)
def test_transposed_operands(transposed, format):
    options = dict(zip(("transpose_a", "transpose_b"), transposed))
    for shape in ((3, 17, 5), (33, 130, 47)):
        agree(*operands(*shape, **options), format=format, **options)


@each_scaled
@pytest.mark.parametrize("block", [32, 64, 96, 256])
def test_blocks_along_the_reduction(block, format):
    for transposed in ((False, False), (True, False), (False, True)):
        options = dict(zip(("transpose_a", "transpose_b"), transposed))
        agree(*operands(20, 301, 37, **options), format=format, block=block, **options)


@each_format
def test_bfloat16_in_and_out(format):
    a, b, out = operands(18, 70, 35, dtype=BFLOAT16)
    wide = agree(a, b, out, format=format)
    narrow = out.astype(BFLOAT16)
    lowp.matmul(a, b, narrow, format=format)
    assert narrow.tobytes() == wide.astype(BFLOAT16).tobytes()


@pytest.mark.parametrize("activation", [None, "relu", "gelu", "silu"])
@pytest.mark.parametrize("format", ["int8", "bf16"])
def test_bias_and_activation(format, activation):
    a, b, out = operands(19, 40, 45)
    bias = numbers(45, seed=3) * 10
    wanted = reference.matmul(a, b, format=format, bias=bias, activation=activation)
    exact = []
    for path in PATHS:
        with native.forced_path(path):
            _lowp_matmul.run(
                a, b, out, format=format, bias=bias, activation=activation, base_instructions=True
            )
        np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-5)
        exact.append(out.tobytes())
    assert len(set(exact)) == 1


def test_activations_at_their_ends():
    x = np.float32([-np.inf, -200, -88, -20, -6, -1, -1e-8, 0, 1e-8, 1, 6, 88, 200, np.inf, np.nan])
    a, b = x[:, None], np.ones((1, 1), FLOAT32)
    for activation in ("relu", "gelu", "silu"):
        out = np.empty((len(x), 1), FLOAT32)
        lowp.matmul(a, b, out, format="fp32", activation=activation)
        with np.errstate(all="ignore"):
            wanted = reference.activate(x[1:-2].astype(float), activation)
        np.testing.assert_allclose(out[1:-2, 0], wanted, rtol=1e-5, atol=1e-30)
        assert out[-2, 0] == np.inf and np.isnan(out[-1, 0])


@each_scaled
def test_rounding_at_random(format):
    a, b, out = operands(17, 100, 33)
    agree(a, b, out, format=format, rounding_seed=7)
    agree(a.T.copy(), b, out, format=format, rounding_seed=2**63, transpose_a=True)


def test_rounding_at_random_leaves_the_mean():
    a, b, out = operands(8, 64, 16)
    total = np.zeros_like(out, np.float64)
    for seed in range(400):
        lowp.matmul(a, b, out, format="fp8_e5m2", rounding_seed=seed)
        total += out
    lowp.matmul(a, b, out, format="fp8_e5m2")
    exact = a.astype(float) @ b
    assert np.abs(total / 400 - exact).mean() < 0.15 * np.abs(out - exact).mean()


@pytest.mark.parametrize("formats", [("fp8_e5m2", "fp8_e4m3"), ("bf16", "fp16")], ids=str)
def test_a_format_for_each_operand(formats):
    a, b, out = operands(17, 65, 33)
    lowp.matmul(a, b, out, format=formats)
    wanted = reference.matmul(a, b, format=formats)
    assert (np.abs(out - wanted) <= bound(a, b, {})).all()


@pytest.mark.parametrize("length", [131072, 131073, 140000, 300001])
@pytest.mark.parametrize("base", [False, True])
def test_sums_larger_than_int32(length, base):
    a, b, out = (
        np.ones((2, length), FLOAT32),
        np.ones((length, 3), FLOAT32),
        np.empty((2, 3), FLOAT32),
    )
    a[1] = -1
    for path in PATHS:
        with native.forced_path(path):
            for format in ("int8", "int16"):
                _lowp_matmul.run(a, b, out, format=format, base_instructions=base)
                np.testing.assert_allclose(out, [[length] * 3, [-length] * 3], rtol=2e-6)


@pytest.mark.parametrize("transposed", [False, True])
def test_many_blocks_of_rows_and_of_the_reduction(transposed):
    """Larger than what the caches hold, so that every loop runs more than once."""
    for format, block in (("int8", None), ("int8", 512), ("bf16", None), ("int16", None)):
        a, b, out = operands(600, 3001, 70, transposed, not transposed)
        options = {"transpose_a": transposed, "transpose_b": not transposed, "format": format}
        if block:
            options["block"] = block
        wanted = reference.matmul(a, b, **options)
        first = None
        for threads in (1, 3):
            lowp.matmul(a, b, out, threads=threads, **options)
            assert (np.abs(out - wanted) <= bound(a, b, options)).all()
            first = first or out.tobytes()
            assert out.tobytes() == first


@each_format
def test_quantised_operands_give_the_same_bits(format):
    block = 32 if format in SCALED else None
    for transpose_a, transpose_b in ((False, False), (True, True)):
        a, b, out = operands(18, 77, 35, transpose_a, transpose_b)
        options = {"transpose_a": transpose_a, "transpose_b": transpose_b, "format": format}
        qa = lowp.quantize(a, format=format, axis=0 if transpose_a else 1, block=block)
        qb = lowp.quantize(b, format=format, axis=1 if transpose_b else 0, block=block)
        for path in PATHS:
            with native.forced_path(path):
                lowp.matmul(a, b, out, block=block, **options)
                wanted = out.tobytes()
                for x, y in ((qa, b), (a, qb), (qa, qb)):
                    out[...] = 0
                    lowp.matmul(x, y, out, block=block, **options)
                    assert out.tobytes() == wanted, path


@each_format
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("transposed", [False, True])
def test_bad_numbers_reach_the_output(format, bad, transposed):
    for block in (None, 32) if format in SCALED else (None,):
        for path in PATHS:
            a, b, out = operands(9, 70, 18, transposed, transposed)
            a[(40, 2) if transposed else (2, 40)] = bad
            with native.forced_path(path), np.errstate(invalid="ignore"):
                lowp.matmul(
                    a,
                    b,
                    out,
                    format=format,
                    transpose_a=transposed,
                    transpose_b=transposed,
                    block=block,
                )
                assert not np.isfinite(out[2]).any()
                assert np.isfinite(np.delete(out, 2, axis=0)).all()
                a, b, out = operands(9, 70, 18, transposed, transposed)
                b[(5, 40) if transposed else (40, 5)] = bad
                lowp.matmul(
                    a,
                    b,
                    out,
                    format=format,
                    transpose_a=transposed,
                    transpose_b=transposed,
                    block=block,
                )
                assert not np.isfinite(out[:, 5]).any()
                assert np.isfinite(np.delete(out, 5, axis=1)).all()


@each_format
def test_zeros_and_tiny_rows(format):
    a, b, out = operands(5, 40, 6)
    a[1], a[2] = 0, a[2] * np.float32(1e-30)
    b[:, 3] = 0
    lowp.matmul(a, b, out, format=format)
    assert (out[1] == 0).all() and (out[:, 3] == 0).all()
    if format in SCALED:  # the scale fits tiny rows as well as others
        wanted = reference.matmul(a, b, format=format)
        np.testing.assert_allclose(out[2] * 1e30, wanted[2] * 1e30, rtol=1e-4, atol=1e-5)
    a[2] = np.float32(2.0**-140)  # below what scales go down to: rounded to zero
    lowp.matmul(a, b, out, format=format)
    assert np.isfinite(out).all()


@each_format
def test_without_elements(format):
    for shape in ((0, 3, 4), (3, 4, 0), (0, 0, 0)):
        lowp.matmul(*operands(*shape), format=format)
    a, b, out = operands(3, 0, 4)
    lowp.matmul(a, b, out, format=format, bias=np.float32([1, -2, 3, -4]), activation="relu")
    assert out.tolist() == [[1, 0, 3, 0]] * 3


A, B, OUT = operands(4, 64, 6)
WRONG = [
    ({"format": "int4"}, "format must be one of fp32, bf16"),
    ({"format": ("int8", "int16")}, "one kind of arithmetic"),
    ({"format": ("fp8_e4m3", "bf16")}, "must both have scales"),
    ({"format": ["int8"]}, "format must be a format or a pair"),
    ({"block": 33}, "multiple of 32"),
    ({"block": -32}, "multiple of 32"),
    ({"block": 32, "format": "bf16"}, "bf16 has none"),
    ({"activation": "tanh"}, "activation must be one of"),
    ({"rounding_seed": -1}, "rounding_seed must be an integer"),
    ({"transpose_a": True}, "do not fit"),
    ({"bias": np.zeros(4, FLOAT32)}, r"bias has shape \[4\], but must be \[6\]"),
    ({"bias": np.zeros(6)}, r"bias\[0\] is float64"),
    ({"a": A.astype(np.float64)}, r"a\[0\] is float64, but must be float32 or bfloat16"),
    ({"a": A[:, :32]}, "not contiguous"),
    ({"a": A[0]}, "must be a matrix"),
    ({"out": np.zeros((6, 4), FLOAT32)}, r"out has shape \[6, 4\], but the product has \[4, 6\]"),
    ({"out": A[:, :6].copy().astype(np.float16)}, r"out\[0\] is float16"),
    ({"out": A.reshape(-1)[:24].reshape(4, 6)}, "shares memory"),
    ({"threads": 0}, "threads must be between"),
    ({"a": lowp.quantize(A, format="int8", axis=0)}, "quantise it with axis=1"),
    ({"a": lowp.quantize(A, format="int16", axis=1)}, "was quantised to int16"),
    ({"a": lowp.quantize(A, format="int8", axis=1, block=32)}, "quantised with block=32"),
]


@pytest.mark.parametrize("change, message", WRONG, ids=[text for _, text in WRONG])
def test_bad_arguments_are_refused_and_change_nothing(change, message):
    arguments = {"a": A, "b": B, "out": OUT.copy(), "format": "int8"} | change
    a, b, out = (arguments.pop(name) for name in ("a", "b", "out"))
    before = out.tobytes()
    with pytest.raises(ValueError, match=message):
        lowp.matmul(a, b, out, **arguments)
    assert out.tobytes() == before


def test_paddle_tensors():
    paddle = pytest.importorskip("paddle")
    a, b, out = operands(20, 50, 30)
    lowp.matmul(a, b, out, format="int8")
    x, y, found = (paddle.to_tensor(array) for array in (a, b, np.zeros_like(out)))
    lowp.matmul(x, y, found, format="int8")
    assert found.numpy().tobytes() == out.tobytes()
    lowp.matmul(lowp.quantize(x, format="int8", axis=1), y, found, format="int8")
    assert found.numpy().tobytes() == out.tobytes()
