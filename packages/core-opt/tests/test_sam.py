"""SAM and ASAM against their formulas, in loops and in trainers."""

import math
import sys
import types

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim
from paddle.base import framework


def bits(model):
    return {key: p.numpy().tobytes() for key, p in model.named_parameters()}


def values(model):
    return {key: p.astype("float64").numpy().copy() for key, p in model.named_parameters()}


def sgd(model, lr=0.1):
    return paddle.optimizer.SGD(lr, parameters=model.parameters())


def regression(seed=0):
    with paddle.utils.unique_name.guard():
        paddle.seed(seed)
        model = paddle.nn.Sequential(
            paddle.nn.Linear(4, 8), paddle.nn.Tanh(), paddle.nn.Linear(8, 1)
        )
    rng = np.random.default_rng(seed)
    x = rng.standard_normal([32, 4]).astype("float32")
    y = (x[:, :1] * x[:, 1:2]).astype("float32")
    return model, paddle.to_tensor(x), paddle.to_tensor(y)


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_ascent_equals_the_formula(adaptive, problem, gradients, backward):
    model = problem()
    sam = optim.SAM(sgd(model), rho=0.3, adaptive=adaptive, eta=0.02)
    before, grad = values(model), gradients(model, 1)[0]
    backward(model, grad)
    sam.first_step()
    size = {key: np.abs(before[key]) + 0.02 if adaptive else 1.0 for key in before}
    norm = math.sqrt(sum(np.square(size[key] * grad[key]).sum() for key in before))
    for key, found in values(model).items():
        expected = before[key] + 0.3 * size[key] ** 2 * grad[key] / norm
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    if not adaptive:
        moved = values(model)
        length = math.sqrt(sum(np.square(moved[key] - before[key]).sum() for key in before))
        assert length == pytest.approx(0.3, rel=1e-5)


def test_the_step_is_taken_from_the_weights_with_the_gradient_nearby():
    """On w^2 a / 2 the gradient at w + rho sign(w) is known."""
    layer = paddle.nn.Layer()
    layer.w = layer.create_parameter([1], attr=paddle.nn.initializer.Constant(2.0))
    sam = optim.SAM(paddle.optimizer.SGD(0.1, parameters=[layer.w]), rho=0.5)

    def closure():
        loss = (1.5 * paddle.square(layer.w)).sum()
        loss.backward()
        return loss

    assert sam.step(closure).item() == 6.0  # the loss at the weights
    assert layer.w.item() == pytest.approx(2.0 - 0.1 * 3.0 * 2.5)


def test_three_ways_are_one():
    found = []
    for way in range(3):
        model, x, y = regression()
        sam = optim.SAM(optim.AdamW(0.02, parameters=model.parameters()), rho=0.1)
        loss = paddle.nn.MSELoss()
        if way == 2:
            loss = sam.remember(model, loss)

        def closure(model=model, loss=loss, x=x, y=y):
            value = loss(model(x), y)
            value.backward()
            return value

        for _ in range(4):
            if way == 0:
                closure()
                sam.first_step()
                sam.clear_grad()
                closure()
                sam.second_step()
            elif way == 1:
                sam.step(closure)
            else:
                closure()
                sam.step()
            sam.clear_grad()
        found.append(bits(model))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_the_weights_come_back_bit_for_bit(dtype, problem, gradients, backward):
    model = problem(dtype)
    sam = optim.SAM(optim.AdamW(0.0, parameters=model.parameters()), rho=0.7)
    before, grad = bits(model), gradients(model, 1)[0]
    backward(model, grad)
    sam.first_step()
    assert all(bits(model)[key] != before[key] for key in before)
    backward(model, grad)
    sam.second_step()  # with a learning rate of 0
    assert bits(model) == before
    backward(model, grad)
    sam.first_step()
    sam.restore()
    assert bits(model) == before


def test_an_error_in_the_second_pass_leaves_the_weights(problem):
    model, x, y = regression()
    sam = optim.SAM(sgd(model), rho=0.5)
    before, calls = bits(model), []

    def closure():
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        loss = paddle.nn.functional.mse_loss(model(x), y)
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="out of memory"):
        sam.step(closure)
    assert bits(model) == before
    sam.step(closure)
    assert bits(model) != before


def test_zero_gradients_and_missing_ones(problem, gradients, backward):
    model = problem()
    sam = optim.SAM(sgd(model), rho=0.5)
    before = bits(model)
    backward(model, {key: np.zeros_like(value) for key, value in values(model).items()})
    sam.first_step()
    assert bits(model) == before
    sam.second_step()
    assert bits(model) == before
    grad = gradients(model, 1)[0]
    backward(model, {"gain": grad["gain"]})
    sam.first_step()
    assert [key for key in before if bits(model)[key] != before[key]] == ["gain"]
    sam.restore()


def test_skipping_optimisers_skip(problem, gradients, backward):
    model = problem()
    sam = optim.SAM(optim.AdamW(parameters=model.parameters(), nonfinite="skip"))
    grad = gradients(model, 1)[0]
    grad["tall"][0, 0] = math.inf
    before = bits(model)
    backward(model, grad)
    sam.first_step()
    assert bits(model) == before
    sam.second_step()
    assert bits(model) == before and sam.skipped_steps == 1


def test_sam_goes_along_the_valley_to_where_it_is_flat():
    """Minima of (a b - 1)^2 / 2 have sharpness a^2 + b^2 >= 2; gradient descent stays where it is."""
    sharpness = []
    for rho in (None, 0.2):
        layer = paddle.nn.Layer()
        layer.w = layer.create_parameter([2])
        layer.w.set_value(np.array([2.5, 0.3], "float32"))
        optimizer = paddle.optimizer.SGD(0.05, parameters=[layer.w])

        def closure(w=layer.w):
            loss = paddle.square(w[0] * w[1] - 1) / 2
            loss.backward()
            return loss

        for _ in range(600):
            if rho is None:
                optimizer.clear_grad()
                closure()
                optimizer.step()
            else:
                optim.SAM(optimizer, rho=rho).step(closure)
        a, b = layer.w.numpy()
        assert a * b == pytest.approx(1.0, abs=0.05)
        sharpness.append(a * a + b * b)
    assert sharpness[0] > 6.0 and sharpness[1] < 2.3


def fit(network, optimizer, loss, x, y, **options):
    model = paddle.Model(network)
    model.prepare(optimizer, loss)
    rows = paddle.io.TensorDataset([x, y])
    model.fit(rows, batch_size=8, epochs=2, shuffle=False, verbose=0, **options)
    return model


@pytest.mark.parametrize("accumulate", [1, 2])
def test_in_paddle_model(accumulate, tmp_path):
    network, x, y = regression()
    sam = optim.SAM(optim.AdamW(0.02, parameters=network.parameters()), rho=0.1)
    loss = sam.remember(network, paddle.nn.MSELoss())
    model = fit(network, sam, loss, x, y, accumulate_grad_batches=accumulate)
    by_hand, x, y = regression()
    other = optim.SAM(optim.AdamW(0.02, parameters=by_hand.parameters()), rho=0.1)
    batches = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 32, 8)] * 2
    for first in range(0, len(batches), accumulate):

        def closure(first=first):
            for a, b in batches[first : first + accumulate]:
                paddle.nn.functional.mse_loss(by_hand(a), b).backward()

        other.step(closure)
    assert bits(network) == bits(by_hand)
    model.evaluate(paddle.io.TensorDataset([x, y]), batch_size=8, verbose=0)
    assert not sam._remembered.batches  # evaluation is not remembered
    model.save(str(tmp_path / "checkpoint"))
    model.load(str(tmp_path / "checkpoint"))


def test_a_trainer_that_divides_its_losses():
    found = []
    for steps in (1, 2):
        model, x, y = regression()
        sam = optim.SAM(sgd(model), rho=0.1)
        loss = sam.remember(model, paddle.nn.MSELoss(), accumulation_steps=steps)
        for part in range(steps):
            rows = slice(part * 32 // steps, (part + 1) * 32 // steps)
            (loss(model(x[rows]), y[rows]) / steps).backward()
        sam.step()
        found.append(values(model))
    for key in found[0]:
        np.testing.assert_allclose(found[0][key], found[1][key], rtol=1e-5, atol=1e-7)


def test_wrong_use_is_refused(problem, gradients, backward):
    model = problem()
    sam = optim.SAM(sgd(model))
    with pytest.raises(ValueError, match=r"second_step\(\) needs first_step"):
        sam.second_step()
    backward(model, gradients(model, 1)[0])
    for call in (sam.step, lambda: sam.minimize(None)):
        with pytest.raises(ValueError, match="remember"):
            call()
    sam.first_step()
    with pytest.raises(ValueError, match="called twice"):
        sam.first_step()
    with pytest.raises(ValueError, match="closure must be a function"):
        sam.step(1.0)
    with pytest.raises(ValueError, match="^network must"):
        sam.remember(1.0, paddle.nn.MSELoss())
    with pytest.raises(ValueError, match="^loss must"):
        sam.remember(model, 1.0)
    with pytest.raises(ValueError, match="^accumulation_steps must"):
        sam.remember(model, paddle.nn.MSELoss(), accumulation_steps=0)
    for options in ({"rho": 0.0}, {"rho": "0.1"}, {"adaptive": 1}, {"eta": -1.0}):
        with pytest.raises(ValueError, match=f"^{next(iter(options))} must"):
            optim.SAM(sgd(model), **options)


def test_an_error_in_a_trainers_step_leaves_no_batch_behind():
    found = []
    for fails in (True, False):
        model, x, y = regression()
        sam = optim.SAM(sgd(model), rho=0.1)
        calls = []

        def criterion(outputs, labels, fails=fails, calls=calls):
            calls.append(1)
            if fails and len(calls) == 2:
                raise RuntimeError("out of memory")
            return paddle.nn.functional.mse_loss(outputs, labels)

        loss = sam.remember(model, criterion)
        if fails:
            loss(model(x[:8]), y[:8]).backward()
            with pytest.raises(RuntimeError, match="out of memory"):
                sam.step()
            sam.clear_grad()
        loss(model(x[8:]), y[8:]).backward()
        sam.step()
        found.append(bits(model))
    assert found[0] == found[1]


class GpuTracer:
    """The tracer, as on a GPU, the only place where ``auto_cast`` does not switch itself off."""

    def __init__(self, tracer):
        object.__setattr__(self, "tracer", tracer)

    def __getattr__(self, name):
        if name == "_expected_place":
            return types.SimpleNamespace(
                is_gpu_place=lambda: True,
                is_xpu_place=lambda: False,
                is_custom_place=lambda: False,
            )
        return getattr(self.tracer, name)

    def __setattr__(self, name, value):
        setattr(self.tracer, name, value)


class Watched(paddle.nn.Layer):
    """A layer that notes under which mixed precision it runs."""

    def __init__(self):
        super().__init__()
        self.inner = paddle.nn.Linear(4, 1)
        self.seen = []

    def forward(self, x):
        self.seen.append(casting())
        return self.inner(x)


def casting():
    tracer = framework._dygraph_tracer()
    white, black = tracer._get_amp_op_list()
    return tracer._amp_level.name, tracer._amp_dtype, set(white), set(black)


@pytest.mark.parametrize("loss_inside", [True, False])
def test_the_second_pass_of_a_trainer_is_cast_as_the_first(loss_inside, monkeypatch):
    module = sys.modules["paddle.amp.auto_cast"]
    tracer = GpuTracer(framework._dygraph_tracer())
    monkeypatch.setattr(module, "_dygraph_tracer", lambda: tracer)
    monkeypatch.setattr(module, "_is_gpu_bfloat16_supported", lambda: True)
    monkeypatch.setattr(module, "_is_gpu_float16_supported", lambda: True)
    plain = casting()
    for level, dtype in (("O1", "bfloat16"), ("O2", "bfloat16"), ("O1", "float16")):
        network, losses = Watched(), []
        sam = optim.SAM(sgd(network), rho=0.1)

        def criterion(outputs, labels, losses=losses):
            losses.append(casting())
            return paddle.nn.functional.mse_loss(outputs, labels)

        loss = sam.remember(network, criterion)
        x = paddle.ones([3, 4])
        with paddle.amp.auto_cast(
            level=level, dtype=dtype, custom_black_list={"matmul_v2", "tanh"}
        ):
            outputs = network(x)
            if loss_inside:
                value = loss(outputs, paddle.zeros([3, 1]))
        if not loss_inside:
            value = loss(outputs, paddle.zeros([3, 1]))
        value.backward()
        sam.step()
        assert network.seen[0][:2] == (level, dtype) and "tanh" in network.seen[0][3]
        if dtype == "float16":  # whose gradients need a loss scale: float32 instead
            assert network.seen[1][0] == losses[1][0] == "O0"
        else:
            assert network.seen[1] == network.seen[0] and losses[1][0] == losses[0][0]
        assert casting() == plain


def test_float16_weights_are_refused_where_no_scaler_acts():
    network = paddle.nn.Linear(2, 2)
    sam = optim.SAM(optim.AdamW(parameters=network.parameters(), multi_precision=True))
    loss = sam.remember(network, lambda outputs: outputs.sum())
    loss(network(paddle.ones([1, 2])))
    network.to(dtype="float16")
    network.forward = lambda x: x
    with pytest.raises(ValueError, match="float16.*bfloat16"):
        loss(network(paddle.ones([1, 2])))
    network.eval()
    loss(network(paddle.ones([1, 2])))
