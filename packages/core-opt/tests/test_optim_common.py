"""The suite that every optimiser of the registry passes, on both paths."""

import math
import types

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oarlock.core_opt import optim
from oarlock.core_opt.optim import schedules
from oarlock.core_opt.optim.reference import STEPS

NAMES = optim.list()
PATHS = ("native", "paddle")
# Learning rates of the two descents, chosen once for each optimiser.
ROSENBROCK_LR = {
    "adafactor": 0.1,
    "adam_mini": 0.05,
    "adamw": 0.05,
    "lamb": 0.1,
    "lars": 0.01,
    "lion": 0.01,
    "mars": 0.05,
    "muon": 0.05,
    "normuon": 0.05,
    "schedule_free_adamw": 0.2,
    "shampoo": 0.05,
    "soap": 0.05,
    "soap_muon": 0.05,
    "sophia_g": 0.01,
}
NETWORK_LR = {
    "adafactor": 0.05,
    "adam_mini": 0.01,
    "adamw": 0.01,
    "lamb": 0.03,
    "lars": 0.01,
    "lion": 0.005,
    "mars": 0.01,
    "muon": 0.02,
    "normuon": 0.02,
    "schedule_free_adamw": 0.05,
    "shampoo": 0.01,
    "soap": 0.01,
    "soap_muon": 0.02,
    "sophia_g": 0.005,
}
# Options of all tests here that set none themselves, in place of the defaults.
OPTIONS = {
    # a step is a thousandth of the learning rate by default: nothing would be seen but rounding
    "lars": {"trust_coefficient": 1.0},
    # nothing here has labels to sample: steps without a new Hessian; test_sophia.py has them
    "sophia_g": {"hessian_interval": None},
}
# Options of the descents.
DESCENT = {
    # steps relative to the weights are slow where these start at zero, or have far to go
    "adafactor": {"scale_parameter": False},
}
# Options with which a step on ones, along a gradient of ones, is the learning rate.
UNIT_STEP = {"lars": {"momentum": 0.0}, "mars": {"adamw_weight_decay": 0.0}}
# Learning rates by which 16 such steps move a parameter: 16, except where they are averaged.
MOVED = {
    "schedule_free_adamw": 9.25,  # 0.1 * 16 + 0.9 * 8.5: z, and x, which is the mean of z
}
# What is left of a weight after three steps with a zero gradient, by learning rate and weight
# decay: (1 - lr weight_decay)^3, except where decay is a part of the direction.
LEFT = {
    # the direction, decay alone, is scaled to the norm of the weights
    "lamb": lambda lr, decay: (1 - lr) ** 3 if decay else 1.0,
    # decay goes through a momentum of 0.9
    "lars": lambda lr, decay: decay_with_momentum(lr * decay),
    # decay acts on z, and the weight is an average of it
    "schedule_free_adamw": lambda lr, decay: averaged_decay(lr * decay),
}
# A few units of 2^-8, gathered over 10 steps: by default they average out to 0.05.
# Where steps are of one size, so are their rounding errors; the worst case is 10 halves of 2^-6.
BFLOAT16_TOLERANCE = {"lion": 0.1, "normuon": 0.1, "sophia_g": 0.1}
# Singular values near zero amplify rounding here: by the slope of the iteration, in each step.
ORTHOGONAL = {"muon", "normuon", "soap_muon"}
EVERY = pytest.mark.parametrize(
    "name,path", [(name, path) for name in NAMES for path in PATHS], ids=lambda value: value
)


def averaged_decay(amount, beta1=0.9, steps=3):
    y, z = 1.0, [1.0]
    for _ in range(steps):
        z.append(z[-1] - amount * y)
        y = (1 - beta1) * z[-1] + beta1 * sum(z[1:]) / len(z[1:])
    return y


def decay_with_momentum(amount, momentum=0.9, steps=3):
    weight, buffer = 1.0, 0.0
    for _ in range(steps):
        buffer = momentum * buffer + amount * weight
        weight -= buffer
    return weight


def create(which, model_or_parameters, **options):
    return optim.create(which, model_or_parameters, **{**OPTIONS.get(which, {}), **options})


def build(which, model, path=None, **options):
    if optim.info(which).needs_roles:
        options.setdefault("roles", model.role)
    return create(which, model.parameters(), path=path, **options)


def values(model):
    return {key: p.astype("float64").numpy().copy() for key, p in model.named_parameters()}


def bits(model):
    return {key: p.numpy().tobytes() for key, p in model.named_parameters()}


def state_bits(optimizer):
    state = optimizer.state_dict()
    masters = state.pop("master_weights", {})
    state.pop("LR_Scheduler", None)
    tensors = {**state, **{f"master {key}": value for key, value in masters.items()}}
    return {key: value.numpy().tobytes() for key, value in tensors.items()}


def reference(name, model, grads, lrs, **options):
    """Parameters after the reference's steps from ``model``'s values, in float64."""
    options = {**optim.info(name).defaults, **OPTIONS.get(name, {}), **options}
    found, states = values(model), {}
    for number, (grad, lr) in enumerate(zip(grads, lrs), 1):
        for key, parameter in model.named_parameters():
            found[key] = STEPS[name](
                found[key],
                grad[key].astype("float64"),
                states.setdefault(key, {}),
                step=number,
                lr=lr,
                role=model.role[parameter.name],
                options=options,
            )
    return found


def assert_close(model, expected, tolerance):
    """Largest error of each parameter, relative to its root mean square."""
    for key, found in values(model).items():
        size = math.sqrt(np.mean(expected[key] ** 2))
        error = np.abs(found - expected[key]).max() / size
        assert error <= tolerance, f"{key}: {error:.2e} > {tolerance:.0e}"


# Equality ---------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_equals_reference_for_20_steps(name, path, decay, problem, gradients, backward):
    model = problem()
    lrs = [0.02 * (1 - step / 40) for step in range(20)]
    grads = gradients(model, 20)
    expected = reference(name, model, grads, lrs, weight_decay=decay)
    optimizer = build(name, model, path, learning_rate=0.02, weight_decay=decay)
    for grad, lr in zip(grads, lrs):
        optimizer.set_lr(lr)
        backward(model, grad)
        optimizer.step()
    assert_close(model, expected, 2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_float64_equals_reference(name, problem, gradients, backward):
    model = problem("float64")
    grads = gradients(model, 20)
    expected = reference(name, model, grads, [0.02] * 20)
    optimizer = build(name, model, learning_rate=0.02)
    for grad in grads:
        backward(model, grad)
        optimizer.step()
    assert_close(model, expected, 1e-12)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(1, 37), min_size=2, max_size=2), min_size=1, max_size=4),
    seed=st.integers(0, 2**16),
)
def test_paths_agree_on_odd_shapes(name, shapes, seed):
    found = []
    for path in PATHS:
        rng = np.random.default_rng(seed)
        model = paddle.nn.Layer()
        for index, shape in enumerate(shapes):
            parameter = model.create_parameter(shape)
            parameter.set_value(rng.standard_normal(shape).astype("float32"))
            model.add_parameter(f"p{index}", parameter)
        group = {"params": model.parameters()}
        if optim.info(name).needs_roles:
            group["role"] = "hidden_matrix"
        optimizer = create(name, [group], learning_rate=0.02, path=path)
        for _ in range(3):
            for parameter in model.parameters():
                grad = paddle.to_tensor(rng.standard_normal(parameter.shape).astype("float32"))
                (parameter * grad).sum().backward()
            optimizer.step()
            optimizer.clear_grad()
        found.append(np.concatenate([p.numpy().ravel() for p in model.parameters()]))
    tolerance = 5e-4 if name in ORTHOGONAL else 2e-6
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6, atol=tolerance)


# Descent ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name,path,role",
    [
        (name, path, role)
        for name in NAMES
        for path in PATHS
        # one run where the role changes nothing
        for role in (["vector", "hidden_matrix"] if optim.info(name).needs_roles else [None])
    ],
)
def test_rosenbrock_descends(name, path, role):
    layer = paddle.nn.Layer()
    w = layer.create_parameter([2, 6], attr=paddle.nn.initializer.Constant(-0.5))
    group = {"params": [w]} if role is None else {"params": [w], "role": role}
    scheduler = schedules.LinearToZero(ROSENBROCK_LR[name], 250)
    options = {"adamw_lr_scale": 1.0} if "adamw_lr_scale" in optim.info(name).defaults else {}
    options.update(DESCENT.get(name, {}))
    optimizer = create(name, [group], learning_rate=scheduler, path=path, **options)
    losses = []
    for _ in range(250):
        loss = (paddle.square(1 - w[0]) + 100 * paddle.square(w[1] - paddle.square(w[0]))).sum()
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        scheduler.step()
    assert losses[-1] < 0.01 * losses[0]


@EVERY
def test_small_network_descends(name, path):
    paddle.seed(0)
    model = paddle.nn.Sequential(
        paddle.nn.Linear(2, 16), paddle.nn.Tanh(), paddle.nn.Linear(16, 16), paddle.nn.Tanh(),
        paddle.nn.Linear(16, 1),
    )  # fmt: skip
    x = paddle.uniform([64, 2], min=-1, max=1)
    y = (x[:, :1] * x[:, 1:]) * 3
    scheduler = schedules.WSD(NETWORK_LR[name], 150)
    options = {"adamw_lr_scale": 1.0} if "adamw_lr_scale" in optim.info(name).defaults else {}
    options.update(DESCENT.get(name, {}))
    optimizer = create(name, model, learning_rate=scheduler, path=path, **options)
    losses = []
    for _ in range(150):
        loss = paddle.nn.functional.mse_loss(model(x), y)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        scheduler.step()
    assert losses[-1] < 0.05 * losses[0]


# State ------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("dtype,master", [("float32", False), ("bfloat16", True)])
def test_save_and_load_mid_run(name, path, dtype, master, problem, gradients, backward, tmp_path):
    def start():
        model = problem(dtype)
        scheduler = schedules.WarmupCosine(0.02, 12, warmup_steps=3)
        optimizer = build(
            name, model, path, learning_rate=scheduler, multi_precision=master, weight_decay=0.1
        )
        return model, optimizer, scheduler

    def train(model, optimizer, scheduler, grads):
        for grad in grads:
            backward(model, grad)
            optimizer.step()
            scheduler.step()

    first = start()
    grads = gradients(first[0], 10)
    train(*first, grads[:5])
    paddle.save(first[0].state_dict(), str(tmp_path / "model.pdparams"))
    paddle.save(first[1].state_dict(), str(tmp_path / "optimizer.pdopt"))
    train(*first, grads[5:])

    second = start()
    train(*second, grads[7:9])  # what is loaded must replace what is there
    second[0].set_state_dict(paddle.load(str(tmp_path / "model.pdparams")))
    second[1].set_state_dict(paddle.load(str(tmp_path / "optimizer.pdopt")))
    train(*second, grads[5:])
    assert bits(second[0]) == bits(first[0])
    assert state_bits(second[1]) == state_bits(first[1])
    assert second[1].get_lr() == first[1].get_lr()


@pytest.mark.parametrize("name", NAMES)
def test_loading_a_wrong_state_changes_nothing(name, problem, gradients, backward):
    model = problem()
    optimizer = build(name, model, learning_rate=0.02)
    backward(model, gradients(model, 1)[0])
    optimizer.step()
    good, before = dict(optimizer.state_dict()), state_bits(optimizer)
    key = next(key for key in good if key.startswith(model.matrix.name))
    truncated = {k: v for k, v in good.items() if k != key}
    with pytest.raises(ValueError, match="lacks"):
        optimizer.set_state_dict(truncated)
    with pytest.raises(ValueError, match="has shape"):
        optimizer.set_state_dict({**good, key: paddle.zeros([3, 3])})
    with pytest.raises(ValueError, match="does not have"):
        optimizer.set_state_dict({**good, "another.w_0_moment1_0": paddle.zeros([3])})
    assert state_bits(optimizer) == before


@pytest.mark.parametrize("name", NAMES)
def test_state_has_the_stated_size_and_paddle_names(name, problem, gradients, backward):
    model = problem()
    optimizer = build(name, model, learning_rate=0.02, name="mine")
    backward(model, gradients(model, 1)[0])
    optimizer.step()
    matrix = model.matrix.name
    state = {k: v for k, v in optimizer.state_dict().items() if k.startswith(f"{matrix}_")}
    assert all(key.startswith(f"{matrix}_mine_") and key.endswith("_0") for key in state)
    # A square matrix in which rows, columns and neurons hardly count beside elements.
    matrix = paddle.nn.Linear(128, 128).weight
    group = {"params": [matrix]}
    if optim.info(name).needs_roles:
        group["role"] = "hidden_matrix"
    optimizer = optim.create(name, [group])
    matrix.sum().backward()
    optimizer.step()
    size = sum(v.numpy().nbytes for k, v in optimizer.state_dict().items() if "_step_" not in k)
    stated = optim.info(name).state_bytes_per_parameter
    assert size / matrix.size == pytest.approx(stated, abs=0.1)


# Gradients --------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_zero_gradients(name, path, decay, problem, backward):
    model = problem()
    before = values(model)
    optimizer = build(name, model, path, learning_rate=0.02, weight_decay=decay)
    for _ in range(3):
        backward(model, {key: np.zeros_like(value) for key, value in before.items()})
        optimizer.step()
    left = LEFT.get(name, lambda lr, decay: (1 - lr * decay) ** 3)(0.02, decay)
    np.testing.assert_allclose(model.matrix.numpy(), before["matrix"] * left, rtol=1e-6)
    assert all(np.isfinite(value).all() for value in values(model).values())


@EVERY
def test_missing_gradients_leave_the_parameter_and_its_step(
    name, path, problem, gradients, backward
):
    model, twin = problem(), problem()
    grads = gradients(model, 3)
    optimizer, other = (build(name, m, path, learning_rate=0.02) for m in (model, twin))
    before = bits(model)
    backward(model, {key: grads[0][key] for key in grads[0] if key != "matrix"})
    optimizer.step()
    assert bits(model)["matrix"] == before["matrix"]
    assert bits(model)["gain"] != before["gain"]
    for grad in grads[1:]:
        for m, o in ((model, optimizer), (twin, other)):
            backward(m, grad)
            o.step()
    assert bits(model)["matrix"] == bits(twin)["matrix"]  # its first step was not counted


@EVERY
def test_no_gradient_at_all_is_no_step(name, path, problem):
    model = problem()
    before = bits(model)
    optimizer = build(name, model, path, learning_rate=0.02)
    optimizer.step()
    assert bits(model) == before and not optimizer.state_dict()


@EVERY
def test_frozen_parameters_stay(name, path, problem, gradients, backward):
    model = problem()
    before = bits(model)
    optimizer = build(name, model, path, learning_rate=0.02)
    backward(model, gradients(model, 1)[0])
    model.matrix.stop_gradient = True
    optimizer.step()
    assert bits(model)["matrix"] == before["matrix"] and bits(model)["tall"] != before["tall"]


@EVERY
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_gradients_are_refused_by_name(name, path, bad, problem, gradients, backward):
    model = problem()
    optimizer = build(name, model, path, learning_rate=0.02)
    grads = gradients(model, 2)
    backward(model, grads[0])
    optimizer.step()
    before, state = bits(model), state_bits(optimizer)
    grads[1]["tall"][1, 2] = bad
    backward(model, grads[1])
    with pytest.raises(FloatingPointError, match=f"'{model.tall.name}'. Nothing was changed"):
        optimizer.step()
    assert bits(model) == before and state_bits(optimizer) == state


@EVERY
def test_non_finite_gradients_can_be_skipped_or_let_through(
    name, path, problem, gradients, backward
):
    model = problem()
    grads = gradients(model, 1)[0]
    grads["gain"][0] = math.nan
    before = bits(model)
    optimizer = build(name, model, path, learning_rate=0.02, nonfinite="skip")
    backward(model, grads)
    optimizer.step()
    assert bits(model) == before and optimizer.skipped_steps == 1
    optimizer = build(name, model, path, learning_rate=0.02, nonfinite="propagate")
    backward(model, grads)
    optimizer.step()
    assert np.isnan(values(model)["gain"][0]) and np.isfinite(values(model)["matrix"]).all()


def test_sparse_gradients_are_refused():
    table = paddle.nn.Embedding(10, 4, sparse=True)
    optimizer = optim.AdamW(parameters=table.parameters())
    table(paddle.to_tensor([1, 2])).sum().backward()
    with pytest.raises(ValueError, match="sparse=False"):
        optimizer.step()


# Precision --------------------------------------------------------------------------------------


@EVERY
def test_bfloat16_parameters_follow_float32(name, path, problem, gradients, backward):
    model, exact = problem("bfloat16"), problem()
    grads = gradients(model, 10)
    for m in (model, exact):
        optimizer = build(name, m, path, learning_rate=0.02)
        for grad in grads:
            backward(m, grad)
            optimizer.step()
    assert model.matrix.dtype == paddle.bfloat16
    assert_close(model, values(exact), BFLOAT16_TOLERANCE.get(name, 0.05))


@EVERY
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_multi_precision_is_float32_rounded(name, path, dtype, problem, gradients, backward):
    model, exact = problem(dtype), problem()
    grads = gradients(model, 5)
    low = build(name, model, path, learning_rate=0.02, multi_precision=True)
    full = build(name, exact, path, learning_rate=0.02)
    for grad in grads:
        for m, o in ((model, low), (exact, full)):
            backward(m, grad)
            o.step()
    for parameter, wide in zip(model.parameters(), exact.parameters()):
        master = low.state_dict()["master_weights"][parameter.name]
        assert master.numpy().tobytes() == wide.numpy().tobytes()
        assert parameter.numpy().tobytes() == wide.astype(dtype).numpy().tobytes()


@EVERY
def test_stochastic_rounding_keeps_small_updates(name, path):
    def run(stochastic, seed=0):
        with paddle.utils.unique_name.guard():
            layer = paddle.nn.Layer()
            w = layer.create_parameter([64, 64], attr=paddle.nn.initializer.Constant(1.0))
        layer.add_parameter("w", w)
        layer.to(dtype="bfloat16")
        group = {"params": [layer.w]}
        if optim.info(name).needs_roles:
            group["role"] = "vector"
        options = {"adamw_lr_scale": 1.0} if "adamw_lr_scale" in optim.info(name).defaults else {}
        options.update(UNIT_STEP.get(name, {}))
        optimizer = create(
            name, [group], learning_rate=2.0**-12, path=path, seed=seed,
            stochastic_rounding=stochastic, weight_decay=0.0, **options,
        )  # fmt: skip
        for _ in range(16):
            (layer.w.astype("float32") * 1.0).sum().backward()
            optimizer.step()
            optimizer.clear_grad()
        return layer.w.astype("float32").numpy()

    assert (run(False) == 1).all()  # each step of 2^-12 is an eighth of the spacing below 1
    moved = run(True)
    assert abs((1 - moved.mean()) / (MOVED.get(name, 16) * 2.0**-12) - 1) < 0.1
    assert (moved == run(True)).all() and (moved != run(True, seed=1)).any()


# Paddle's own interface -------------------------------------------------------------------------


@EVERY
def test_scheduler_equals_setting_the_rate(name, path, problem, gradients, backward):
    model, twin = problem(), problem()
    grads = gradients(model, 5)
    scheduler = paddle.optimizer.lr.StepDecay(0.02, step_size=2, gamma=0.5)
    scheduled = build(name, model, path, learning_rate=scheduler)
    manual = build(name, twin, path, learning_rate=0.02)
    for index, grad in enumerate(grads):
        manual.set_lr(0.02 * 0.5 ** (index // 2))
        for m, o in ((model, scheduled), (twin, manual)):
            backward(m, grad)
            o.step()
        scheduler.step()
    assert bits(model) == bits(twin)


@EVERY
def test_global_norm_clip_scales_the_gradients(name, path, problem, gradients, backward):
    model, twin = problem(), problem()
    grads = gradients(model, 3, scale=10.0)
    clip = paddle.nn.ClipGradByGlobalNorm(1.0)
    clipped = build(name, model, path, learning_rate=0.02, grad_clip=clip)
    plain = build(name, twin, path, learning_rate=0.02)
    for grad in grads:
        norm = math.sqrt(sum(np.square(g.astype("float64")).sum() for g in grad.values()))
        for m, o, g in (
            (model, clipped, grad),
            (twin, plain, {key: value / norm for key, value in grad.items()}),
        ):
            backward(m, g)
            o.step()
    assert_close(model, values(twin), 1e-5)


@EVERY
@pytest.mark.parametrize(
    "clip", [paddle.nn.ClipGradByNorm(0.5), paddle.nn.ClipGradByValue(0.3)], ids=["norm", "value"]
)
def test_other_clips(name, path, clip, problem, gradients, backward):
    model, twin = problem(), problem()
    grad = gradients(model, 1)[0]
    clipped = build(name, model, path, learning_rate=0.02, grad_clip=clip)
    plain = build(name, twin, path, learning_rate=0.02)
    pairs = clip([(p, paddle.to_tensor(grad[key])) for key, p in model.named_parameters()])
    by_name = {parameter.name: g.numpy() for parameter, g in pairs}
    backward(model, grad)
    clipped.step()
    backward(twin, {key: by_name[p.name] for key, p in twin.named_parameters()})
    plain.step()
    assert_close(model, values(twin), 1e-6)


@EVERY
def test_clip_leaves_out_what_need_clip_excludes_and_spans_groups(
    name, path, problem, gradients, backward
):
    model, twin = problem(), problem()
    model.gain.need_clip = False
    grad = gradients(model, 1, scale=10.0)[0]
    parameters = model.parameters()
    groups = [{"params": parameters[:3]}, {"params": parameters[3:]}]
    options = {"roles": model.role} if optim.info(name).needs_roles else {}
    clip = paddle.nn.ClipGradByGlobalNorm(2.0)
    optimizer = create(name, groups, learning_rate=0.02, path=path, grad_clip=clip, **options)
    backward(model, grad)
    optimizer.step()
    counted = [g for key, g in grad.items() if key != "gain"]
    factor = 2.0 / math.sqrt(sum(np.square(g.astype("float64")).sum() for g in counted))
    scaled = {key: g * (1.0 if key == "gain" else factor) for key, g in grad.items()}
    plain = build(name, twin, path, learning_rate=0.02)
    backward(twin, scaled)
    plain.step()
    assert_close(model, values(twin), 1e-6)


@EVERY
def test_groups_override_options(name, path, problem, gradients, backward):
    model, twin, third = problem(), problem(), problem()
    grads = gradients(model, 3)
    roles = {"roles": model.role} if optim.info(name).needs_roles else {}
    rest = [p for p in model.parameters() if p is not model.matrix]
    groups = [
        {"params": [model.matrix], "weight_decay": 0.5, "learning_rate": 0.25},
        {"params": rest},
        {"params": []},
    ]
    grouped = create(name, groups, learning_rate=0.02, path=path, weight_decay=0.1, **roles)
    quarter = build(name, twin, path, learning_rate=0.005, weight_decay=0.5)
    plain = build(name, third, path, learning_rate=0.02, weight_decay=0.1)
    for grad in grads:
        for m, o in ((model, grouped), (twin, quarter), (third, plain)):
            backward(m, grad)
            o.step()
    assert bits(model)["matrix"] == bits(twin)["matrix"]
    assert bits(model)["tall"] == bits(third)["tall"]
    grouped.clear_grad()
    assert all(
        p._grad_ivar() is None or not p._grad_ivar().numpy().any() for p in model.parameters()
    )


@EVERY
def test_param_attr_learning_rate(name, path, problem, gradients, backward):
    model, twin = problem(), problem()
    grad = gradients(model, 1)[0]
    model.matrix.optimize_attr["learning_rate"] = 0.5
    scaled = build(name, model, path, learning_rate=0.02)
    half = build(name, twin, path, learning_rate=0.01)
    for m, o in ((model, scaled), (twin, half)):
        backward(m, grad)
        o.step()
    assert bits(model)["matrix"] == bits(twin)["matrix"]


@EVERY
def test_decay_can_be_chosen_by_name(name, path, problem, gradients, backward):
    model, twin = problem(), problem()
    grad = gradients(model, 1)[0]
    left_out = model.matrix.name
    chosen = build(
        name, model, path, learning_rate=0.02, weight_decay=0.5,
        apply_decay_param_fun=lambda parameter: parameter != left_out,
    )  # fmt: skip
    without = build(name, twin, path, learning_rate=0.02, weight_decay=0.0)
    for m, o in ((model, chosen), (twin, without)):
        backward(m, grad)
        o.step()
    assert bits(model)["matrix"] == bits(twin)["matrix"]
    assert bits(model)["tall"] != bits(twin)["tall"]


@EVERY
def test_grad_scaler(name, path, problem, gradients, backward, monkeypatch):
    # Paddle disables the scaler where it sees no GPU; its kernels run on the CPU all the same.
    class Gpu:
        is_gpu_place = staticmethod(lambda: True)

    tracer = types.SimpleNamespace(_expected_place=Gpu)
    monkeypatch.setattr(paddle.amp.grad_scaler, "_dygraph_tracer", lambda: tracer)
    model, twin = problem(), problem()
    grads = gradients(model, 3)
    optimizer = build(name, model, path, learning_rate=0.02)
    plain = build(name, twin, path, learning_rate=0.02)
    scaler = paddle.amp.GradScaler(init_loss_scaling=1024.0, decr_every_n_nan_or_inf=1)
    for grad in grads[:2]:
        backward(model, {key: value * 1024 for key, value in grad.items()})
        scaler.step(optimizer)
        scaler.update()
        backward(twin, grad)
        plain.step()
    assert bits(model) == bits(twin)
    overflow = {key: value * np.float32(np.inf) for key, value in grads[2].items()}
    backward(model, overflow)
    scaler.step(optimizer)
    scaler.update()
    assert bits(model) == bits(twin) and scaler._scale.item() == 512.0
    backward(model, {key: value * 512 for key, value in grads[2].items()})
    backward(twin, grads[2])
    scaler.step(optimizer)
    plain.step()
    assert bits(model) == bits(twin)


@EVERY
def test_minimize_is_a_step(name, path, problem, gradients, backward):
    model, twin = problem(), problem()
    grad = gradients(model, 1)[0]
    first = build(name, model, path, learning_rate=0.02)
    second = build(name, twin, path, learning_rate=0.02)
    backward(model, grad)
    _, pairs = first.minimize(paddle.zeros([]))
    backward(twin, grad)
    second.step()
    assert bits(model) == bits(twin) and len(pairs) == len(model.parameters())


# Wrong arguments --------------------------------------------------------------------------------

WRONG = {
    "num_heads": [8, {"*": 0}, {"nothing.*": 2}],
    "warmup_steps": [-1, 1.5],
    "hessian_interval": [0, 2.5, True],
    "optimize_1d": [1],
    "max_norm": [0.0, math.inf],
    "gamma": [-0.1, math.nan],
    "learning_rate": [-0.1, math.nan, math.inf, "0.1", None, True],
    "weight_decay": [-0.1, math.nan, "0.1", paddle.regularizer.L2Decay(0.1)],
    "grad_clip": [1.0],
    "multi_precision": [1],
    "stochastic_rounding": ["yes"],
    "nonfinite": ["ignore"],
    "path": ["cuda"],
    "seed": [-1, 0.5, "0", None, True],
    "beta1": [1.0, -0.1, math.nan],
    "beta2": [1.0, "0.9"],
    "epsilon": [0.0, -1e-8],
    "momentum": [1.0, -0.1],
    "nesterov": [1],
    "ns_steps": [0, 2.5, True],
    "max_trust_ratio": [0.0, -1.0, math.inf, "1"],
    "always_adapt": [1],
    "trust_coefficient": [0.0, -0.001],
    "adapt_vectors": [1],
    "decay_exponent": [0.0, 1.5],
    "clip_threshold": [0.0, "1"],
    "epsilon_scale": [0.0],
    "relative_step": [1],
    "scale_parameter": ["no"],
    "min_dim_factored": [0, 1.5],
    "layout": ["matrix"],
    "coefficients": ["fast"],
    "update_scale": ["none"],
    "ns_dtype": ["int8"],
    "variance": ["row", True],
    "uw_floor": [-0.1, math.inf],
    "uw_floor_per": ["row"],
    "shampoo_beta": [1.0, -0.1, "0.9"],
    "soap_beta": [1.0, math.nan],
    "precondition_frequency": [0, 2.5, True],
    "max_precond_dim": [-1, 10.0],
    "block_size": [0, 2.5, None],
    "start_preconditioning_step": [0, 1.5],
    "grafting": ["sgd", True],
    "grafting_epsilon": [0.0],
    "sides": ["left"],
    "exponent": [0.0, 1.5, "1/4"],
    "pseudo_inverse": [1],
    "adamw_beta1": [1.0],
    "adamw_beta2": [-1],
    "adamw_epsilon": [0],
    "adamw_weight_decay": [-1],
    "adamw_lr_scale": [-1.0, {"head": 1.0}],
}


@pytest.mark.parametrize("name", NAMES)
def test_wrong_options_are_refused_by_name(name, problem):
    model = problem()
    tried = 0
    for key in optim.info(name).defaults:
        for value in WRONG.get(key, []):
            options = {"roles": model.role} if optim.info(name).needs_roles else {}
            with pytest.raises(ValueError, match=key.removeprefix("adamw_").split("_")[-1]):
                optim.info(name).cls(parameters=model.parameters(), **{key: value}, **options)
            tried += 1
    assert tried >= 15


def regularized():
    attribute = paddle.ParamAttr(regularizer=paddle.regularizer.L2Decay(0.1))
    return paddle.nn.Linear(2, 2, weight_attr=attribute).weight


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "parameters,message",
    [
        (None, "parameters is None"),
        ([], "parameters is empty"),
        ([{"params": []}], "parameters is empty"),
        (lambda m: m.matrix, "must be a list"),
        ([1.0], "must hold paddle tensors"),
        (lambda m: {"params": m.parameters()}, "must be a list"),
        (lambda m: [m.matrix, {"params": [m.tall]}], "must hold paddle tensors"),
        (lambda m: [{"parameters": [m.matrix]}], 'no "params" key'),
        (lambda m: [{"params": {m.matrix}}], "must be a list"),
        (lambda m: [m.matrix, m.matrix], "more than once"),
        (lambda m: [{"params": [m.matrix], "wieght_decay": 0.1}], "'weight_decay'"),
        (lambda m: [{"params": [m.matrix], "weight_decay": -1}], "weight_decay"),
        (lambda m: [{"params": [m.matrix], "learning_rate": -1}], "learning_rate"),
        ([paddle.ones([3], dtype="int64")], "dtype"),
        ([paddle.ones([3], dtype="complex64")], "dtype"),
        (lambda m: [paddle.ones([3, 3]).to_sparse_coo(2)], "sparse"),
        (lambda m: [regularized()], "weight_decay to a group"),
        (lambda m: [{"params": [m.matrix], "role": "matrix"}], "unknown role"),
    ],
)
def test_wrong_parameters_are_refused(name, parameters, message, problem):
    model = problem()
    if callable(parameters):
        parameters = parameters(model)
    options = {"roles": model.role} if optim.info(name).needs_roles else {}
    with pytest.raises(ValueError, match=message):
        optim.info(name).cls(parameters=parameters, **options)


@pytest.mark.parametrize("name", NAMES)
def test_native_path_refuses_what_it_cannot_do(name, problem, gradients, backward):
    model = problem("float64")
    before = bits(model)
    optimizer = build(name, model, "native", learning_rate=0.02)
    backward(model, gradients(model, 1)[0])
    with pytest.raises(ValueError, match='path="native" cannot update'):
        optimizer.step()
    assert bits(model) == before


@pytest.mark.parametrize("name", NAMES)
def test_a_schedule_that_goes_wrong_changes_nothing(name, problem, gradients, backward):
    model = problem()
    before = bits(model)
    scheduler = paddle.optimizer.lr.LambdaDecay(0.02, lambda step: math.nan)
    optimizer = build(name, model, learning_rate=scheduler)
    backward(model, gradients(model, 1)[0])
    with pytest.raises(ValueError, match="learning rate nan"):
        optimizer.step()
    assert bits(model) == before
