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
