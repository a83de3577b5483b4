"""Sparse layers in the place of dense ones: functions, gradients, what an optimiser touches."""

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim, sparse
from oarlock.core_opt.sparse import MaskedLinear, SparseLinear
from paddle import nn

PATHS = ("native", "paddle")


def linear(rows=32, columns=48, seed=0, bias=True):
    paddle.seed(seed)
    layer = nn.Linear(rows, columns, bias_attr=None if bias else False)
    if bias:
        layer.bias.set_value(paddle.randn([columns]))
    return layer


def mask_of(shape, density=0.4, seed=0):
    return np.random.default_rng(seed).random(shape) < density


BLOCKS = [None, (16, 16), (8, 4)]
each_block = pytest.mark.parametrize("block", BLOCKS)
each_path = pytest.mark.parametrize("path", PATHS)


def grid(block):
    return (32, 48) if block is None else (32 // block[0], 48 // block[1])


@each_block
@each_path
@pytest.mark.parametrize("bias", [False, True])
def test_sparse_linear_is_the_masked_dense_layer(block, path, bias):
    dense, mask = linear(bias=bias), mask_of(grid(block))
    layer = SparseLinear.from_linear(dense, block=block, mask=mask, path=path)
    full = mask if block is None else np.kron(mask, np.ones(block, bool))
    dense.weight.set_value(dense.weight * paddle.to_tensor(full.astype("float32")))
    x = paddle.randn([3, 5, 32])
    np.testing.assert_allclose(layer(x).numpy(), dense(x).numpy(), atol=1e-5)
    np.testing.assert_array_equal(layer.to_linear().weight.numpy(), dense.weight.numpy())
    np.testing.assert_allclose(layer.to_linear()(x).numpy(), dense(x).numpy(), atol=1e-5)
    assert [p.size for p in layer.parameters()] == [int(full.sum())] + [48] * bias


@each_path
def test_an_optimiser_steps_only_what_is_kept(path):
    layer = SparseLinear.from_linear(linear(), block=(16, 16), mask=mask_of((2, 3)), path=path)
    before = layer.to_linear().weight.numpy()
    optimizer = optim.AdamW(learning_rate=0.1, parameters=layer.parameters())
    paddle.square(layer(paddle.randn([7, 32]))).mean().backward()
    optimizer.step()
    after = layer.to_linear().weight.numpy()
    assert np.array_equal(before == 0, after == 0)
    assert (before[before != 0] != after[before != 0]).all()


def test_a_sparse_layer_s_state_is_loaded():
    mask = mask_of((2, 3))
    first = SparseLinear.from_linear(linear(seed=0), block=(16, 16), mask=mask)
    second = SparseLinear.from_linear(linear(seed=1), block=(16, 16), mask=mask)
    second.set_state_dict(first.state_dict())
    x = paddle.randn([3, 32])
    np.testing.assert_array_equal(first(x).numpy(), second(x).numpy())


@each_block
@pytest.mark.parametrize("dense_gradient", [False, True])
def test_masked_linear_on_both_paths(block, dense_gradient):
    results = []
    for path in PATHS:
        layer = MaskedLinear.from_linear(linear(), block=block, path=path)
        layer.set_mask(mask_of(grid(block)))
        layer.dense_gradient = dense_gradient
        x = paddle.to_tensor(
            np.random.default_rng(0).standard_normal((3, 5, 32)), "float32", stop_gradient=False
        )
        y = layer(x)
        paddle.square(y).sum().backward()
        found = [y, x.grad, layer.weight.grad, layer.bias.grad]
        results.append([one.numpy() for one in found])
        outside = ~layer.element_mask().numpy()
        assert not layer.weight.numpy()[outside].any()
        assert layer.weight.grad.numpy()[outside].any() == dense_gradient
    for ours, wanted in zip(*results):
        np.testing.assert_allclose(ours, wanted, atol=1e-3)


def test_masked_linear_multiplies_by_what_the_optimiser_made_of_the_weight():
    layer = MaskedLinear.from_linear(linear(), block=(16, 16), path="native")
    layer.set_mask(mask_of((2, 3)))
    x = paddle.randn([3, 32])
    layer(x)
    layer.weight.set_value(layer.weight + 1.0)  # also outside of the mask, where it does not count
    weight = layer.weight * layer.element_mask().astype("float32")
    wanted = paddle.matmul(x, weight) + layer.bias
    np.testing.assert_allclose(layer(x).numpy(), wanted.numpy(), atol=1e-4)


def test_a_loaded_mask_counts():
    first, second = (MaskedLinear.from_linear(linear(), block=(16, 16)) for _ in range(2))
    x = paddle.randn([3, 32])
    second(x)
    first.set_mask(mask_of((2, 3)))
    second.set_state_dict(first.state_dict())
    np.testing.assert_array_equal(first(x).numpy(), second(x).numpy())


def test_replacing_and_freezing_keeps_the_function():
    model = nn.Sequential(linear(), nn.ReLU(), nn.Sequential(linear(48, 16), linear(16, 16)))
    x = paddle.randn([4, 32])
    wanted = model(x).numpy()
    names = sparse.replace_linear(model, block=(16, 16), where="^(0|2.0)$")
    assert names == ["0", "2.0"] and type(model[2][1]) is nn.Linear
    np.testing.assert_allclose(model(x).numpy(), wanted, atol=1e-5)
    model[0].set_mask(mask_of((2, 3)))
    wanted = model(x).numpy()
    assert sparse.freeze_masks(model) == ["0", "2.0"]
    assert isinstance(model[0], SparseLinear)
    np.testing.assert_allclose(model(x).numpy(), wanted, atol=1e-5)


def test_what_is_refused():
    model = nn.Sequential(linear(), nn.Linear(48, 5))
    with pytest.raises(ValueError, match="block must divide the matrix of 48 x 5"):
        sparse.replace_linear(model, block=(16, 16))
    assert type(model[0]) is nn.Linear  # nothing was changed
    with pytest.raises(ValueError, match="no Linear that is chosen"):
        sparse.replace_linear(model, where="head")
    with pytest.raises(ValueError, match="no MaskedLinear"):
        sparse.freeze_masks(model)
    with pytest.raises(ValueError, match="weight must be one of csr"):
        SparseLinear(model[0])
    with pytest.raises(ValueError, match=r"mask must be bool of shape \[2, 3\]"):
        MaskedLinear(32, 48, block=(16, 16)).set_mask(np.ones((2, 2), bool))
    with pytest.raises(ValueError, match='path="native" takes float32'):
        layer = MaskedLinear(32, 48, path="native")
        layer.to(dtype="float64")
        layer(paddle.randn([2, 32]).astype("float64"))
    with pytest.raises(ValueError, match="bias has shape"):
        SparseLinear(sparse.CSR.from_dense(paddle.ones([2, 3])), paddle.ones([2]))


def test_optimisers_know_the_weights():
    model = nn.Sequential(sparse.MaskedLinear(32, 16, block=(16, 16)), nn.ReLU(), nn.Linear(16, 16))
    roles = optim.roles(model)
    assert roles["0.weight"] is optim.Role.HIDDEN_MATRIX and roles["0.bias"] is optim.Role.VECTOR
    model[0] = sparse.SparseLinear.from_linear(model[0], block=(16, 16))
    assert optim.roles(model)["0.values"] is optim.Role.VECTOR
