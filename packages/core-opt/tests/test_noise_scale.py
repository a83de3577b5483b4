"""The meter of the gradient noise scale on problems whose noise scale is known."""

import json
import math

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim

SIZE = 40


def squares(rng, gradient, deviation, small, big):
    """Mean squared norm of big / small gradients over ``small`` examples, and of their mean."""
    noise = rng.standard_normal([big // small, SIZE]) * deviation / math.sqrt(small)
    parts = gradient + noise
    return np.square(parts).sum(axis=1).mean(), np.square(parts.mean(axis=0)).sum()


def truth(seed=0):
    """A gradient and the deviations of its noise; tr(Sigma) = 35 |G|^2."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal(SIZE), rng.uniform(2.0, 7.0, SIZE)


def measured(rng, gradient, deviation, updates, small=4, big=32, decay=1.0):
    meter = optim.GradientNoiseScale(decay=decay)
    for _ in range(updates):
        meter.update(*squares(rng, gradient, deviation, small, big), small, big)
    return meter


def test_exact_squares_give_the_exact_scale():
    meter = optim.GradientNoiseScale()
    for _ in range(3):  # |G|^2 = 2, tr(Sigma) = 60
        meter.update(2 + 60 / 4, 2 + 60 / 32, 4, 32)
    assert (meter.noise, meter.signal, meter.noise_scale) == pytest.approx((60, 2, 30))
    assert meter.interval() == pytest.approx((30, 30), rel=1e-6)


def test_a_run_goes_on_from_its_state():
    gradient, deviation = truth()
    taken = [squares(np.random.default_rng(i), gradient, deviation, 4, 32) for i in range(12)]
    whole, first = optim.GradientNoiseScale(decay=0.9), optim.GradientNoiseScale(decay=0.9)
    for number, pair in enumerate(taken):
        whole.update(*pair, 4, 32)
        if number < 6:
            first.update(*pair, 4, 32)
    second = optim.GradientNoiseScale(decay=0.9)
    second.set_state_dict(json.loads(json.dumps(first.state_dict())))
    for pair in taken[6:]:
        second.update(*pair, 4, 32)
    assert second.state_dict() == whole.state_dict() and second.interval() == whole.interval()
    assert first.updates == 6
    with pytest.raises(ValueError, match="must hold mean, products"):
        second.set_state_dict({"updates": 1, "weight": 1.0, "weight_squares": 1.0})
    assert second.updates == 12


def test_estimates_are_unbiased():
    gradient, deviation = truth()
    rng = np.random.default_rng(1)
    meter = measured(rng, gradient, deviation, 4000)
    assert meter.noise == pytest.approx(np.square(deviation).sum(), rel=0.02)
    assert meter.signal == pytest.approx(np.square(gradient).sum(), rel=0.05)


@pytest.mark.parametrize("decay,updates", [(1.0, 12), (1.0, 60), (0.9, 80)])
def test_intervals_hold_the_truth_at_their_rate(decay, updates):
    gradient, deviation = truth()
    scale = np.square(deviation).sum() / np.square(gradient).sum()
    rng = np.random.default_rng(2)
    trials, held = 400, {0.5: 0, 0.9: 0}
    for _ in range(trials):
        meter = measured(rng, gradient, deviation, updates, decay=decay)
        for confidence in held:
            low, high = meter.interval(confidence)
            held[confidence] += low <= scale <= high
    for confidence, count in held.items():
        error = math.sqrt(confidence * (1 - confidence) / trials)
        # three standard errors of the count, and 3 % for squares that are no normal variables
        assert abs(count / trials - confidence) < 3 * error + 0.03


def test_intervals_are_open_where_the_signal_is_lost_in_the_noise():
    rng = np.random.default_rng(3)
    _, deviation = truth()
    tops = []
    for _ in range(100):
        meter = measured(rng, np.zeros(SIZE), deviation, 20)
        low, high = meter.interval(0.9)
        assert 0 <= low <= high
        tops.append(high)
    # zero signal has an infinite scale; an interval misses it when the signal looks positive
    assert np.isinf(tops).mean() > 0.85


def test_the_average_follows_a_change():
    gradient, deviation = truth()
    rng = np.random.default_rng(4)
    meter = measured(rng, gradient, deviation, 400, decay=0.95)
    for _ in range(400):
        meter.update(*squares(rng, gradient / 3, deviation, 4, 512), 4, 512)
    scale = 9 * np.square(deviation).sum() / np.square(gradient).sum()
    assert meter.noise_scale == pytest.approx(scale, rel=0.2)
    meter.reset()
    assert meter.updates == 0


def test_the_price_of_a_batch_on_a_quadratic():
    """The best step at batch b gains 1 / (1 + B / b) of what the exact gradient gains.

    With the Hessian c I, the noise scale tr(H Sigma) / G^T H G is the simple one of the meter.
    """
    gradient, deviation = truth()
    curvature = 2.5
    rng = np.random.default_rng(5)
    meter = measured(rng, gradient, deviation, 3000)
    found = meter.recommend()
    assert found.batch == round(meter.noise_scale)
    assert found.extra_steps == pytest.approx(1, rel=0.05)
    for share in (0.25, 1.0, 4.0):
        found = meter.recommend(extra_examples=share)
        noise = rng.standard_normal([20000, SIZE]) * deviation / math.sqrt(found.batch)
        parts = gradient + noise
        # gain of the step eta: eta <G, g> - eta^2 c |g|^2 / 2, in the mean; best over eta
        slope, bend = (parts @ gradient).mean(), curvature * np.square(parts).sum(axis=1).mean()
        best = slope**2 / (2 * bend)
        exact = np.square(gradient).sum() / (2 * curvature)
        assert exact / best == pytest.approx(1 + found.extra_steps, rel=0.06)
        assert found.extra_steps * found.extra_examples == pytest.approx(1)


def micro_steps(meter, averaged):
    """A real regression whose every gradient is known: measure it at fixed weights."""
    paddle.seed(0)
    model = paddle.nn.Sequential(paddle.nn.Linear(6, 8), paddle.nn.Tanh(), paddle.nn.Linear(8, 1))
    rng = np.random.default_rng(6)
    x = rng.standard_normal([256, 6]).astype("float32")
    y = (x[:, :1] * 2 + rng.standard_normal([256, 1]) * 0.5).astype("float32")

    def gradient(rows):
        model.clear_gradients()
        loss(rows).backward()
        return np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])

    def loss(rows):
        return paddle.nn.functional.mse_loss(
            model(paddle.to_tensor(x[rows])), paddle.to_tensor(y[rows])
        )

    each = np.stack([gradient([row]) for row in range(256)]).astype("float64")
    mean = each.mean(axis=0)
    noise, signal = np.square(each - mean).sum(axis=1).mean(), np.square(mean).sum()
    for _ in range(80):
        model.clear_gradients()
        for _ in range(4):
            part = loss(rng.integers(0, 256, 8))
            (part / 4 if averaged else part).backward()
            meter.micro(model.parameters(), 8)
        meter.step(averaged=averaged)
    return noise, signal


@pytest.mark.parametrize("averaged", [True, False])
def test_micro_batches_of_a_regression(averaged):
    meter = optim.GradientNoiseScale(decay=1.0)
    noise, signal = micro_steps(meter, averaged)
    assert meter.updates == 80
    assert meter.noise == pytest.approx(noise, rel=0.15)
    assert meter.signal == pytest.approx(signal, rel=0.15)
    low, high = meter.interval(0.99)
    assert low < noise / signal < high


def test_micro_does_not_touch_gradients_and_equals_update(problem, gradients, backward):
    model = problem("bfloat16")
    parts = gradients(model, 3)
    meter, other = optim.GradientNoiseScale(), optim.GradientNoiseScale()
    total = {}
    for part in parts:
        total = {key: total.get(key, 0.0) + value for key, value in part.items()}
        for name, parameter in model.named_parameters():
            (parameter.astype("float32") * paddle.to_tensor(part[name])).sum().backward()
        before = [p.grad.numpy().copy() for p in model.parameters()]
        meter.micro(model.parameters(), 16)
        for p, grad in zip(model.parameters(), before):
            assert (p.grad.numpy() == grad).all()
    meter.step(averaged=False)
    small = sum(np.square(value).sum() for part in parts for value in part.values()) / 3
    big = sum(np.square(value / 3).sum() for value in total.values())
    other.update(small, big, 16, 48)
    assert meter.noise == pytest.approx(other.noise, rel=0.02)  # gradients gather in bfloat16
    assert meter.signal == pytest.approx(other.signal, rel=0.02)


def test_it_tells_what_it_knows():
    meter = optim.GradientNoiseScale()
    assert "no updates" in str(meter)
    gradient, deviation = truth()
    rng = np.random.default_rng(7)
    for _ in range(50):
        meter.update(*squares(rng, gradient, deviation, 4, 32), 4, 32)
    assert f"{meter.noise_scale:,.4g} examples after 50 updates" in str(meter)
    found = meter.recommend(extra_examples=0.5, multiple_of=8)
    assert found.batch % 8 == 0 and found.batch == pytest.approx(meter.noise_scale / 2, abs=4)
    text = str(found)
    assert f"batch {found.batch:,}" in text and f"{found.extra_steps:.0%} more steps" in text
    assert f"{found.extra_examples:.0%} more examples" in text
    assert meter.recommend(multiple_of=10**6).batch == 10**6


def test_what_cannot_be_told_is_refused():
    meter = optim.GradientNoiseScale()
    for call in (lambda: meter.noise_scale, meter.interval, meter.recommend):
        with pytest.raises(ValueError, match="the meter needs"):
            call()
    for _ in range(5):
        meter.update(10.0, 1.0, 4, 32)  # less than the noise alone would leave
    assert meter.noise_scale == math.inf
    with pytest.raises(ValueError, match="measure more steps"):
        meter.recommend()
    short = optim.GradientNoiseScale(decay=0.1)
    for _ in range(5):
        short.update(3.0, 2.0, 4, 32)
    with pytest.raises(ValueError, match="^decay must be larger"):
        short.interval()
    with pytest.raises(ValueError, match="at least 2 micro-batches"):
        meter.step()


@pytest.mark.parametrize(
    "arguments,message",
    [
        ((-1.0, 1.0, 1, 2), "^small_square"),
        ((1.0, math.nan, 1, 2), "^big_square"),
        ((1.0, 1.0, 0, 2), "^small_batch"),
        ((1.0, 1.0, 2, 2), "^small_batch must be less"),
        ((1.0, 1.0, 1, "2"), "^big_batch"),
    ],
)
def test_wrong_arguments(arguments, message, problem, gradients, backward):
    meter = optim.GradientNoiseScale()
    with pytest.raises(ValueError, match=message):
        meter.update(*arguments)
    with pytest.raises(ValueError, match="^decay"):
        optim.GradientNoiseScale(decay=1.5)
    model = problem()
    with pytest.raises(ValueError, match="no gradients"):
        meter.micro(model.parameters(), 4)
    backward(model, gradients(model, 1)[0])
    meter.micro(model.parameters(), 4)
    with pytest.raises(ValueError, match="^examples must be 4"):
        meter.micro(model.parameters(), 5)
    assert meter.updates == 0


@pytest.mark.parametrize("decay", [0.0, 0.2, 0.33, 0.5, 1.0])
def test_it_can_be_shown_whatever_its_decay(decay):
    meter = optim.GradientNoiseScale(decay=decay)
    for updates in range(1, 6):
        meter.update(2 + 60 / 4, 2 + 60 / 32, 4, 32)
        shown = repr(meter)
        assert f"noise scale 30 examples after {updates} updates" in shown
        assert ("interval" in shown) == (updates >= 3 and decay > 1 / 3)
