"""The operators by kernels are those of Paddle's own operators, gradients of gradients included."""

import numpy as np
import paddle
import pytest

from oarlock.sci_md import ops
from oarlock.sci_md.ops import fast, plain

RNG = np.random.default_rng


def tensor(*shape, seed=0, dtype="float64"):
    values = RNG(seed).standard_normal(shape).astype(dtype)
    return paddle.to_tensor(values, stop_gradient=False)


def numbers(count, below, seed=0):
    return paddle.to_tensor(RNG(seed).integers(0, below, count))


def everything(function, *given):
    """Value, gradient, and the gradient of the gradient's square."""
    out = function(*given)
    weights = paddle.to_tensor(RNG(9).standard_normal(out.shape).astype("float64"))
    total = (out.astype("float64") * weights).sum()
    first = paddle.grad([total], list(given), create_graph=True)
    again = paddle.grad(
        [sum(paddle.square(one).sum() for one in first)], list(given), allow_unused=True
    )
    return [one if one is None else one.numpy() for one in (out, *first, *again)]


def agree(kernel, composed, *given, zero=()):
    tolerance = 1e-11 if given[0].dtype == paddle.float64 else 3e-5
    for ours, wanted in zip(everything(kernel, *given), everything(composed, *given), strict=True):
        ours, wanted = (0.0 if one is None else one for one in (ours, wanted))
        np.testing.assert_allclose(ours, wanted, rtol=tolerance, atol=tolerance * 10)


each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


@each_dtype
@pytest.mark.parametrize("shape", [(), (3,), (2, 5)])
def test_gather_and_scatter_sum(shape, dtype):
    at = numbers(23, 7)
    for module in (fast, ops):
        agree(
            lambda x, module=module: module.gather(x, at) ** 2,
            lambda x: plain.gather(x, at) ** 2,
            tensor(7, *(shape or (1,)), dtype=dtype),
        )
        agree(
            lambda x, module=module: module.scatter_sum(x, at, 9) ** 2,
            lambda x: plain.scatter_sum(x, at, 9) ** 2,
            tensor(23, *shape, dtype=dtype),
        )


@each_dtype
@pytest.mark.parametrize("both", [0, 5, 20])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_convolve(both, channels, dtype):
    first, second = numbers(20, 6), numbers(20, 6, 1)
    agree(
        lambda x, w: fast.convolve(x, w, first, second, count=6, both=both),
        lambda x, w: plain.convolve(x, w, first, second, count=6, both=both),
        tensor(6, *channels, 19, dtype=dtype),
        tensor(20, 19, seed=1, dtype=dtype),
    )


@each_dtype
@pytest.mark.parametrize("name", ["shifted_softplus", "silu"])
def test_activation(name, dtype):
    # Paddle's softplus has no derivative of its second derivative, so its square is not taken.
    x, bias = tensor(8, 21, dtype=dtype), tensor(21, seed=1, dtype=dtype)
    agree(
        lambda x, b: fast.activation(x, name, b),
        lambda x, b: (
            paddle.log(0.5 * paddle.exp(x + b) + 0.5)
            if name == "shifted_softplus"
            else (x + b) / (1 + paddle.exp(-x - b))
        ),
        x,
        bias,
    )
    np.testing.assert_allclose(
        fast.activation(x, name).numpy(), plain.activation(x, name).numpy(), atol=1e-6
    )
    np.testing.assert_allclose(fast.silu(x).numpy(), plain.activation(x, "silu").numpy(), atol=1e-6)


@each_dtype
@pytest.mark.parametrize("hidden", [0, 13])
@pytest.mark.parametrize("basis, envelope", [("gaussian", "cosine"), ("bessel", "polynomial")])
def test_radial_filters(basis, envelope, hidden, dtype):
    """What training needs: a loss of forces, differentiated by the weights and the distances."""
    radial = ops.Radial(cutoff=5.0, basis=basis, width=0.5, envelope=envelope, activation="silu")
    parameters = paddle.to_tensor(np.linspace(0.6, 5, 8).astype(dtype))
    weights = [tensor(hidden or 8, 10, seed=1, dtype=dtype), tensor(10, seed=2, dtype=dtype)]
    if hidden:
        weights = [
            tensor(8, hidden, seed=3, dtype=dtype),
            tensor(hidden, seed=4, dtype=dtype),
            *weights,
        ]
    distances = paddle.to_tensor(RNG(5).uniform(1, 5.5, 70).astype(dtype), stop_gradient=False)
    results = []
    for module in (fast, plain):
        layers = list(zip(weights[::2], weights[1::2], strict=True))
        w = module.radial_filters(distances, radial, parameters, layers)
        energy = paddle.square(w).sum()
        (force,) = paddle.grad([energy], [distances], create_graph=True)
        for x in (distances, *weights):
            x.clear_gradient(set_to_zero=False)
        (paddle.square(force).mean() + energy).backward()
        results.append([x.numpy() for x in (w, force, *(y.grad for y in (distances, *weights)))])
    for ours, wanted in zip(*results, strict=True):
        scale = np.abs(wanted).max()
        tolerance = (1e-12 if dtype == "float64" else 2e-5) * scale
        np.testing.assert_allclose(ours, wanted, rtol=0, atol=tolerance)


def test_a_trained_basis_is_computed_plainly():
    radial = ops.Radial(cutoff=5.0, width=0.5)
    parameters = paddle.to_tensor(np.linspace(0, 5, 8), stop_gradient=False)
    distances = paddle.to_tensor(RNG(5).uniform(1, 5, 7), stop_gradient=False)
    fast.radial_filters(distances, radial, parameters, [(tensor(8, 3), tensor(3))]).sum().backward()
    assert np.abs(parameters.grad.numpy()).max() > 0


def test_traced_programs_are_plain_and_equal():
    first, second = numbers(20, 6), numbers(20, 6, 1)

    def function(x, w):
        y = ops.convolve(x, w, first, second, count=6)
        return ops.shifted_softplus(ops.scatter_sum(ops.gather(y, first), second, 6))

    x, w = tensor(6, 5, dtype="float32"), tensor(20, 5, seed=1, dtype="float32")
    traced = paddle.jit.to_static(function, full_graph=True)
    np.testing.assert_allclose(traced(x, w).numpy(), function(x, w).numpy(), atol=1e-5)
    program = str(traced.concrete_program.main_program)
    assert "index_add" in program and "py_layer" not in program.lower()
