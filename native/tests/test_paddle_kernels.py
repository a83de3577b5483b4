"""The bfloat16 kernels for Paddle's matmul and add, against float32 and float64; and loading."""

import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import paddle
import pytest

from oarlock.native.paddle import _build, as_numpy, from_numpy, kernels, openmp_threads
from oarlock.native.paddle.cpu import this_cpu

BF16 = ml_dtypes.bfloat16
HALF_ULP = 2.0**-8  # largest relative rounding error of a bfloat16, which has 8 bits
FLOAT = 2.0**-24

MATMULS = [  # shapes of x and y, transpose_x, transpose_y
    ((1, 1), (1, 1), False, False),
    ((5, 7), (7, 3), False, False),
    ((7, 5), (7, 3), True, False),
    ((5, 7), (3, 7), False, True),
    ((7, 5), (3, 7), True, True),
    ((65, 129), (129, 33), False, False),
    ((129, 65), (33, 129), True, True),
    ((1, 64), (64, 1), False, False),
    ((64, 1), (64, 1), True, False),
    ((7,), (7,), False, False),
    ((7,), (7, 3), False, False),
    ((7,), (3, 7), False, True),
    ((5, 7), (7,), False, False),
    ((7, 5), (7,), True, False),
    ((7,), (2, 7, 3), False, False),
    ((4, 5, 7), (7,), False, False),
    ((4, 5, 7), (7, 3), False, False),
    ((4, 7, 5), (7, 3), True, False),
    ((4, 5, 7), (3, 7), False, True),
    ((4, 1, 7), (7, 3), False, False),
    ((4, 7, 1), (7, 3), True, False),
    ((4, 5, 7), (4, 7, 3), False, False),
    ((4, 5, 7), (1, 7, 3), False, False),
    ((1, 5, 7), (4, 3, 7), False, True),
    ((5, 7), (4, 7, 3), False, False),
    ((2, 1, 5, 7), (3, 7, 2), False, False),
    ((2, 3, 7, 5), (2, 1, 2, 7), True, True),
    ((2, 1, 5, 7), (1, 3, 7, 4), False, False),
    ((3, 1, 2, 5, 7), (2, 1, 7, 4), False, False),
    ((0, 5), (5, 3), False, False),
    ((4, 0), (0, 3), False, False),
    ((0, 4, 5), (5, 3), False, False),
]
ADDS = [
    ((), ()),
    ((1,), (1,)),
    ((7,), (7,)),
    ((7,), ()),
    ((3, 5), (5,)),
    ((5,), (3, 5)),
    ((3, 5), (3, 1)),
    ((3, 1), (1, 5)),
    ((2, 3, 5), (3, 1)),
    ((2, 1, 5, 1), (3, 1, 7)),
    ((2, 3, 4, 5), (1, 3, 1, 5)),
    ((1, 3, 1, 5), (2, 3, 4, 5)),
    ((600, 300), (300,)),
    ((600, 300), (600, 1)),
    ((257, 129), (257, 129)),
    ((300, 2, 300), (300, 1, 300)),
    ((1, 1), (100000, 1)),
    ((0, 3), (1, 3)),
    ((0, 3), (3,)),
]


@pytest.fixture(scope="module", autouse=True)
def loaded():
    return kernels.load()


@pytest.fixture(params=["native", "float32"])
def path(request):
    """Both ways of computing a product."""
    if request.param == "native":
        if not this_cpu().avx512:
            pytest.skip("this processor has no AVX-512, which oneDNN needs for bfloat16")
        with kernels.forced_bfloat16():
            yield
    else:
        with kernels.forced_float32():
            yield


def random(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(BF16)


def tensor(array, gradient=False):
    result = from_numpy(np.ascontiguousarray(array).reshape(array.shape).copy())
    result.stop_gradient = not gradient
    return result


def wide(array):
    return array.astype(np.float64)


def float64(array):
    """The same numbers as a float64 tensor, with gradient."""
    return paddle.to_tensor(wide(array), stop_gradient=False)


def close(got, exact, magnitude, terms):
    """One rounding to bfloat16, and float32 rounding in a sum of ``terms`` products."""
    assert got.dtype == paddle.bfloat16 and tuple(got.shape) == tuple(exact.shape)
    bound = HALF_ULP * np.abs(exact) + (terms + 2) * FLOAT * magnitude + 1e-38
    error = np.abs(wide(as_numpy(got)) - exact)
    assert np.all(error <= bound), float(np.max(error / bound))


def test_what_is_registered(loaded):
    names = ("add", "add_grad", "matmul", "matmul_grad")
    assert set(loaded.kernels) >= {f"{name}[bfloat16]" for name in names}
    assert loaded.loaded and loaded.origin in ("prebuilt", "compiled")
    assert kernels.load() is loaded and kernels.status() is loaded
    assert "matmul[bfloat16]" in str(loaded)


def operands(x, y, tx, ty):
    """The two batches of matrices that matmul multiplies."""
    a = x[None] if x.ndim == 1 else x.swapaxes(-1, -2) if tx else x
    b = y[:, None] if y.ndim == 1 else y.swapaxes(-1, -2) if ty else y
    return a, b


def sum_to(array, shape):
    """The sum over the dimensions that ``shape`` lacks or has of size 1."""
    array = array.sum(axis=tuple(range(array.ndim - len(shape))))
    ones = tuple(i for i, n in enumerate(shape) if n == 1)
    return array.sum(axis=ones, keepdims=True)


def matmul_reference(x, y, tx, ty):
    a, b = operands(x, y, tx, ty)
    out = a @ b
    shape = out.shape[:-2] + (out.shape[-2:-1] if x.ndim > 1 else ())
    return out.reshape(shape + (out.shape[-1:] if y.ndim > 1 else ()))


def gradients_reference(x, y, tx, ty, dout):
    a, b = operands(x, y, tx, ty)
    d = dout.reshape((a @ b).shape)
    da, db = d @ b.swapaxes(-1, -2), a.swapaxes(-1, -2) @ d
    dx = da.swapaxes(-1, -2) if tx and x.ndim > 1 else da
    dy = db.swapaxes(-1, -2) if ty and y.ndim > 1 else db
    return (
        sum_to(dx, (1, *x.shape) if x.ndim == 1 else x.shape).reshape(x.shape),
        sum_to(dy, (*y.shape, 1) if y.ndim == 1 else y.shape).reshape(y.shape),
    )


@pytest.mark.parametrize(("x_shape", "y_shape", "tx", "ty"), MATMULS)
def test_matmul(x_shape, y_shape, tx, ty, path):
    x, y = random(x_shape, 0), random(y_shape, 1)
    exact = matmul_reference(wide(x), wide(y), tx, ty)
    size = matmul_reference(np.abs(wide(x)), np.abs(wide(y)), tx, ty)
    close(paddle.matmul(tensor(x), tensor(y), tx, ty), exact, size, terms=200)


@pytest.mark.parametrize(("x_shape", "y_shape", "tx", "ty"), MATMULS)
def test_matmul_gradients(x_shape, y_shape, tx, ty, path):
    x, y = random(x_shape, 2), random(y_shape, 3)
    dout = random(matmul_reference(wide(x), wide(y), tx, ty).shape, 4)
    ours = [tensor(x, True), tensor(y, True)]
    got = paddle.grad(paddle.matmul(*ours, tx, ty), ours, tensor(dout))
    exact = gradients_reference(wide(x), wide(y), tx, ty, wide(dout))
    arrays = [np.abs(wide(array)) for array in (x, y, dout)]
    sizes = gradients_reference(*arrays[:2], tx, ty, arrays[2])
    for gradient, value, size in zip(got, exact, sizes, strict=True):
        close(gradient, value, size, terms=200)


@pytest.mark.parametrize(
    ("x_shape", "y_shape"),
    [((5, 7), (6, 3)), ((7,), (6,)), ((4, 5, 7), (3, 7, 2)), ((2, 4, 5, 7), (3, 7, 2))],
)
def test_shapes_that_do_not_fit(x_shape, y_shape):
    with pytest.raises(ValueError, match="matmul|match|dim|shape|mismatch|broadcast"):
        paddle.matmul(tensor(random(x_shape, 0)), tensor(random(y_shape, 1)))
    with pytest.raises(ValueError):
        tensor(random((5, 7), 0)) + tensor(random((5, 6), 0))


@pytest.mark.parametrize("stop", ["x", "y"])
def test_one_gradient_only(stop):
    x, y = tensor(random((5, 7), 0), stop != "x"), tensor(random((7, 3), 1), stop != "y")
    paddle.matmul(x, y).sum().backward()
    (x + y[:5, :1]).sum().backward()
    assert (x.grad is None) == (stop == "x") and (y.grad is None) == (stop == "y")


@pytest.mark.parametrize(("x_shape", "y_shape"), ADDS)
def test_add_is_exactly_rounded(x_shape, y_shape):
    x, y = random(x_shape, 0), random(y_shape, 1)
    out = paddle.add(tensor(x), tensor(y))
    expected = (x.astype(np.float32) + y.astype(np.float32)).astype(BF16)
    assert tuple(out.shape) == expected.shape
    assert as_numpy(out).tobytes() == expected.tobytes()


def test_add_of_extremes():
    """Ties, denormals, overflow, infinities, NaN: every pair of the chosen bit patterns."""
    bits = [0, 1, 2, 0x7F, 0x80, 0x3F80, 0x3F81, 0x3B80, 0x3B81, 0x7F7F, 0x7F80, 0x7FC0, 0x7FFF]
    values = np.array(bits + [b | 0x8000 for b in bits], np.uint16).view(BF16)
    x, y = np.repeat(values, len(values)), np.tile(values, len(values))
    x, y = np.tile(x, 9), np.tile(y, 9)  # whole vectors and a remainder
    with np.errstate(all="ignore"):
        expected = (x.astype(np.float32) + y.astype(np.float32)).astype(BF16)
    got = as_numpy(tensor(x) + tensor(y))
    nan = np.isnan(expected.astype(np.float32))
    assert np.array_equal(np.isnan(got.astype(np.float32)), nan)
    assert got[~nan].tobytes() == expected[~nan].tobytes()


@pytest.mark.parametrize(("x_shape", "y_shape"), ADDS)
def test_add_gradients(x_shape, y_shape):
    x, y = random(x_shape, 0), random(y_shape, 1)
    dout = random(np.broadcast_shapes(x_shape, y_shape), 2)

    def gradients(x, y, dout):
        return paddle.grad(x + y, [x, y], dout)

    got = gradients(tensor(x, True), tensor(y, True), tensor(dout))
    exact = gradients(float64(x), float64(y), paddle.to_tensor(wide(dout)))
    sizes = gradients(float64(x), float64(y), paddle.to_tensor(np.abs(wide(dout))))
    for ours, theirs, size in zip(got, exact, sizes, strict=True):
        close(ours, theirs.numpy(), size.numpy(), terms=1000)


def test_views_and_in_place():
    x, y = random((6, 4), 0), random((4, 6), 1)
    expected = (x.astype("f") + y.T.astype("f")).astype(BF16)
    out = tensor(x) + tensor(y).t()
    assert as_numpy(out).tobytes() == np.ascontiguousarray(expected).tobytes()
    product = paddle.matmul(tensor(x).t(), tensor(y).t())
    close(product, wide(x).T @ wide(y).T, np.abs(wide(x).T) @ np.abs(wide(y).T), terms=6)
    inplace = tensor(x)
    inplace.add_(tensor(y).t().contiguous())
    assert as_numpy(inplace).tobytes() == np.ascontiguousarray(expected).tobytes()


def test_gradients_accumulate():
    x = tensor(random((3, 5), 0), True)
    ((x + x) + (x + x[:1])).sum().backward()
    first = np.full((3, 5), 3.0)
    first[0] += 3
    assert np.array_equal(wide(as_numpy(x.grad)), first)


def layer():
    paddle.seed(5)
    net = paddle.nn.Sequential(paddle.nn.Linear(16, 32), paddle.nn.Linear(32, 8))
    return net.to(dtype="bfloat16")


def test_layers_train_and_static_equals_eager():
    x = random((4, 16), 0)
    eager, static = layer(), layer()
    compiled = paddle.jit.to_static(
        static, full_graph=True, input_spec=[paddle.static.InputSpec([None, 16], "bfloat16")]
    )
    for net in (eager, compiled):
        out = net(tensor(x))
        assert out.dtype == paddle.bfloat16
        out.sum().backward()
    for ours, theirs in zip(eager.parameters(), static.parameters(), strict=True):
        assert ours.grad.dtype == paddle.bfloat16
        assert as_numpy(ours.grad).tobytes() == as_numpy(theirs.grad).tobytes()
        assert np.abs(wide(as_numpy(ours.grad))).max() > 0


def test_any_number_of_threads():
    """Sums do not depend on it, nor does anything else."""
    x, y, bias = random((512, 300), 0), random((300, 200), 1), random((200,), 2)
    dout = tensor(random((512, 200), 3))
    results, usual = [], openmp_threads()
    try:
        for threads in (1, 2, 3):
            paddle.base.core.set_num_threads(threads)
            operands = [tensor(a, True) for a in (x, y, bias)]
            out = paddle.matmul(operands[0], operands[1]) + operands[2]
            grads = paddle.grad(out, operands, dout)
            results.append([as_numpy(t).tobytes() for t in (out, grads[2])])
    finally:
        paddle.base.core.set_num_threads(usual)
    assert results[0] == results[1] == results[2]


def run(code, **variables):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=dict(os.environ) | variables,
        capture_output=True,
        text=True,
        timeout=1200,  # compiling takes 40 seconds of processor time, which others may have
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_float32_stays_and_threads_are_paddles_own():
    """Loading changes no float32 result, and the kernels start no threads besides Paddle's."""
    code = """
import os, paddle
from oarlock.native.paddle import accelerate, kernels
accelerate(2)
a = paddle.randn([600, 600])
def float32():
    b = paddle.to_tensor(a.numpy(), stop_gradient=False)
    c = paddle.matmul(b, a) + b
    return c.numpy().tobytes() + paddle.grad(c.sum(), b)[0].numpy().tobytes()
before, threads = float32(), len(os.listdir("/proc/self/task"))
kernels.load()
h = a.astype("bfloat16")
h.stop_gradient = False
((paddle.matmul(h, h) + h) + h[0]).sum().backward()
print(before == float32(), len(os.listdir("/proc/self/task")) - threads)
"""
    assert run(code) == ["True", "0"]


def test_compiled_on_demand(tmp_path):
    """Without a prebuilt library: compiled once into the cache, then found there."""
    code = """
import paddle
from oarlock.native.paddle import _build, kernels
_build.prebuilt = lambda: None
status = kernels.load()
a = paddle.ones([3, 3]).astype("bfloat16")
print(status.origin, status.library, (paddle.matmul(a, a) + a).astype("float32").sum().item())
"""
    origin, library, total = run(code, XDG_CACHE_HOME=str(tmp_path))
    assert origin == "compiled" and library.startswith(str(tmp_path)) and float(total) == 36
    stamp = os.stat(library).st_mtime_ns
    assert run(code, XDG_CACHE_HOME=str(tmp_path), CXX="g++")[1] == library
    assert os.stat(library).st_mtime_ns == stamp


@pytest.fixture
def not_loaded(monkeypatch):
    monkeypatch.setattr(kernels, "_loaded", None)


def test_another_version_is_refused(monkeypatch, not_loaded):
    needed = kernels.status().needs
    monkeypatch.setattr(paddle, "__version__", "3.2.2")
    with pytest.raises(kernels.KernelsUnavailable, match=rf"{needed}.*3\.2\.2"):
        kernels.load()
    assert not kernels.status().loaded and "not loaded" in str(kernels.status())


def test_other_machines_are_refused(monkeypatch, not_loaded):
    monkeypatch.setattr(kernels.platform, "machine", lambda: "aarch64")
    with pytest.raises(kernels.KernelsUnavailable, match="x86-64, not linux aarch64"):
        kernels.load()


def test_gpu_builds_are_refused(monkeypatch, not_loaded):
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    with pytest.raises(kernels.KernelsUnavailable, match="CPU build"):
        kernels.load()


@pytest.mark.parametrize(
    ("compiler", "message"),
    [("no-such-compiler", "CXX"), ("false", "compiling the kernels failed")],
)
def test_no_compiler(monkeypatch, not_loaded, tmp_path, compiler, message):
    monkeypatch.setattr(_build, "prebuilt", lambda: None)
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(kernels.KernelsUnavailable, match=message):
        kernels.load()
    assert not list(tmp_path.rglob("*.so"))
