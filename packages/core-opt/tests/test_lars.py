"""LARS beside Paddle's own, and what its trust ratio promises."""

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


def paddles(before, grads, **options):
    """Parameters after the steps of Paddle's LARS, which has static graphs only."""
    paddle.enable_static()
    try:
        main, startup = paddle.static.Program(), paddle.static.Program()
        with paddle.utils.unique_name.guard(), paddle.static.program_guard(main, startup):
            weights, loss = {}, 0.0
            for key, value in before.items():
                weights[key] = paddle.static.create_parameter(
                    value.shape, "float32",
                    default_initializer=paddle.nn.initializer.Assign(value),
                )  # fmt: skip
                slope = paddle.static.data(key, value.shape, "float32")
                loss = loss + (weights[key] * slope).sum()
            optimizer = paddle.incubate.optimizer.LarsMomentumOptimizer(**options)
            optimizer.minimize(loss)
        executor = paddle.static.Executor(paddle.CPUPlace())
        executor.run(startup)
        for grad in grads:
            executor.run(main, feed=grad)
        found = executor.run(main, feed=grads[0], fetch_list=list(weights.values()))
        return dict(zip(weights, found))
    finally:
        paddle.disable_static()


@PATHS
def test_equals_paddles_lars(path, problem, gradients, backward):
    """Paddle scales every parameter that decays, vectors too."""
    model = problem()
    before = {key: p.numpy().copy() for key, p in model.named_parameters()}
    grads = gradients(model, 20)
    options = {"learning_rate": 8.0, "momentum": 0.9}
    expected = paddles(before, [*grads[:19]], lars_weight_decay=5e-4, **options)
    optimizer = optim.Lars(
        **options, weight_decay=5e-4, adapt_vectors=True, path=path, parameters=model.parameters()
    )
    # the run that fetches the parameters takes a step, along the first gradient
    train(model, optimizer, [*grads[:19], grads[0]], backward)
    for key, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.numpy(), expected[key], rtol=2e-5, atol=2e-6)
        assert np.abs(parameter.numpy() - before[key]).max() > 0.05


@PATHS
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nesterov": True, "weight_decay": 0.1},
        {"momentum": 0.0, "weight_decay": 0.1},
        {"adapt_vectors": True, "nesterov": True},
        {"trust_coefficient": 0.01, "momentum": 0.5},
    ],
    ids=str,
)
def test_equals_the_reference_at_large_rates(path, options, problem, gradients, backward):
    model = problem()
    defaults = {**optim.info("lars").defaults, **options}
    grads = gradients(model, 20)
    for grad in grads:  # vectors take the rate as it is
        grad["gain"], grad["scalar"] = grad["gain"] / 256, grad["scalar"] / 256
    expected = {}
    for key, parameter in model.named_parameters():
        found, state = parameter.numpy().astype("float64"), {}
        for number, grad in enumerate(grads, 1):
            found = STEPS["lars"](
                found, grad[key].astype("float64"), state,
                step=number, lr=8.0, role=None, options=defaults,
            )  # fmt: skip
        expected[key] = found
    optimizer = optim.Lars(8.0, parameters=model.parameters(), path=path, **options)
    train(model, optimizer, grads, backward)
    for key, parameter in model.named_parameters():
        size = np.sqrt(np.mean(expected[key] ** 2))
        assert np.abs(parameter.numpy() - expected[key]).max() < 2e-5 * size, key


@PATHS
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_first_step_is_a_share_of_the_norm_whatever_the_gradient(
    path, scale, problem, gradients, backward
):
    model = problem()
    optimizer = optim.Lars(125.0, parameters=model.parameters(), weight_decay=0.0, path=path)
    before = model.matrix.numpy().copy()
    train(model, optimizer, gradients(model, 1, scale=scale), backward)
    moved = np.linalg.norm(model.matrix.numpy() - before)
    np.testing.assert_allclose(moved, 0.125 * np.linalg.norm(before), rtol=1e-5)


@PATHS
@pytest.mark.parametrize("nesterov", [False, True])
def test_vectors_take_plain_momentum(path, nesterov, problem, gradients, backward):
    model, twin = problem(), problem()
    ours = optim.Lars(
        0.02, parameters=model.parameters(), weight_decay=0.0, nesterov=nesterov, path=path
    )
    theirs = paddle.optimizer.Momentum(
        0.02, parameters=twin.parameters(), momentum=0.9, use_nesterov=nesterov
    )
    for network, optimizer in ((model, ours), (twin, theirs)):
        train(network, optimizer, gradients(network, 10), backward)
    np.testing.assert_allclose(model.gain.numpy(), twin.gain.numpy(), rtol=1e-5, atol=1e-6)
    assert np.abs(model.matrix.numpy() - twin.matrix.numpy()).max() > 0.1


@PATHS
def test_weights_at_zero_leave_it(path):
    w = paddle.create_parameter([3, 2], "float32")
    w.set_value(paddle.zeros([3, 2]))
    optimizer = optim.Lars(0.5, parameters=[w], path=path)
    w.sum().backward()
    optimizer.step()
    np.testing.assert_allclose(w.numpy(), -0.5)


def test_nesterov_needs_momentum(problem):
    with pytest.raises(ValueError, match="nesterov=True needs momentum > 0"):
        optim.Lars(parameters=problem().parameters(), momentum=0.0, nesterov=True)


def test_shards_are_refused_unless_they_are_vectors_that_are_not_scaled(problem):
    model = problem()
    model.gain.is_distributed = True
    optim.Lars(parameters=model.parameters())
    with pytest.raises(ValueError, match="is sharded.*Gather it"):
        optim.Lars(parameters=model.parameters(), adapt_vectors=True)
    model.gain.is_distributed = False
    model.matrix.is_distributed = True
    with pytest.raises(ValueError, match="is sharded"):
        optim.Lars(parameters=model.parameters())
