"""Lion: what its sign promises."""

import math

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim


def train(model, optimizer, grads, backward):
    for grad in grads:
        backward(model, grad)
        optimizer.step()


def test_paths_take_the_same_bits(problem, gradients, backward):
    """A sign that flips between the paths would move a parameter by two learning rates."""
    found = []
    for path in ("native", "paddle"):
        model = problem()
        optimizer = optim.Lion(0.02, parameters=model.parameters(), weight_decay=0.1, path=path)
        train(model, optimizer, gradients(model, 20), backward)
        found.append(b"".join(p.numpy().tobytes() for p in model.parameters()))
    assert found[0] == found[1]


@pytest.mark.parametrize("path", ["native", "paddle"])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_every_element_moves_by_the_learning_rate(path, scale, problem, gradients, backward):
    model = problem()
    optimizer = optim.Lion(0.125, parameters=model.parameters(), path=path)
    for grad in gradients(model, 5, scale=scale):
        before = model.matrix.numpy().copy()
        backward(model, grad)
        optimizer.step()
        np.testing.assert_allclose(np.abs(model.matrix.numpy() - before), 0.125, atol=1e-6)


@pytest.mark.parametrize("path", ["native", "paddle"])
def test_an_element_without_any_gradient_stays(path, problem, gradients, backward):
    model = problem()
    before = model.matrix.numpy().copy()
    optimizer = optim.Lion(0.02, parameters=model.parameters(), path=path)
    grads = gradients(model, 3)
    for grad in grads:
        grad["matrix"][2] = 0.0
    train(model, optimizer, grads, backward)
    moved = model.matrix.numpy() != before
    assert not moved[2].any() and moved[[0, 1, 3, 4, 5, 6]].all()


@pytest.mark.parametrize("path", ["native", "paddle"])
def test_momentum_outlives_the_direction(path):
    """The direction weighs the momentum by beta1, the momentum itself decays by beta2."""
    w = paddle.create_parameter([1], "float32")
    w.set_value(paddle.zeros([1]))
    optimizer = optim.Lion(1.0, beta1=0.5, beta2=0.75, parameters=[w], path=path)
    moves = []
    for grad in (1.0, -0.2, -0.2, -0.2):
        before = w.item()
        (w * grad).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
        moves.append(w.item() - before)
    # momenta 0, 0.25, 0.1375, 0.053: half of each against half of the gradient
    assert moves == [-1.0, -1.0, 1.0, 1.0]


@pytest.mark.parametrize("path", ["native", "paddle"])
def test_nan_let_through_reaches_its_element_only(path, problem, gradients, backward):
    model = problem()
    grad = gradients(model, 1)[0]
    grad["matrix"][1, 2], grad["matrix"][3, 3] = math.nan, -math.inf
    optimizer = optim.Lion(
        0.5, parameters=model.parameters(), nonfinite="propagate", path=path
    )  # fmt: skip
    before = model.matrix.numpy().copy()
    train(model, optimizer, [grad], backward)
    found = model.matrix.numpy()
    assert math.isnan(found[1, 2]) and np.isnan(found).sum() == 1
    np.testing.assert_allclose(found[3, 3], before[3, 3] + 0.5, rtol=1e-6)
