"""Lookahead against its formula and Paddle's own."""

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim

PATHS = ("native", "paddle")


def values(model):
    return {key: p.astype("float64").numpy().copy() for key, p in model.named_parameters()}


def run(optimizer, model, grads, backward):
    found = []
    for grad in grads:
        backward(model, grad)
        optimizer.step()
        found.append(values(model))
    return found


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("k,alpha", [(1, 0.5), (3, 0.8), (5, 1.0)])
def test_equals_the_formula(path, k, alpha, problem, gradients, backward):
    """The steps of Adam without memory are signs, wherever they start."""
    model = problem()
    inside = optim.AdamW(
        0.05, beta1=0.0, beta2=0.0, epsilon=1e-15, parameters=model.parameters(),
        weight_decay=0.0, path=path,
    )  # fmt: skip
    grads = gradients(model, 7)
    fast, slow = values(model), values(model)
    expected = []
    for number, grad in enumerate(grads, 1):
        for key in fast:
            fast[key] = fast[key] - 0.05 * np.sign(grad[key])
            if number % k == 0:
                slow[key] += alpha * (fast[key] - slow[key])
                fast[key] = slow[key].copy()
        expected.append(dict(fast))
    lookahead = optim.Lookahead(inside, k=k, alpha=alpha)
    for found, wanted in zip(run(lookahead, model, grads, backward), expected):
        for key in wanted:
            np.testing.assert_allclose(found[key], wanted[key], atol=2e-6)


def test_the_steps_are_paddles_after_its_first_cycle(problem, gradients, backward):
    """Paddle's starts its slow weights one step late; from the same start both are alike."""
    ours, theirs = problem(), problem()
    grads = gradients(ours, 12)
    first = optim.Lookahead(
        paddle.optimizer.Momentum(0.05, parameters=ours.parameters()), k=4, alpha=0.3
    )
    second = paddle.incubate.LookAhead(
        paddle.optimizer.Momentum(0.05, parameters=theirs.parameters()), k=4, alpha=0.3
    )
    backward(ours, grads[0])
    first.step()
    for parameter in ours.parameters():  # as late as Paddle's
        first.slow[parameter.name].set_value(parameter)
    backward(theirs, grads[0])
    second.step()
    for grad in grads[1:]:
        for model, optimizer in ((ours, first), (theirs, second)):
            backward(model, grad)
            optimizer.step()
    for p, q in zip(ours.parameters(), theirs.parameters()):
        np.testing.assert_allclose(p.numpy(), q.numpy(), atol=1e-6)


def test_alpha_one_changes_no_more_than_rounding(problem, gradients, backward):
    model, twin = problem(), problem()
    grads = gradients(model, 5)
    for k, m in ((2, model), (100, twin)):
        run(
            optim.Lookahead(optim.AdamW(parameters=m.parameters()), k=k, alpha=1.0),
            m, grads, backward,
        )  # fmt: skip
    for p, q in zip(model.parameters(), twin.parameters()):
        np.testing.assert_allclose(p.numpy(), q.numpy(), atol=2e-7)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_master_weights_are_looked_ahead(dtype, problem, gradients, backward):
    low, full = problem(dtype), problem()
    grads = gradients(low, 6)
    wrapped = []
    for model in (low, full):
        inside = optim.AdamW(
            0.02, parameters=model.parameters(), multi_precision=True, weight_decay=0.1
        )
        wrapped.append(optim.Lookahead(inside, k=3))
        run(wrapped[-1], model, grads, backward)
    for p, q in zip(low.parameters(), full.parameters()):
        master = wrapped[0]._master_weights[p.name]
        assert master.numpy().tobytes() == q.numpy().tobytes()
        assert p.numpy().tobytes() == q.astype(dtype).numpy().tobytes()
        assert wrapped[0].slow[p.name].dtype == paddle.float32


def test_bfloat16_without_masters_keeps_float32_slow_weights(problem, gradients, backward):
    model = problem("bfloat16")
    lookahead = optim.Lookahead(optim.AdamW(0.02, parameters=model.parameters()), k=2)
    run(lookahead, model, gradients(model, 4), backward)
    for p in model.parameters():
        slow = lookahead.slow[p.name]
        assert slow.dtype == paddle.float32
        assert p.numpy().tobytes() == slow.astype("bfloat16").numpy().tobytes()
    assert any((s.numpy() != s.astype("bfloat16").astype("float32").numpy()).any()
               for s in lookahead.slow.values())  # fmt: skip


def test_groups_and_frozen_parameters(problem, gradients, backward):
    model, twin = problem(), problem()
    grads = gradients(model, 4)
    parameters = model.parameters()
    groups = [
        {"params": parameters[:2], "learning_rate": 0.1},
        {"params": parameters[2:], "weight_decay": 0.3},
    ]
    run(optim.Lookahead(optim.AdamW(0.02, parameters=groups), k=2), model, grads, backward)
    for part, lr, decay in ((0, 0.002, 0.01), (2, 0.02, 0.3)):
        other = problem()
        run(
            optim.Lookahead(
                optim.AdamW(lr, parameters=other.parameters(), weight_decay=decay), k=2
            ),
            other, grads, backward,
        )  # fmt: skip
        for index in range(part, part + 2):
            assert (
                parameters[index].numpy().tobytes() == other.parameters()[index].numpy().tobytes()
            )
    twin.matrix.stop_gradient = True
    before = twin.matrix.numpy().copy()
    lookahead = optim.Lookahead(optim.AdamW(0.02, parameters=twin.parameters()), k=2)
    run(lookahead, twin, grads, backward)
    assert (twin.matrix.numpy() == before).all() and twin.matrix.name not in lookahead.slow


def test_it_damps_an_oscillation():
    """On a quadratic with a step close to the stability limit, slow weights come in much sooner."""
    ends = []
    for wrap in (lambda inside: inside, lambda inside: optim.Lookahead(inside, k=5, alpha=0.5)):
        layer = paddle.nn.Layer()
        layer.w = layer.create_parameter([1], attr=paddle.nn.initializer.Constant(1.0))
        optimizer = wrap(paddle.optimizer.SGD(1.98, parameters=[layer.w]))
        for _ in range(20):
            (paddle.square(layer.w) / 2).sum().backward()
            optimizer.step()
            optimizer.clear_grad()
        ends.append(abs(layer.w.item()))
    assert ends[0] == pytest.approx(0.98**20, rel=1e-3)
    assert ends[1] == pytest.approx(((1 - 0.98**5) / 2) ** 4, rel=1e-2)


@pytest.mark.parametrize(
    "options,message",
    [
        ({"k": 0}, "^k must be"),
        ({"k": 2.5}, "^k must be"),
        ({"alpha": 0.0}, "^alpha must"),
        ({"alpha": 1.5}, "^alpha must"),
        ({"alpha": "0.5"}, "^alpha must"),
    ],
)
def test_wrong_arguments(options, message, problem):
    inside = optim.AdamW(parameters=problem().parameters())
    with pytest.raises(ValueError, match=message):
        optim.Lookahead(inside, **options)
