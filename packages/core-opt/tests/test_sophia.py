"""Sophia-G: the estimate of the Gauss-Newton diagonal, its interval and its use."""

import math

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim
from oarlock.core_opt.optim.reference import sophia as reference
from oarlock.core_opt.optim.sophia import sampled_labels

PATHS = pytest.mark.parametrize("path", ["native", "paddle"])
cross_entropy = paddle.nn.functional.cross_entropy


def regression(tokens=12, features=3, classes=4, seed=0):
    """A softmax regression: its weight, inputs, and probabilities at that weight."""
    rng = np.random.default_rng(seed)
    layer = paddle.nn.Linear(features, classes, bias_attr=False)
    layer.weight.set_value(rng.standard_normal([features, classes]).astype("float32"))
    x = paddle.to_tensor(rng.standard_normal([tokens, features]).astype("float32"))
    probabilities = paddle.nn.functional.softmax(layer(x)).numpy().astype("float64")
    return layer, x, probabilities


# Labels -----------------------------------------------------------------------------------------


def test_labels_follow_the_softmax():
    logits = np.array([2.0, 0.0, -1.0, -math.inf, 1.0, -math.inf], "float32")
    drawn = sampled_labels(paddle.to_tensor(np.tile(logits, [100, 200, 1])), 3)
    assert drawn.shape == [100, 200] and drawn.dtype == paddle.int64 and drawn.stop_gradient
    expected = np.exp(logits) / np.exp(logits).sum()
    found = np.bincount(drawn.numpy().ravel(), minlength=6) / 20000
    sigma = np.sqrt(expected * (1 - expected) / 20000)
    assert (np.abs(found - expected) <= 4 * sigma).all()  # those at -inf never
    flat = sampled_labels(paddle.zeros([20000, 6]), 3).numpy()
    assert np.abs(np.bincount(flat, minlength=6) / 20000 - 1 / 6).max() < 4 * 0.00264


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_labels_repeat_by_seed(dtype):
    logits = paddle.to_tensor(np.random.default_rng(0).standard_normal([50, 9])).astype(dtype)
    first = sampled_labels(logits, 7).numpy()
    assert (first == sampled_labels(logits, 7).numpy()).all()
    assert (first != sampled_labels(logits, 8).numpy()).any()
    assert 0 <= first.min() and first.max() < 9
    assert not sampled_labels(logits[:, :1], 7).numpy().any()


def test_wrong_logits_are_refused():
    for wrong in (None, np.zeros([2, 3]), paddle.zeros([2, 3], dtype="int64")):
        with pytest.raises(ValueError, match="logits must be a floating tensor"):
            sampled_labels(wrong, 0)
    for wrong in (paddle.zeros([]), paddle.zeros([2, 0])):
        with pytest.raises(ValueError, match=r"shape \[..., classes\]"):
            sampled_labels(wrong, 0)
    with pytest.raises(ValueError, match="seed must be an integer >= 0"):
        sampled_labels(paddle.zeros([2, 3]), -1)


# The estimate -----------------------------------------------------------------------------------


def estimates(draw, path, count=600):
    """Hessians after one estimate each (beta2 = 0), [count, features, classes]; exact diagonal."""
    layer, x, p = regression()
    optimizer = optim.SophiaG(parameters=[layer.weight], beta2=0.0, path=path)
    found = []
    for number in range(count):
        logits = layer(x)
        labels = draw(logits, number)
        cross_entropy(logits, labels).backward()
        optimizer.update_hessian(labels.size)
        optimizer.clear_grad()
        found.append(optimizer.state_dict()[f"{layer.weight.name}_hessian_0"].numpy().copy())
    exact = (np.square(x.numpy()).T @ (p - p**2)) / len(p)
    return np.stack(found).astype("float64"), exact


@PATHS
def test_the_estimate_is_unbiased(path):
    found, exact = estimates(sampled_labels, path)
    error = found.mean(axis=0) - exact
    sigma = found.std(axis=0) / math.sqrt(len(found))
    assert np.abs(error / sigma).max() < 4
    assert found.mean(axis=0).sum() == pytest.approx(exact.sum(), rel=0.05)


def test_labels_from_elsewhere_would_show():
    def uniform(logits, seed):
        return sampled_labels(paddle.zeros_like(logits), seed)

    found, exact = estimates(uniform, None)
    sigma = found.std(axis=0) / math.sqrt(len(found))
    assert np.abs((found.mean(axis=0) - exact) / sigma).max() > 10


@PATHS
@pytest.mark.parametrize("gamma", [0.3, 30.0], ids=["some clipped", "few clipped"])
def test_equals_reference_with_estimates(path, gamma, problem, gradients, backward):
    model = problem()
    options = {**optim.info("sophia_g").defaults, "gamma": gamma, "beta2": 0.9}
    optimizer = optim.SophiaG(
        0.02, gamma=gamma, beta2=0.9, parameters=model.parameters(), path=path
    )
    expected = {key: p.numpy().astype("float64") for key, p in model.named_parameters()}
    states = {key: {} for key in expected}
    sampled = gradients(model, 4, seed=5, scale=0.3)
    clipped = []
    for number, grad in enumerate(gradients(model, 20)):
        if number % 5 == 0:
            backward(model, sampled[number // 5])
            optimizer.update_hessian(8)
            for key, state in states.items():
                estimate = sampled[number // 5][key].astype("float64")
                reference.update_hessian(estimate, state, num_tokens=8, options=options)
        backward(model, grad)
        optimizer.step()
        for key, value in expected.items():
            expected[key] = reference.step(
                value, grad[key].astype("float64"), states[key], step=number + 1, lr=0.02,
                role="vector", options=options,
            )  # fmt: skip
        state = states["matrix"]
        clipped.append(np.mean(np.abs(state["m"]) > gamma * state["h"]))
    assert 0.05 < np.mean(clipped) < 0.95  # both sides of the clip were tried
    for key, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.numpy(), expected[key], atol=2e-5)


@PATHS
def test_low_precision_takes_the_same_hessian(path, problem, gradients, backward):
    grads = gradients(problem(), 2)
    found = []
    for dtype, master in (("float32", False), ("bfloat16", False), ("float16", True)):
        model = problem(dtype)
        optimizer = optim.SophiaG(
            0.02, parameters=model.parameters(), multi_precision=master, path=path
        )
        for grad in grads:
            backward(model, grad)
            optimizer.update_hessian(16)
        state = optimizer.state_dict()
        hessians = [state[f"{p.name}_hessian_0"] for p in model.parameters()]
        assert all(h.dtype == paddle.float32 for h in hessians)
        found.append(np.concatenate([h.numpy().ravel() for h in hessians]))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-6)


@PATHS
def test_no_element_moves_by_more_than_the_learning_rate(path, problem, gradients, backward):
    model = problem()
    optimizer = optim.SophiaG(
        0.125, gamma=3.0, parameters=model.parameters(), weight_decay=0.0, path=path
    )
    backward(model, gradients(model, 1, seed=9)[0])
    optimizer.update_hessian(20)
    for grad in gradients(model, 5):
        before = model.matrix.numpy().copy()
        backward(model, grad)
        optimizer.step()
        moved = np.abs(model.matrix.numpy() - before)
        assert moved.max() <= 0.125 + 1e-6 and moved.min() < 0.1


def test_flat_directions_are_not_held_back_by_steep_ones():
    """A quadratic of condition 10^4 with its own diagonal: all directions shrink alike."""
    curvature = np.geomspace(1e-2, 1e2, 8).astype("float32")
    w = paddle.nn.Layer().create_parameter([8], attr=paddle.nn.initializer.Constant(1.0))
    optimizer = optim.SophiaG(
        0.05, beta1=0.0, beta2=0.0, gamma=1.0, weight_decay=0.0, parameters=[w]
    )
    for _ in range(100):
        if optimizer.hessian_due:
            (w * paddle.to_tensor(np.sqrt(curvature))).sum().backward()  # its square: the curvature
            optimizer.update_hessian(1)
            optimizer.clear_grad()
        (paddle.to_tensor(curvature) * paddle.square(w)).sum().scale(0.5).backward()
        optimizer.step()
        optimizer.clear_grad()
    np.testing.assert_allclose(w.numpy(), 0.95**100, rtol=1e-4)


def test_trains_by_the_loop_of_the_docstring():
    layer, x, _ = regression(tokens=64, features=6, classes=5)
    labels = sampled_labels(layer(x) * 3, seed=99)
    layer.weight.set_value(np.zeros([6, 5], "float32"))
    optimizer = optim.SophiaG(0.05, parameters=layer.parameters(), weight_decay=0.0)
    losses, estimated = [], []
    for number in range(60):
        if optimizer.hessian_due:
            estimated.append(number)
            logits = layer(x)
            sampled = sampled_labels(logits, seed=number)
            cross_entropy(logits, sampled).backward()
            optimizer.update_hessian(num_tokens=sampled.size)
            optimizer.clear_grad()
        loss = cross_entropy(layer(x), labels)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
    assert estimated == [0, 10, 20, 30, 40, 50]
    assert losses[-1] < 0.5 * losses[0]


# The interval -----------------------------------------------------------------------------------


def test_a_forgotten_estimate_is_refused_by_name(problem, gradients, backward):
    model = problem()
    optimizer = optim.SophiaG(0.02, parameters=model.parameters(), hessian_interval=3)
    grads = gradients(model, 1)[0]
    backward(model, grads)
    for _ in range(3):
        assert optimizer.hessian_due
        optimizer.step()
    before = model.matrix.numpy().copy()
    with pytest.raises(ValueError, match=r"\(7 in all\) was not estimated for 3 steps"):
        optimizer.step()
    with pytest.raises(ValueError, match="hessian_interval=None"):
        optimizer.minimize(paddle.zeros([]))
    assert (model.matrix.numpy() == before).all()
    optimizer.update_hessian(4)
    for _ in range(3):
        assert not optimizer.hessian_due
        optimizer.step()
    assert optimizer.hessian_due
    backward(model, {key: grads[key] for key in grads if key != "matrix"})
    optimizer.update_hessian(4)
    backward(model, grads)
    with pytest.raises(ValueError, match=f"'{model.matrix.name}' \\(1 in all\\)"):
        optimizer.step()


def test_an_estimate_that_missed_a_parameter_is_told_with_the_remedy(problem, gradients, backward):
    model = problem()
    optimizer = optim.SophiaG(0.02, parameters=model.parameters(), hessian_interval=2)
    grads = gradients(model, 1)[0]
    sampled = {key: grads[key] for key in grads if key != "gain"}

    def steps(count):
        backward(model, grads)
        for _ in range(count):
            optimizer.step()

    backward(model, sampled)
    optimizer.update_hessian(4)
    steps(2)
    backward(model, sampled)
    optimizer.update_hessian(4)
    message = f"'{model.gain.name}'.*had no gradient.*last update_hessian.*hessian_interval"
    with pytest.raises(ValueError, match=message):
        steps(1)
    backward(model, sampled)
    optimizer.update_hessian(4)
    with pytest.raises(ValueError, match=message):  # again, as nothing has changed
        steps(1)
    backward(model, grads)  # an estimate that reaches it is a remedy
    optimizer.update_hessian(4)
    steps(2)
    with pytest.raises(ValueError, match="Call update_hessian"):
        steps(1)  # none at all: the usual error
    kept = [p for p in model.parameters() if p is not model.gain]
    groups = [{"params": kept}, {"params": [model.gain], "hessian_interval": None}]
    optimizer = optim.SophiaG(0.02, parameters=groups, hessian_interval=2)
    for _ in range(3):  # the remedy of the message
        backward(model, sampled)
        optimizer.update_hessian(4)
        assert not optimizer.hessian_due
        steps(2)


def test_without_an_interval_none_is_due(problem, gradients, backward):
    model = problem()
    parameters = model.parameters()
    optimizer = optim.SophiaG(0.02, parameters=parameters, hessian_interval=None)
    backward(model, gradients(model, 1)[0])
    for _ in range(15):
        optimizer.step()
    assert not optimizer.hessian_due
    groups = [{"params": parameters[:2], "hessian_interval": None}, {"params": parameters[2:]}]
    optimizer = optim.SophiaG(0.02, parameters=groups, hessian_interval=2)
    for _ in range(2):
        optimizer.step()
    assert optimizer.hessian_due
    with pytest.raises(ValueError, match=r"\(5 in all\)"):
        optimizer.step()


def test_before_the_first_estimate_steps_are_those_of_the_sign(problem, gradients, backward):
    model = problem()
    before = model.matrix.numpy().copy()
    optimizer = optim.SophiaG(0.02, parameters=model.parameters(), weight_decay=0.0)
    grad = gradients(model, 1)[0]
    backward(model, grad)
    optimizer.step()
    np.testing.assert_allclose(
        model.matrix.numpy(), before - 0.02 * np.sign(grad["matrix"]), atol=1e-6
    )


# State and refusals -----------------------------------------------------------------------------


@PATHS
@pytest.mark.parametrize("steps", [0, 4])
def test_the_state_goes_on_between_estimates(path, steps, problem, gradients, backward, tmp_path):
    def start():
        model = problem()
        return model, optim.SophiaG(
            0.02, parameters=model.parameters(), hessian_interval=5, path=path, name="mine"
        )

    def train(model, optimizer, grads):
        for grad in grads:
            backward(model, grad)
            optimizer.step()

    first, second = start(), start()
    grads = gradients(first[0], 9)
    train(*first, grads[:2])
    backward(first[0], gradients(first[0], 1, seed=4)[0])
    first[1].update_hessian(8)
    train(*first, grads[2 : 2 + steps])
    paddle.save(first[0].state_dict(), str(tmp_path / "model.pdparams"))
    paddle.save(first[1].state_dict(), str(tmp_path / "optimizer.pdopt"))
    second[0].set_state_dict(paddle.load(str(tmp_path / "model.pdparams")))
    second[1].set_state_dict(paddle.load(str(tmp_path / "optimizer.pdopt")))
    for model, optimizer in (first, second):
        train(model, optimizer, grads[2 + steps : 7])
        assert optimizer.hessian_due
        with pytest.raises(ValueError, match="not estimated for 5 steps"):
            optimizer.step()
    assert (first[0].matrix.numpy() == second[0].matrix.numpy()).all()


def test_an_estimate_before_the_first_step_is_saved(problem, gradients, backward):
    model = problem()
    first, second = (optim.SophiaG(0.02, parameters=model.parameters()) for _ in range(2))
    backward(model, gradients(model, 1)[0])
    first.update_hessian(8)
    second.set_state_dict(first.state_dict())
    key = f"{model.matrix.name}_hessian_0"
    assert (second.state_dict()[key].numpy() == first.state_dict()[key].numpy()).all()
    assert not second.hessian_due


@PATHS
def test_non_finite_estimates(path, problem, gradients, backward):
    model = problem()
    grad = gradients(model, 1)[0]
    grad["tall"][0, 0] = math.nan
    backward(model, grad)
    optimizer = optim.SophiaG(0.02, parameters=model.parameters(), path=path)
    with pytest.raises(FloatingPointError, match=f"'{model.tall.name}'. Nothing was changed"):
        optimizer.update_hessian(8)
    assert optimizer.hessian_due and not optimizer.state_dict()
    skipping = optim.SophiaG(0.02, parameters=model.parameters(), path=path, nonfinite="skip")
    skipping.update_hessian(8)
    assert skipping.hessian_due and not skipping.state_dict()


def test_wrong_estimates_are_refused(problem, gradients, backward):
    model = problem()
    optimizer = optim.SophiaG(0.02, parameters=model.parameters())
    with pytest.raises(ValueError, match="no parameter has a gradient; call backward"):
        optimizer.update_hessian(8)
    backward(model, gradients(model, 1)[0])
    for wrong in (0, -1, 2.5, True, None):
        with pytest.raises(ValueError, match="num_tokens must be an integer >= 1"):
            optimizer.update_hessian(wrong)
