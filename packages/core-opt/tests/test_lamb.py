"""LAMB beside Paddle's own, and what its trust ratio promises."""

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim
from oarlock.core_opt.optim.reference import STEPS

PATHS = pytest.mark.parametrize("path", ["native", "paddle"])


def train(model, optimizer, grads, backward):
    for grad in grads:
        backward(model, grad)
        optimizer.step()


def values(model):
    return np.concatenate([p.astype("float32").numpy().ravel() for p in model.parameters()])


@PATHS
@pytest.mark.parametrize("always_adapt", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_equals_paddles_lamb(path, always_adapt, decay, problem, gradients, backward):
    """With Paddle's exclusion of vectors, which by default switches their scaling off too."""
    model, twin = problem(), problem()
    vectors = {model.gain.name, model.scalar.name}
    ours = optim.Lamb(
        0.02, parameters=model.parameters(), weight_decay=decay, always_adapt=always_adapt,
        apply_decay_param_fun=lambda name: name not in vectors, path=path,
    )  # fmt: skip
    theirs = paddle.optimizer.Lamb(
        0.02, parameters=twin.parameters(), lamb_weight_decay=decay, always_adapt=always_adapt,
        exclude_from_weight_decay_fn=lambda parameter: parameter.name in vectors,
    )  # fmt: skip
    for grad in gradients(model, 20):
        for network, optimizer in ((model, ours), (twin, theirs)):
            backward(network, grad)
            optimizer.step()
    np.testing.assert_allclose(values(model), values(twin), rtol=2e-5, atol=2e-6)


@PATHS
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_step_moves_by_the_learning_rate_times_the_norm(
    path, scale, problem, gradients, backward
):
    model = problem()
    optimizer = optim.Lamb(0.125, parameters=model.parameters(), path=path)
    for grad in gradients(model, 5, scale=scale):
        before = {key: p.numpy().copy() for key, p in model.named_parameters()}
        backward(model, grad)
        optimizer.step()
        for key, parameter in model.named_parameters():
            moved = np.linalg.norm(parameter.numpy() - before[key])
            np.testing.assert_allclose(moved, 0.125 * np.linalg.norm(before[key]), rtol=1e-5)


@PATHS
def test_without_decay_it_is_adam_unless_always_adapted(path, problem, gradients, backward):
    model, twin, third = problem(), problem(), problem()
    options = {"weight_decay": 0.0, "epsilon": 1e-6, "path": path}
    lamb = optim.Lamb(0.02, parameters=model.parameters(), **options)
    adam = optim.AdamW(0.02, parameters=twin.parameters(), **options)
    adapted = optim.Lamb(0.02, parameters=third.parameters(), always_adapt=True, **options)
    for network, optimizer in ((model, lamb), (twin, adam), (third, adapted)):
        train(network, optimizer, gradients(network, 5), backward)
    np.testing.assert_allclose(values(model), values(twin), rtol=1e-6, atol=1e-7)
    assert np.abs(values(third) - values(twin)).max() > 0.01


@PATHS
def test_max_trust_ratio_equals_the_reference(path, problem, gradients, backward):
    model = problem()
    options = {**optim.info("lamb").defaults, "max_trust_ratio": 0.8, "weight_decay": 0.1}
    optimizer = optim.Lamb(
        0.02, parameters=model.parameters(), max_trust_ratio=0.8, weight_decay=0.1, path=path
    )
    grads = gradients(model, 20)
    for key, parameter in model.named_parameters():
        expected, free, state, other = (parameter.numpy().astype("float64"),) * 2 + ({}, {})
        for number, grad in enumerate(grads, 1):
            both = {"step": number, "lr": 0.02, "role": None}
            grad = grad[key].astype("float64")
            expected = STEPS["lamb"](expected, grad, state, options=options, **both)
            unlimited = {**options, "max_trust_ratio": None}
            free = STEPS["lamb"](free, grad, other, options=unlimited, **both)
        if key == "matrix":
            assert np.abs(expected - free).max() > 0.01  # the limit was reached
        parameter.expected = expected
    train(model, optimizer, grads, backward)
    for parameter in model.parameters():
        np.testing.assert_allclose(parameter.numpy(), parameter.expected, rtol=2e-5, atol=2e-6)


def test_biases_that_start_at_zero_take_adams_step():
    layer = paddle.nn.Linear(4, 3)
    optimizer = optim.Lamb(0.02, parameters=layer.parameters())
    layer(paddle.ones([2, 4])).sum().backward()
    optimizer.step()
    np.testing.assert_allclose(layer.bias.numpy(), -0.02, rtol=1e-5)


def test_a_shard_is_refused_unless_it_is_not_scaled(problem):
    model = problem()
    model.matrix.is_distributed = True
    with pytest.raises(ValueError, match="is sharded.*update it with AdamW"):
        optim.Lamb(parameters=model.parameters())
    with pytest.raises(ValueError, match="is sharded"):
        optim.Lamb(parameters=model.parameters(), weight_decay=0.0, always_adapt=True)
    optim.Lamb(
        parameters=model.parameters(), apply_decay_param_fun=lambda name: name != model.matrix.name
    )
