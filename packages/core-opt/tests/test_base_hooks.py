"""What Paddle's scalers and wrappers do to an optimiser from outside."""

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim


def bits(model):
    return {key: p.numpy().tobytes() for key, p in model.named_parameters()}


def grouped(model, **options):
    parameters = model.parameters()
    groups = [{"params": parameters[:3]}, {"params": parameters[3:], "weight_decay": 0.1}]
    return optim.AdamW(0.02, parameters=groups, **options)


def overflow(optimizer, value=True):
    """As a GradScaler that has looked at the gradients."""
    optimizer._set_auxiliary_var("found_inf", paddle.to_tensor([value]))


def hand_over(optimizer):
    """Paddle's own step, which calls ``_apply_optimize`` for each group."""
    paddle.optimizer.Optimizer.step(optimizer)


@pytest.mark.parametrize("nonfinite", ["raise", "skip", "propagate"])
def test_an_overflow_leaves_out_every_group(nonfinite, problem, gradients, backward):
    model = problem()
    inside = grouped(model, nonfinite=nonfinite)
    wrapped = optim.EMA(optim.Lookahead(inside, k=2), decay=0.5)
    good, bad, last = gradients(model, 3)
    bad = {key: np.full_like(value, np.inf) for key, value in bad.items()}
    backward(model, good)
    overflow(wrapped, False)
    hand_over(wrapped)
    before = bits(model)
    backward(model, bad)
    overflow(wrapped)
    hand_over(wrapped)
    assert bits(model) == before and wrapped.updates == wrapped.steps == 1
    assert wrapped._get_auxiliary_var("found_inf") is True  # which the scaler reads
    assert inside.skipped_steps == 0
    backward(model, last)
    overflow(wrapped, False)
    hand_over(wrapped)
    assert wrapped.updates == wrapped.steps == 2
    assert all(bits(model)[key] != before[key] for key in before)


@pytest.mark.parametrize("wrapper", [optim.EMA, optim.Lookahead])
def test_the_whole_number_of_paddles_main_grad_scaler_is_an_answer(
    wrapper, problem, gradients, backward
):
    """``MixPrecisionScaler`` tells an overflow by 1 or 0, not by a tensor."""
    model = problem()
    optimizer = wrapper(grouped(model))
    before = bits(model)
    backward(model, gradients(model, 1)[0])
    for found_inf in (1, 0):
        optimizer._set_auxiliary_var("found_inf", found_inf)
        optimizer.step()
        assert (bits(model) == before) == bool(found_inf)
    assert (optimizer.updates if wrapper is optim.EMA else optimizer.steps) == 1


@pytest.mark.parametrize("call", ["step", "minimize"])
@pytest.mark.parametrize("wrapper", [None, optim.EMA, optim.Lookahead, optim.SAM])
def test_a_step_without_the_scaler_forgets_its_overflow(
    call, wrapper, problem, gradients, backward
):
    model = problem()
    optimizer = grouped(model)
    if wrapper is not None:
        optimizer = wrapper(optimizer)
    grads = gradients(model, 1)[0]
    if wrapper is optim.SAM:
        model.forward = lambda x: x
        pairs = [(p, paddle.to_tensor(grads[key])) for key, p in model.named_parameters()]
        loss = optimizer.remember(model, lambda _: sum((p * g).sum() for p, g in pairs))
    before = bits(model)
    for scaled in (True, False):
        if wrapper is optim.SAM:
            optimizer.clear_grad()
            loss(model(paddle.ones([1]))).backward()
        else:
            backward(model, grads)
        if scaled:
            overflow(optimizer)
        optimizer.step() if call == "step" else optimizer.minimize(None)
        assert (bits(model) == before) == scaled
    counted = {optim.EMA: "updates", optim.Lookahead: "steps"}.get(wrapper)
    assert counted is None or getattr(optimizer, counted) == 1


@pytest.mark.parametrize("bad", ["matrix", "scalar"])
def test_a_refusal_tells_whether_an_earlier_group_has_stepped(bad, problem, gradients, backward):
    model = problem()
    optimizer = grouped(model)
    grads = gradients(model, 1)[0]
    grads[bad].flat[0] = np.nan
    before = bits(model)
    backward(model, grads)
    with pytest.raises(FloatingPointError, match=f"'{getattr(model, bad).name}'") as error:
        hand_over(optimizer)
    changed = {key for key in before if bits(model)[key] != before[key]}
    assert changed == (set() if bad == "matrix" else {"matrix", "tall", "wide"})
    assert ("Nothing was changed." in str(error.value)) == (not changed)
    assert ("groups before it were updated" in str(error.value)) == bool(changed)
    assert "nonfinite=" in str(error.value)


def state_bits(optimizer):
    state = optimizer.state_dict()
    masters = state.pop("master_weights", {})
    tensors = {**state, **{f"master {key}": value for key, value in masters.items()}}
    return {key: value.numpy().tobytes() for key, value in tensors.items()}


def paddles_state(model, multi_precision):
    """State of Paddle's AdamW after a step, which no kernel of its own takes on the CPU."""
    with paddle.utils.unique_name.guard():
        theirs = paddle.optimizer.AdamW(
            0.02, parameters=model.parameters(), multi_precision=multi_precision
        )
        theirs._create_accumulators(
            paddle.static.default_main_program().global_block(), model.parameters()
        )
    state = theirs.state_dict()
    for key, tensor in state.items():
        if "_pow_acc_" in key:
            tensor.set_value(paddle.square(tensor.astype("float32")).astype(tensor.dtype))
    return dict(state)


@pytest.mark.parametrize("kind", ["ours", "paddle"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_master_weights_are_loaded_if_and_only_if_they_are_used(
    dtype, kind, problem, gradients, backward
):
    model = problem(dtype)
    grads = gradients(model, 2)
    with_masters = optim.AdamW(0.02, parameters=model.parameters(), multi_precision=True)
    without = optim.AdamW(0.02, parameters=model.parameters())
    for optimizer in (with_masters, without):
        backward(model, grads[0])
        optimizer.step()
    full, bare = (
        dict(one.state_dict()) if kind == "ours" else paddles_state(model, multi_precision)
        for one, multi_precision in ((with_masters, True), (without, False))
    )
    partial = {**full, "master_weights": dict(full["master_weights"])}
    del partial["master_weights"][model.tall.name]
    for optimizer, state, message in (
        (with_masters, bare, f"no master weight of {model.matrix.name!r}.*multi_precision=False"),
        (with_masters, partial, f"no master weight of {model.tall.name!r}"),
        (without, full, f"master weight of {model.matrix.name!r}.*multi_precision=True"),
    ):
        before = state_bits(optimizer)
        with pytest.raises(ValueError, match=message):
            optimizer.set_state_dict(state)
        assert state_bits(optimizer) == before
    for optimizer, state in ((with_masters, full), (without, bare)):
        optimizer.set_state_dict(state)


def test_parameters_that_have_not_stepped_need_no_master_weight(problem, gradients, backward):
    model = problem("bfloat16")
    grads = gradients(model, 1)[0]
    del grads["tall"]
    first, second = (
        optim.AdamW(0.02, parameters=model.parameters(), multi_precision=True) for _ in range(2)
    )
    backward(model, grads)
    first.step()
    second.set_state_dict(first.state_dict())
    assert state_bits(second) == state_bits(first)


def test_the_noise_of_rounding_is_each_tensors_own():
    """No tensor's noise is another's, shifted; nor is it the next step's, with the next seed."""
    size = 20000
    layer = paddle.nn.Layer()
    for index in range(3):
        attr = paddle.nn.initializer.Constant(1.0)
        layer.add_parameter(f"w{index}", layer.create_parameter([size], attr=attr))
    layer.to(dtype="bfloat16")
    optimizer = optim.AdamW(
        2.0**-9, parameters=layer.parameters(), path="paddle", stochastic_rounding=True,
        weight_decay=0.0,
    )  # fmt: skip
    found = []
    for _ in range(2):
        for parameter in layer.parameters():
            parameter.set_value(paddle.ones([size], dtype="bfloat16"))
            (parameter.astype("float32") * 1.0).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
        for parameter in layer.parameters():
            down = parameter.astype("float32").numpy() < 1
            assert abs(down.mean() - 0.5) < 4 * 0.5 / np.sqrt(size)  # half of the spacing below 1
            found.append(down[4:-4])
            found_at = [down[4 + shift : size - 4 + shift] for shift in range(-4, 5)]
            for other in found[:-1]:
                for shifted in found_at:
                    assert abs((shifted == other).mean() - 0.5) < 5 * 0.5 / np.sqrt(size)
