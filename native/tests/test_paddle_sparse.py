"""Sparse products with gradients against Paddle's dense operators."""

import numpy as np
import pytest

paddle = pytest.importorskip("paddle")

from oarlock.native.paddle import sparse  # noqa: E402
from oarlock.native.reference import sparse as reference  # noqa: E402

RNG = np.random.default_rng


def normals(*shape, seed=0):
    return RNG(seed).standard_normal(shape).astype(np.float32)


def tensor(array, grad=True):
    return paddle.to_tensor(array, stop_gradient=not grad)


def pattern(rows, columns, density, seed=0):
    kept = RNG(seed).random((rows, columns)) < density
    pointers = np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(np.int32)
    return pointers, np.nonzero(kept)[1].astype(np.int32)


def close(found, wanted):
    scale = max(float(np.abs(wanted).max(initial=0)), 1.0)
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=0, atol=1e-5 * scale)


def bsr():
    pointers, indices = pattern(3, 4, 0.5)
    values = tensor(normals(len(indices), 16, 8))
    dense = reference.bsr_dense(pointers, indices, values.numpy(), 32)

    def apply(x):
        return sparse.bsr_linear(x, values, pointers, indices, columns=32)

    def kept(grad):
        return reference.bsr_sample(*grad, pointers, indices, block=(16, 8))

    return values, dense, apply, kept


def csr():
    pointers, indices = pattern(48, 32, 0.3)
    values = tensor(normals(len(indices)))
    dense = reference.csr_dense(pointers, indices, values.numpy(), 32)

    def apply(x):
        return sparse.csr_linear(x, values, pointers, indices, columns=32)

    def kept(grad):
        return reference.csr_sample(*grad, pointers, indices, transpose=True)

    return values, dense, apply, kept


def nm():
    codes = np.tile(np.array([[0], [3], [1], [2]], np.uint8), (6, 32))
    values = tensor(normals(24, 32))
    dense = reference.nm_dense(codes, values.numpy(), 48)

    def apply(x):
        return sparse.nm_linear(x, values, codes)

    def kept(grad):
        return reference.nm_sample(*grad, codes)

    return values, dense, apply, kept


each_format = pytest.mark.parametrize("build", [bsr, csr, nm])


@each_format
@pytest.mark.parametrize("lead", [(7,), (2, 5), (3, 1, 4), ()])
def test_linear_has_the_gradients_of_the_dense_product(build, lead):
    values, dense, apply, kept = build()
    x, weights = tensor(normals(*lead, 48, seed=1)), normals(*lead, 32, seed=2)
    y = apply(x)
    assert y.shape == [*lead, 32]
    (y * paddle.to_tensor(weights)).sum().backward()
    close(y.numpy(), x.numpy() @ dense)
    close(x.grad.numpy(), weights @ dense.T)
    close(values.grad.numpy(), kept((x.numpy().reshape(-1, 48), weights.reshape(-1, 32))))


@each_format
def test_linear_computes_only_the_gradients_that_are_asked_for(build):
    values, dense, apply, _ = build()
    frozen = tensor(normals(7, 48), grad=False)
    apply(frozen).sum().backward()
    assert frozen.grad is None and values.grad is not None
    values.stop_gradient, x = True, tensor(normals(7, 48))
    values.clear_gradient()
    apply(x).sum().backward()
    close(x.grad.numpy(), np.tile(dense.sum(1), (7, 1)))


@each_format
def test_linear_takes_views(build):
    _, dense, apply, _ = build()
    base = tensor(normals(48, 7))
    x = base.transpose([1, 0])
    y = apply(x)
    close(y.numpy(), base.numpy().T @ dense)
    y.transpose([1, 0]).sum().backward()
    close(base.grad.numpy(), np.tile(dense.sum(1)[:, None], (1, 7)))


@each_format
def test_linear_refuses_other_types(build):
    apply = build()[2]
    with pytest.raises(ValueError, match="x must be .* float32 on the CPU, not paddle.float64"):
        apply(tensor(normals(7, 48).astype(np.float64)))
    with pytest.raises(ValueError, match="needs|does not fit"):
        apply(tensor(normals(7, 44)))


def dense_ffn(x, w_in, w_out, b_in, threshold):
    z = paddle.matmul(x, w_in)
    z = z if b_in is None else z + b_in
    return paddle.matmul(paddle.square(paddle.nn.functional.relu(z - threshold)), w_out)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("threshold", [0.0, 1.5, 100.0])
def test_relu2_ffn_is_that_of_dense_layers(bias, threshold):
    arrays = [normals(2, 5, 12), normals(12, 70, seed=1), normals(70, 20, seed=2)]
    arrays += [normals(70, seed=3)] if bias else []
    weights = paddle.to_tensor(normals(2, 5, 20, seed=4))
    results = []
    for compute in (sparse.relu2_ffn, dense_ffn):
        given = [tensor(array) for array in arrays]
        b_in = given[3] if bias else None
        y = compute(*given[:3], b_in, threshold=threshold)
        (y * weights).sum().backward()
        results.append([y.numpy(), *(one.grad.numpy() for one in given)])
    for ours, wanted in zip(*results):
        assert ours.shape == wanted.shape
        close(ours, wanted)


def test_relu2_ffn_shows_nan():
    x = normals(3, 4)
    x[1, 2] = np.nan
    given = tensor(x), tensor(normals(4, 8)), tensor(normals(8, 5))
    y = sparse.relu2_ffn(*given)
    assert np.isnan(y.numpy()).all(1).tolist() == [False, True, False]
    y.sum().backward()
    assert np.isnan(given[1].grad.numpy()).all()


def test_relu2_ffn_in_a_training_loop_with_frozen_parts():
    x, w_in, w_out = tensor(normals(6, 4), False), tensor(normals(4, 8)), tensor(normals(8, 4))
    w_out.stop_gradient = True
    sparse.relu2_ffn(x, w_in, w_out).sum().backward()
    assert x.grad is None and w_out.grad is None and w_in.grad is not None


def test_skip_zeros_matmul_has_the_gradients_behind_a_squared_relu():
    results = []
    for product in (sparse.skip_zeros_matmul, paddle.matmul):
        z, w = tensor(normals(2, 5, 30)), tensor(normals(30, 20, seed=1))
        y = product(paddle.square(paddle.nn.functional.relu(z)), w)
        (y * paddle.to_tensor(normals(2, 5, 20, seed=2))).sum().backward()
        results.append([y.numpy(), z.grad.numpy(), w.grad.numpy()])
    for ours, wanted in zip(*results):
        close(ours, wanted)
