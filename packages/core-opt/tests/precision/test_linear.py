"""The linear layer with a format for each product, against Paddle's and a NumPy rounding."""

import ml_dtypes
import numpy as np
import paddle
import pytest
from oarlock.core_opt.precision import FORMATS, Formats, linear, linears
from oarlock.core_opt.precision import plain
from paddle import nn

#: Largest relative error of a product of random operands, by format.
ERROR = {
    "fp32": 1e-6,
    "int16": 4e-4,
    "fp16": 1e-3,
    "bf16": 6e-3,
    "int8": 2e-2,
    "int8_block": 2e-2,
    "fp8": 7e-2,
}


def rounded(x: np.ndarray, kernel_format: str, axis: int, block: int | None) -> np.ndarray:
    """What NumPy makes of the definition: scales by the largest magnitude along the reduction."""
    if block is not None:
        cuts = range(block, x.shape[axis], block)
        parts = [rounded(part, kernel_format, axis, None) for part in np.split(x, cuts, axis)]
        return np.concatenate(parts, axis)
    types = {
        "fp16": np.float16,
        "bf16": ml_dtypes.bfloat16,
        "fp8_e4m3": ml_dtypes.float8_e4m3fn,
        "fp8_e5m2": ml_dtypes.float8_e5m2,
    }
    if kernel_format in ("fp16", "bf16"):
        return x.astype(types[kernel_format]).astype(np.float32)
    largest = {"int8": 127, "int16": 5792, "fp8_e4m3": 448, "fp8_e5m2": 57344}[kernel_format]
    most = np.abs(x).max(axis, keepdims=True)
    scale = np.where(most > 0, most / np.float32(largest), 1).astype(np.float32)
    codes = x / scale
    codes = np.rint(codes) if "int" in kernel_format else codes.astype(types[kernel_format])
    return codes.astype(np.float32) * scale


@pytest.mark.parametrize("kernel_format", plain.KERNEL_FORMATS)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("block", [None, 5])
def test_plain_rounding_is_numpys(kernel_format, axis, block):
    x = np.random.default_rng(0).standard_normal((7, 13)).astype(np.float32) * 3
    x[:, 4] = 0
    found = plain.rounded(paddle.to_tensor(x), kernel_format, axis, block).numpy()
    scaled = block if kernel_format in plain.LARGEST else None
    np.testing.assert_allclose(found, rounded(x, kernel_format, axis, scaled), rtol=1e-6)


@pytest.mark.parametrize("kernel_format", plain.KERNEL_FORMATS)
def test_plain_rounding_keeps_nan(kernel_format):
    x = paddle.to_tensor([[1.0, float("nan"), 2.0], [1.0, 2.0, 3.0]])
    found = plain.rounded(x, kernel_format, 1, None).numpy()
    assert np.isnan(found[0]).any() and np.isfinite(found[1]).all()


@pytest.fixture(name="operands")
def operands_fixture():
    rng = np.random.default_rng(1)

    def build(shape, outputs, dtype="float32"):
        x = paddle.to_tensor(rng.standard_normal(shape).astype(np.float32)).astype(dtype)
        weight = paddle.to_tensor(rng.standard_normal((shape[-1], outputs)).astype(np.float32))
        bias = paddle.to_tensor(rng.standard_normal(outputs).astype(np.float32))
        gradient = paddle.to_tensor(rng.standard_normal((*shape[:-1], outputs)).astype(np.float32))
        for one in (x, weight, bias):
            one.stop_gradient = False
        return x, weight, bias, gradient.astype(dtype)

    return build


def exact(x, weight, bias, gradient):
    """Output and gradients in float64, and for each the sizes of the terms that it sums."""
    x, weight, bias, gradient = (
        one.astype("float64").numpy() for one in (x, weight, bias, gradient)
    )
    rows, g = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    results = x @ weight + bias, gradient @ weight.T, rows.T @ g, g.sum(0)
    x, weight, rows, g, gradient = (np.square(one) for one in (x, weight, rows, g, gradient))
    sizes = x @ weight, gradient @ weight.T, rows.T @ g, g.sum(0)
    return [(true, np.sqrt(size.sum())) for true, size in zip(results, sizes)]


def relative(found, true_and_size):
    """Error over what independent terms would sum to, which cancellation does not make small."""
    true, size = true_and_size
    return np.linalg.norm(found.astype("float32").numpy() - true) / size


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("shape", [(9, 33), (2, 5, 160), (1, 1, 7)])
def test_output_and_gradients(name, native, shape, operands):
    x, weight, bias, gradient = operands(shape, 19)
    y = linear(x, weight, bias, formats=Formats(name, name, name), native=native)
    y.backward(gradient)
    found = y, x.grad, weight.grad, bias.grad
    for one, true in zip(found, exact(x, weight, bias, gradient)):
        assert one.shape == list(true[0].shape)
        assert relative(one, true) < ERROR[name]


@pytest.mark.parametrize("name", FORMATS)
def test_kernels_compute_what_plain_operators_do(name, operands):
    x, weight, bias, gradient = operands((3, 21, 300), 65)
    results = []
    for native in (True, False):
        for one in (x, weight, bias):
            one.clear_gradient(False)
        y = linear(x, weight, bias, formats=Formats(name, name, name), native=native)
        y.backward(gradient)
        results.append([one.numpy().copy() for one in (y, x.grad, weight.grad, bias.grad)])
    for kernel, plainly in zip(*results):
        difference = np.abs(kernel - plainly) / np.abs(plainly).max()
        # Near a tie, multiplying by 1 / scale and dividing by it may round to neighbouring codes.
        assert np.quantile(difference, 0.995) < 2e-5 and difference.max() < ERROR[name]


def test_each_product_has_its_own_format(operands):
    x, weight, bias, gradient = operands((8, 64), 32)
    true = exact(x, weight, bias, gradient)
    y = linear(x, weight, bias, formats=Formats(input_grad="int8"))
    y.backward(gradient)
    assert relative(y, true[0]) < 1e-6 and relative(weight.grad, true[2]) < 1e-6
    assert 1e-3 < relative(x.grad, true[1]) < ERROR["int8"]


def test_only_what_needs_a_gradient_gets_one(operands):
    x, weight, bias, gradient = operands((8, 64), 32)
    x.stop_gradient = bias.stop_gradient = True
    linear(x, weight, bias, formats=Formats("int8", "int8", "int8")).backward(gradient)
    assert x.grad is None and bias.grad is None and weight.grad is not None
    x.stop_gradient, weight.stop_gradient = False, True
    linear(x, weight, None, formats=Formats("int8", "int8", "int8")).backward(gradient)
    assert x.grad is not None


def test_bfloat16_activations_stay_bfloat16(operands):
    x, weight, bias, gradient = operands((4, 3, 64), 32, "bfloat16")
    y = linear(x, weight, bias, formats=Formats("int8", "int8", "int8"))
    y.backward(gradient)
    assert y.dtype == x.grad.dtype == paddle.bfloat16
    assert weight.grad.dtype == bias.grad.dtype == paddle.float32
    assert relative(weight.grad, exact(x, weight, bias, gradient)[2]) < ERROR["int8"]


def test_nan_reaches_the_output_and_gradients(operands):
    x, weight, bias, gradient = operands((4, 64), 8)
    with paddle.no_grad():
        x[1, 3] = float("nan")
    y = linear(x, weight, bias, formats=Formats("int8", "int8", "int8"))
    y.backward(gradient)
    assert np.isnan(y.numpy()[1]).all() and np.isfinite(np.delete(y.numpy(), 1, 0)).all()
    assert np.isnan(weight.grad.numpy()[3]).all()


@pytest.mark.parametrize("name", ["fp32", "int8", "bf16"])
def test_views_are_as_good_as_copies(name, operands):
    x, weight, bias, _ = operands((8, 30), 12)
    x, formats = x.detach(), Formats(name, name, name)
    views = x.t()[:, :8], x.reshape([8, 5, 6]).transpose([1, 2, 0]), x[:, ::2].t()
    for view in views:
        assert not view.is_contiguous()
        weight.clear_gradient(False)
        found = linear(view, weight[:8], bias, formats=formats)
        gradient = paddle.randn(found.shape[::-1]).transpose(range(found.ndim)[::-1])
        found.backward(gradient)
        grad = weight.grad.numpy().copy()
        weight.clear_gradient(False)
        expected = linear(paddle.assign(view), weight[:8], bias, formats=formats)
        expected.backward(paddle.assign(gradient))
        np.testing.assert_array_equal(found.numpy(), expected.numpy())
        np.testing.assert_array_equal(grad, weight.grad.numpy())


def test_everything_in_bfloat16(operands):
    x, weight, bias, gradient = (
        one.detach().astype("bfloat16") for one in operands((4, 3, 64), 32)
    )
    for one in (x, weight, bias):
        one.stop_gradient = False
    y = linear(x, weight, bias, formats=Formats("int8", "int8", "int8"))
    y.backward(gradient)
    assert y.dtype == weight.grad.dtype == bias.grad.dtype == paddle.bfloat16
    assert relative(weight.grad, exact(x, weight, bias, gradient)[2]) < ERROR["int8"]


def test_refuses_what_it_would_round_in_silence(operands):
    x, weight, _, _ = operands((4, 8), 6)
    with pytest.raises(ValueError, match="x must be float32.*float64"):
        linear(x.astype("float64"), weight)
    with pytest.raises(ValueError, match="weight must be float32.*float64"):
        linear(x, weight.astype("float64"))
    with pytest.raises(ValueError, match=r"\[4, 7\] does not fit a weight of shape \[8, 6\]"):
        linear(x[:, :7], weight)


def test_linears_leaves_out_layers_that_compute_otherwise(network):
    class Scaled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    network.scaled = Scaled(3, 3)
    names = [name for name, _ in linears(network)]
    assert names == ["blocks.0.0", "blocks.0.2", "blocks.1.0", "blocks.1.2", "head"]
