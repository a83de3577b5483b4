"""The average of the parameters against its formula."""

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim


def values(model):
    return {key: p.astype("float64").numpy().copy() for key, p in model.named_parameters()}


def bits(model):
    return {key: p.numpy().tobytes() for key, p in model.named_parameters()}


def run(optimizer, model, grads, backward):
    found = []
    for grad in grads:
        backward(model, grad)
        optimizer.step()
        found.append(values(model))
    return found


def averages(ema, model):
    with ema.average():
        return values(model)


@pytest.mark.parametrize(
    "options",
    [{}, {"warmup": True}, {"debias": True}, {"debias": True, "warmup": True}, {"update_after": 4}],
    ids=str,
)
def test_equals_the_formula(options, problem, gradients, backward):
    model = problem()
    ema = optim.EMA(optim.AdamW(0.05, parameters=model.parameters()), decay=0.7, **options)
    assert averages(ema, model)["gain"] == pytest.approx(values(model)["gain"])
    grads = gradients(model, 9)
    expected, total = {}, 0.0
    for number, grad in enumerate(grads, 1 - options.get("update_after", 0)):
        (now,) = run(ema, model, [grad], backward)
        decay = 0.7
        if options.get("warmup"):
            decay = min(decay, (1 + number) / (10 + number))
        if number < 1:
            expected = now
        elif options.get("debias"):  # the definition: a weighted mean
            expected = {key: decay * expected.get(key, 0.0) + (1 - decay) * now[key] for key in now}
            total = decay * total + 1 - decay
        elif number == 1:
            expected = now
        else:
            expected = {key: decay * expected[key] + (1 - decay) * now[key] for key in now}
        found = averages(ema, model)
        for key in now:
            wanted = expected[key] / (total if options.get("debias") else 1.0)
            np.testing.assert_allclose(found[key], wanted, rtol=1e-5, atol=1e-6)


def test_swap_and_average_come_back_bit_for_bit(problem, gradients, backward):
    for dtype in ("float32", "bfloat16"):
        model = problem(dtype)
        ema = optim.EMA(optim.AdamW(0.05, parameters=model.parameters()), decay=0.5)
        run(ema, model, gradients(model, 3), backward)
        before, state = bits(model), {k: v.numpy().copy() for k, v in ema.state_dict().items()}
        ema.swap()
        swapped = bits(model)
        assert all(swapped[key] != before[key] for key in before)
        ema.swap()
        assert bits(model) == before
        with pytest.raises(RuntimeError, match="mine"), ema.average():
            assert bits(model) == swapped
            raise RuntimeError("mine")
        assert bits(model) == before
        for key, value in ema.state_dict().items():
            assert (value.numpy() == state[key]).all()


def test_bfloat16_parameters_have_float32_averages(problem, gradients, backward):
    model, exact = problem("bfloat16"), problem()
    grads = gradients(model, 6)
    found = []
    for m in (model, exact):
        inside = optim.AdamW(0.02, parameters=m.parameters(), multi_precision=True)
        found.append(optim.EMA(inside, decay=0.9))
        run(found[-1], m, grads, backward)
    for p in model.parameters():  # master weights are followed, not their roundings
        low, full = (ema.shadow[p.name] for ema in found)
        assert low.dtype == paddle.float32 and low.numpy().tobytes() == full.numpy().tobytes()
    with found[0].average():
        for p in model.parameters():
            rounded = found[0].shadow[p.name].astype("bfloat16")
            assert p.dtype == paddle.bfloat16 and (p == rounded).all()


def test_small_changes_gather_in_bfloat16(problem):
    """An average kept in bfloat16 would never move: 1e-3 of a step of 2^-8 rounds away."""
    model = problem("bfloat16")
    ema = optim.EMA(model, decay=0.999)
    ema.update()
    start = ema.averages()[model.gain.name].numpy().copy()
    with paddle.no_grad():
        model.gain.set_value((model.gain.astype("float32") * (1 + 2.0**-7)).astype("bfloat16"))
    for _ in range(1000):
        ema.update()
    moved = ema.averages()[model.gain.name].numpy() - start
    wanted = (1 - 0.999**1000) * (model.gain.astype("float32").numpy() - start)
    np.testing.assert_allclose(moved, wanted, rtol=1e-3)


@pytest.mark.parametrize("what", ["model", "parameters"])
def test_without_an_optimiser(what, problem, gradients, backward, tmp_path):
    model, twin = problem(), problem()
    source = model if what == "model" else model.parameters()
    ema = optim.EMA(source, decay=0.8, update_after=1)
    inside = optim.AdamW(0.05, parameters=model.parameters())
    wrapped = optim.EMA(optim.AdamW(0.05, parameters=twin.parameters()), decay=0.8, update_after=1)
    grads = gradients(model, 5)
    for grad in grads:
        run(inside, model, [grad], backward)
        ema.update()
    run(wrapped, twin, grads, backward)
    found, wanted = averages(ema, model), averages(wrapped, twin)
    for key in found:
        np.testing.assert_array_equal(found[key], wanted[key])
    paddle.save(ema.state_dict(), str(tmp_path / "ema.pdparams"))
    again = optim.EMA(source, decay=0.8, update_after=1)
    again.set_state_dict(paddle.load(str(tmp_path / "ema.pdparams")))
    ema.update()
    again.update()
    assert again.updates == ema.updates == 6
    for p in model.parameters():
        assert (again.shadow[p.name] == ema.shadow[p.name]).all()
    with pytest.raises(ValueError, match="has no optimiser"):
        ema.step()
    with pytest.raises(AttributeError, match="no optimiser"):
        ema.skipped_steps  # noqa: B018


def test_frozen_parameters_of_a_model_are_left_out(problem):
    model = problem()
    model.table.stop_gradient = True
    ema = optim.EMA(model)
    ema.update()
    assert set(ema.shadow) == {p.name for p in model.parameters() if p is not model.table}


def test_nothing_is_averaged_while_swapped(problem, gradients, backward):
    model = problem()
    ema = optim.EMA(optim.AdamW(parameters=model.parameters()))
    run(ema, model, gradients(model, 2), backward)
    state = ema.state_dict()
    ema.swap()
    before = bits(model)
    for call in (ema.step, ema.update, lambda: ema.set_state_dict(state), ema.average().__enter__):
        with pytest.raises(ValueError, match=r"call swap\(\) first"):
            call()
    assert bits(model) == before and ema.updates == 2


def test_the_average_of_noise_is_nearer_to_the_minimum():
    """Constant-step SGD on a noisy quadratic: the tail's mean has less variance than its last."""
    rng = np.random.default_rng(0)
    layer = paddle.nn.Layer()
    layer.w = layer.create_parameter([500], attr=paddle.nn.initializer.Constant(1.0))
    ema = optim.EMA(
        paddle.optimizer.SGD(0.1, parameters=[layer.w]), decay=0.99, debias=True, update_after=60
    )
    for _ in range(400):
        noise = paddle.to_tensor(rng.standard_normal(500).astype("float32"))
        ((layer.w - noise) * (layer.w - noise) / 2).sum().backward()
        ema.step()
        ema.clear_grad()
    last = paddle.square(layer.w).mean().item()
    with ema.average():
        averaged = paddle.square(layer.w).mean().item()
    assert last == pytest.approx(0.1 / 1.9, rel=0.2)  # eta / (2 - eta)
    assert averaged < 0.2 * last


@pytest.mark.parametrize(
    "options,message",
    [
        ({"decay": 1.0}, "^decay must"),
        ({"decay": "0.9"}, "^decay must"),
        ({"warmup": 10}, "^warmup must"),
        ({"debias": None}, "^debias must"),
        ({"update_after": -1}, "^update_after must"),
    ],
)
def test_wrong_arguments(options, message, problem):
    with pytest.raises(ValueError, match=message):
        optim.EMA(problem(), **options)
    with pytest.raises(ValueError, match="parameters is empty"):
        optim.EMA([])
    with pytest.raises(ValueError, match="must be a list"):
        optim.EMA(3.0)
