"""Schedule-Free AdamW: the average, its two modes and its weights."""

import math

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim
from oarlock.core_opt.optim import schedules
from oarlock.core_opt.optim.reference import schedule_free as reference

PATHS = pytest.mark.parametrize("path", ["native", "paddle"])
PRECISIONS = pytest.mark.parametrize(
    "dtype,options",
    [
        ("float32", {}),
        ("float64", {}),
        ("bfloat16", {}),
        ("bfloat16", {"stochastic_rounding": True}),
        ("bfloat16", {"multi_precision": True}),
        ("float16", {"multi_precision": True}),
    ],
    ids=["float32", "float64", "bfloat16", "stochastic", "bfloat16-master", "float16-master"],
)


def start(problem, dtype="float32", lr=0.02, **options):
    model = problem(dtype)
    return model, optim.ScheduleFreeAdamW(lr, parameters=model.parameters(), **options)


def train(model, optimizer, grads, backward):
    for grad in grads:
        backward(model, grad)
        optimizer.step()


def bits(model):
    return [p.numpy().tobytes() for p in model.parameters()]


def z_of(optimizer, parameter):
    return optimizer.state_dict()[f"{parameter.name}_z_0"].numpy().astype("float64")


# The average ------------------------------------------------------------------------------------


@PATHS
@pytest.mark.parametrize("warmup", [0, 4])
def test_x_is_the_weighted_average_of_z(path, warmup, problem, gradients, backward):
    model, optimizer = start(problem, warmup_steps=warmup, weight_decay=0.1, path=path)
    rates = [0.02, 0.05, 0.01, 0.0, 0.03, 0.08, 0.02, 0.02]
    sequence, peak, weights = [], 0.0, []
    for number, (rate, grad) in enumerate(zip(rates, gradients(model, len(rates))), 1):
        optimizer.set_lr(rate)
        train(model, optimizer, [grad], backward)
        peak = max(peak, rate * min(1.0, number / warmup if warmup else 1.0))
        weights.append(peak**2)
        sequence.append(z_of(optimizer, model.matrix))
    x = np.einsum("t,tij->ij", weights, np.stack(sequence)) / sum(weights)
    y = model.matrix.numpy()
    np.testing.assert_allclose(y, 0.1 * sequence[-1] + 0.9 * x, atol=2e-6)
    optimizer.eval()
    np.testing.assert_allclose(model.matrix.numpy(), x, atol=2e-6)


@PATHS
def test_equals_reference_with_warmup_and_schedule(path, problem, gradients, backward):
    model = problem()
    scheduler = schedules.WSD(0.05, 20)
    optimizer = optim.ScheduleFreeAdamW(
        scheduler, parameters=model.parameters(), warmup_steps=5, beta1=0.8, path=path
    )
    options = {**optim.info("schedule_free_adamw").defaults, "warmup_steps": 5, "beta1": 0.8}
    expected = {key: p.numpy().astype("float64") for key, p in model.named_parameters()}
    states = {key: {} for key in expected}
    for number, grad in enumerate(gradients(model, 20), 1):
        for key, value in expected.items():
            expected[key] = reference.step(
                value, grad[key].astype("float64"), states[key], step=number,
                lr=optimizer.get_lr(), role="vector", options=options,
            )  # fmt: skip
        train(model, optimizer, [grad], backward)
        scheduler.step()
    for key, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.numpy(), expected[key], atol=2e-5)
    optimizer.eval()
    for key, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.numpy(), states[key]["x"], atol=2e-5)


def test_warmup_is_that_of_a_schedule(problem, gradients, backward):
    model, optimizer = start(problem, warmup_steps=4)
    scheduler = paddle.optimizer.lr.LambdaDecay(0.02, lambda step: min(1.0, (step + 1) / 4))
    twin, scheduled = start(problem, lr=scheduler)
    for grad in gradients(model, 8):
        train(model, optimizer, [grad], backward)
        train(twin, scheduled, [grad], backward)
        scheduler.step()
    assert bits(model) == bits(twin)


def test_parameters_average_over_their_own_steps(problem, gradients, backward):
    """One that starts later has the weights of its own steps, in one batch or two."""
    model, optimizer = start(problem)
    twin, late = start(problem)
    grads = gradients(model, 6)
    for grad in grads[:3]:
        train(model, optimizer, [{key: grad[key] for key in grad if key != "tall"}], backward)
    for grad in grads[3:]:
        train(model, optimizer, [grad], backward)
        train(twin, late, [{"tall": grad["tall"]}], backward)
    optimizer.eval()
    late.eval()
    assert (model.tall.numpy() == twin.tall.numpy()).all()


def test_same_step_but_other_rates_have_their_own_weights(problem, gradients, backward):
    """Parameters that have taken as many steps, at other rates, share a batch but no weight."""
    model, optimizer = start(problem)
    grads = gradients(model, 3)
    optimizer.set_lr(0.08)
    train(model, optimizer, [{"matrix": grads[0]["matrix"]}], backward)
    optimizer.set_lr(0.02)
    train(model, optimizer, [{"tall": grads[0]["tall"]}], backward)
    both = {key: grads[1][key] for key in ("matrix", "tall")}
    before = {key: z_of(optimizer, getattr(model, key)) for key in both}
    train(model, optimizer, [both], backward)
    after = {key: z_of(optimizer, getattr(model, key)) for key in both}
    optimizer.eval()
    for key in both:  # equal weights: for matrix those of the peak, 0.08^2, for tall 0.02^2
        mean = (before[key] + after[key]) / 2
        np.testing.assert_allclose(getattr(model, key).numpy(), mean, atol=2e-6)


def test_a_rate_of_zero_moves_nothing(problem, gradients, backward):
    model, optimizer = start(problem, lr=0.0, weight_decay=0.1)
    before = bits(model)
    train(model, optimizer, gradients(model, 3), backward)
    assert bits(model) == before


@pytest.mark.parametrize("seed", range(3))
def test_no_schedule_is_needed(seed):
    """On a noisy quadratic at a constant rate x comes closer than AdamW's last iterate."""
    distances = {}
    for name in ("adamw", "schedule_free_adamw"):
        rng = np.random.default_rng(seed)
        w = paddle.nn.Layer().create_parameter([64], attr=paddle.nn.initializer.Constant(1.0))
        optimizer = optim.create(name, [w], learning_rate=0.1, weight_decay=0.0)
        for _ in range(500):
            noise = paddle.to_tensor(rng.standard_normal(64).astype("float32"))
            (paddle.square(w) / 2 + w * noise).sum().backward()
            optimizer.step()
            optimizer.clear_grad()
        if name == "schedule_free_adamw":
            distances["y"] = float(paddle.norm(w))
            optimizer.eval()
        distances[name] = float(paddle.norm(w))
    assert distances["schedule_free_adamw"] < 0.7 * distances["adamw"]
    assert distances["schedule_free_adamw"] < distances["y"]


# Modes ------------------------------------------------------------------------------------------


@PRECISIONS
def test_train_brings_y_back_bit_for_bit(dtype, options, problem, gradients, backward):
    model, optimizer = start(problem, dtype, **options)
    twin, other = start(problem, dtype, **options)
    grads = gradients(model, 6)
    for step, grad in enumerate(grads):
        train(model, optimizer, [grad], backward)
        train(twin, other, [grad], backward)
        before = bits(model)
        optimizer.eval()
        average = bits(model)
        assert step == 0 or average != before  # after one step x, y and z are one
        optimizer.eval()
        assert bits(model) == average
        optimizer.train()
        assert bits(model) == before
        optimizer.train()
        assert bits(model) == before
    assert bits(model) == bits(twin)
    for parameter in model.parameters():
        assert str(parameter.dtype).endswith(dtype)


def test_x_comes_from_the_master_weights(problem, gradients, backward):
    model, optimizer = start(problem, "bfloat16", multi_precision=True)
    exact, full = start(problem)
    grads = gradients(model, 5)
    train(model, optimizer, grads, backward)
    train(exact, full, grads, backward)
    optimizer.eval()
    full.eval()
    for low, wide in zip(model.parameters(), exact.parameters()):
        assert low.numpy().tobytes() == wide.astype("bfloat16").numpy().tobytes()


def test_steps_are_refused_while_x_is_in_place(problem, gradients, backward):
    model, optimizer = start(problem)
    grads = gradients(model, 3)
    train(model, optimizer, grads[:1], backward)
    optimizer.eval()
    before = bits(model)
    backward(model, grads[1])
    for step in (optimizer.step, lambda: optimizer.minimize(paddle.zeros([]))):
        with pytest.raises(ValueError, match=r"hold the average x; call optimizer.train\(\)"):
            step()
    assert bits(model) == before
    optimizer.train()
    optimizer.step()


def test_averaged_puts_back_what_was_there(problem, gradients, backward):
    model, optimizer = start(problem)
    with optimizer.averaged():  # before any step x is y
        start_bits = bits(model)
    assert bits(model) == start_bits
    train(model, optimizer, gradients(model, 4), backward)
    y = bits(model)
    with optimizer.averaged():
        x = bits(model)
        with optimizer.averaged():
            assert bits(model) == x
        assert bits(model) == x != y
    assert bits(model) == y
    with pytest.raises(KeyError):
        with optimizer.averaged():
            raise KeyError
    assert bits(model) == y
    optimizer.eval()
    with optimizer.averaged():
        pass
    assert bits(model) == x


def test_the_average_under_sam(problem, gradients, backward):
    """SAM changes where gradients are taken, and nothing of y, z and x."""
    model, inside = start(problem)
    twin, plain = start(problem)
    sam = optim.SAM(inside, rho=0.1)
    grads = gradients(model, 5)
    for grad in grads[:4]:
        backward(model, grad)
        sam.first_step()
        backward(model, grad)  # the same gradient there as at y
        sam.second_step()
    train(twin, plain, grads[:4], backward)
    assert bits(model) == bits(twin)
    with sam.averaged(), plain.averaged():
        x = bits(model)
        assert x == bits(twin)
        backward(model, grads[4])
        sam.first_step()
        backward(model, grads[4])
        with pytest.raises(ValueError, match="hold the average x"):
            sam.second_step()
        assert bits(model) == x
    assert bits(model) == bits(twin) != x


# State ------------------------------------------------------------------------------------------


@PRECISIONS
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_saved_in_either_mode(mode, dtype, options, problem, gradients, backward, tmp_path):
    first, second = (start(problem, dtype, name="mine", **options) for _ in range(2))
    grads = gradients(first[0], 8)
    train(*first, grads[:4], backward)
    getattr(first[1], mode)()
    paddle.save(first[0].state_dict(), str(tmp_path / "model.pdparams"))
    paddle.save(first[1].state_dict(), str(tmp_path / "optimizer.pdopt"))
    train(*second, grads[5:7], backward)  # what is loaded must replace what is there
    getattr(second[1], {"train": "eval", "eval": "train"}[mode])()
    second[0].set_state_dict(paddle.load(str(tmp_path / "model.pdparams")))
    second[1].set_state_dict(paddle.load(str(tmp_path / "optimizer.pdopt")))
    assert bits(first[0]) == bits(second[0])
    for model, optimizer in (first, second):
        if mode == "eval":
            backward(model, grads[4])
            with pytest.raises(ValueError, match="hold the average"):
                optimizer.step()
            optimizer.train()
        train(model, optimizer, grads[4:], backward)
        optimizer.eval()
    assert bits(first[0]) == bits(second[0])


def test_wrong_states_change_nothing(problem, gradients, backward):
    model, optimizer = start(problem, "bfloat16")
    train(model, optimizer, gradients(model, 2), backward)
    optimizer.eval()
    good, before = dict(optimizer.state_dict()), bits(model)
    name = model.matrix.name
    with pytest.raises(ValueError, match=rf"lacks \['average'\] for parameter '{name}'"):
        optimizer.set_state_dict({k: v for k, v in good.items() if k != f"{name}_average_0"})
    for key, value, message in (
        ("average", paddle.zeros([3]), "has shape"),
        ("y", paddle.zeros([3, 3]), "has shape"),
        ("y", paddle.zeros([7, 5]), "is paddle.float32 in the state"),
    ):
        with pytest.raises(ValueError, match=message):
            optimizer.set_state_dict({**good, f"{name}_{key}_0": value})
    assert bits(model) == before
    optimizer.train()
    assert bits(model) != before


def test_no_average_without_its_share_in_y(problem):
    parameters = problem().parameters()
    with pytest.raises(ValueError, match=r"beta1 must lie in \(0, 1\)"):
        optim.ScheduleFreeAdamW(parameters=parameters, beta1=0.0)
    with pytest.raises(ValueError, match="cautious_weight_decay must be False"):
        groups = [{"params": parameters, "cautious_weight_decay": True}]
        optim.ScheduleFreeAdamW(parameters=groups, weight_decay=0.1)


def test_defaults_are_the_authors():
    defaults = optim.info("schedule_free_adamw").defaults
    assert math.isclose(defaults["learning_rate"], 0.0025)
    assert (defaults["beta1"], defaults["beta2"], defaults["warmup_steps"]) == (0.9, 0.999, 0)
