"""The suite that every wrapper passes around every optimiser."""

import copy
import math
import types

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim
from oarlock.core_opt.optim import schedules
from oarlock.core_opt.optim.wrappers._wrapper import Wrapper

NAMES = optim.list()
WRAPPERS = {
    "sam": lambda optimizer: optim.SAM(optimizer, rho=0.01),
    "asam": lambda optimizer: optim.SAM(optimizer, rho=0.1, adaptive=True),
    "ema": lambda optimizer: optim.EMA(optimizer, decay=0.9),
    "lookahead": lambda optimizer: optim.Lookahead(optimizer, k=2),
    "all": lambda optimizer: optim.SAM(optim.EMA(optim.Lookahead(optimizer, k=2), decay=0.9)),
}
COMBINE_STEPS = ("ema", "lookahead", "all")
AVERAGING = [name for name in NAMES if optim.info(name).cls.averages]
# One of each kind: elementwise, layerwise, factored, matrices by role, averaging. What a wrapper saves
# does not depend on the rule, so that one wrapper is saved around these and all of them around every.
KINDS = ("adamw", "lamb", "adafactor", "muon", "schedule_free_adamw")
PAIRS = [
    (name, wrapper)
    for name in NAMES
    for wrapper in WRAPPERS
    if name not in AVERAGING or wrapper not in COMBINE_STEPS
]
WRAPPED = pytest.mark.parametrize("wrapper", WRAPPERS)
EVERY_PAIR = pytest.mark.parametrize("name,wrapper", PAIRS)


def build(name, model, **options):
    if optim.info(name).needs_roles:
        options.setdefault("roles", model.role)
    options.setdefault("learning_rate", 0.01)
    return optim.create(name, model.parameters(), **options)


def take(wrapped, model, grad, backward):
    """One step with the given gradients; SAM gets the same ones twice."""
    backward(model, grad)
    if not isinstance(wrapped, optim.SAM):
        wrapped.step()
        return
    wrapped.first_step()
    backward(model, grad)
    wrapped.second_step()


def bits(model):
    return {key: p.numpy().tobytes() for key, p in model.named_parameters()}


def state_bits(optimizer):
    state = optimizer.state_dict()
    masters = state.pop("master_weights", {})
    state.pop("LR_Scheduler", None)
    return {key: value.numpy().tobytes() for key, value in {**state, **masters}.items()}


@pytest.mark.parametrize(
    "name,wrapper,dtype",
    [
        *((name, wrapper, "float32") for name, wrapper in PAIRS if name in KINDS),
        *((name, "all", "float32") for name in NAMES if name not in (*KINDS, *AVERAGING)),
        *((name, "sam" if name in AVERAGING else "all", "bfloat16") for name in NAMES),
    ],
)
def test_save_and_load_mid_cycle(name, wrapper, dtype, problem, gradients, backward, tmp_path):
    def start():
        model = problem(dtype)
        options = {"multi_precision": dtype == "bfloat16"}
        scheduler = schedules.WarmupCosine(0.02, 12, warmup_steps=3)
        inside = build(name, model, learning_rate=scheduler, **options)
        return model, WRAPPERS[wrapper](inside), scheduler

    def train(model, optimizer, scheduler, grads):
        for grad in grads:
            take(optimizer, model, grad, backward)
            scheduler.step()

    first = start()
    grads = gradients(first[0], 6)
    train(*first, grads[:3])
    paddle.save(first[0].state_dict(), str(tmp_path / "model.pdparams"))
    paddle.save(first[1].state_dict(), str(tmp_path / "optimizer.pdopt"))
    train(*first, grads[3:])
    second = start()
    train(*second, grads[4:5])  # what is loaded must replace what is there
    second[0].set_state_dict(paddle.load(str(tmp_path / "model.pdparams")))
    second[1].set_state_dict(paddle.load(str(tmp_path / "optimizer.pdopt")))
    train(*second, grads[3:])
    assert bits(second[0]) == bits(first[0])
    assert state_bits(second[1]) == state_bits(first[1])


@EVERY_PAIR
def test_the_optimiser_inside_is_the_one_that_steps(name, wrapper, problem, gradients, backward):
    """EMA, and Lookahead before it synchronises, leave the steps of the optimiser as they are."""
    model, twin = problem(), problem()
    wrapped, plain = WRAPPERS[wrapper](build(name, model)), build(name, twin)
    grads = gradients(model, 1)
    take(wrapped, model, grads[0], backward)
    backward(twin, grads[0])
    plain.step()
    assert bits(model) == bits(twin)
    inside = wrapped
    while hasattr(inside, "optimizer"):
        inside = inside.optimizer
    assert state_bits(inside) == state_bits(plain)


@WRAPPED
def test_non_finite_gradients_change_nothing(wrapper, problem, gradients, backward):
    for build_inside in (
        lambda model: build("adamw", model),
        lambda model: paddle.optimizer.Momentum(0.1, parameters=model.parameters()),
    ):
        model = problem()
        inside = build_inside(model)
        if not isinstance(inside, optim.Optimizer) and wrapper not in ("sam", "asam"):
            continue  # Paddle's optimisers take NaN, and only SAM must look for itself
        wrapped = WRAPPERS[wrapper](inside)
        grads = gradients(model, 2)
        take(wrapped, model, grads[0], backward)
        before, state = bits(model), state_bits(wrapped)
        bad = copy.deepcopy(grads[1])
        bad["tall"][1, 2] = math.nan
        backward(model, bad)
        call = wrapped.first_step if isinstance(wrapped, optim.SAM) else wrapped.step
        with pytest.raises(FloatingPointError, match=model.tall.name):
            call()
        assert bits(model) == before and state_bits(wrapped) == state
        if isinstance(wrapped, optim.SAM):
            backward(model, grads[1])
            wrapped.first_step()
            assert bits(model) != before
            backward(model, bad)
            with pytest.raises(FloatingPointError, match=model.tall.name):
                wrapped.second_step()
            assert bits(model) == before and state_bits(wrapped) == state


@WRAPPED
def test_it_is_an_optimiser_to_trainers(wrapper, problem, gradients, backward):
    model = problem()
    clip = paddle.nn.ClipGradByGlobalNorm(1.0)
    inside = build("adamw", model, learning_rate=0.1, grad_clip=clip)
    wrapped = WRAPPERS[wrapper](inside)
    assert isinstance(wrapped, paddle.optimizer.Optimizer)
    assert wrapped.get_lr() == 0.1 == wrapped._learning_rate
    assert wrapped._grad_clip is clip and wrapped._param_groups is inside._param_groups
    wrapped.set_lr(0.05)
    assert inside.get_lr() == 0.05
    scheduler = schedules.LinearToZero(0.2, 10)
    wrapped.set_lr_scheduler(scheduler)
    scheduler.step()
    assert wrapped.get_lr() == inside.get_lr() == pytest.approx(0.18)
    assert wrapped._learning_rate is scheduler and "LR_Scheduler" in wrapped.state_dict()
    wrapped._multi_precision = True  # as paddle.amp.decorate sets it
    assert inside._multi_precision is True
    backward(model, gradients(model, 1)[0])
    wrapped.clear_grad()
    assert not any(p._grad_ivar().numpy().any() for p in model.parameters())


@pytest.mark.parametrize("wrapper", ["ema", "lookahead"])
def test_minimize_is_a_step(wrapper, problem, gradients, backward):
    model, twin = problem(), problem()
    first, second = (WRAPPERS[wrapper](build("adamw", m)) for m in (model, twin))
    for grad in gradients(model, 3):
        backward(model, grad)
        _, pairs = first.minimize(paddle.zeros([]))
        backward(twin, grad)
        second.step()
    assert bits(model) == bits(twin) and state_bits(first) == state_bits(second)
    assert len(pairs) == len(model.parameters())


@pytest.mark.parametrize("wrapper", ["ema", "lookahead"])
@pytest.mark.parametrize("kind", ["ours", "paddle"])
def test_steps_that_a_scaler_leaves_out_are_not_counted(
    wrapper, kind, problem, gradients, backward, monkeypatch
):
    # Paddle disables the scaler where it sees no GPU; its kernels run on the CPU all the same.
    class Gpu:
        is_gpu_place = staticmethod(lambda: True)

    tracer = types.SimpleNamespace(_expected_place=Gpu)
    monkeypatch.setattr(paddle.amp.grad_scaler, "_dygraph_tracer", lambda: tracer)
    model = problem()
    inside = build("adamw", model)
    if kind == "paddle":
        inside = paddle.optimizer.AdamW(0.01, parameters=model.parameters())
    wrapped = WRAPPERS[wrapper](inside)
    counted = {"ema": lambda: wrapped.updates, "lookahead": lambda: wrapped.steps}[wrapper]
    scaler = paddle.amp.GradScaler(init_loss_scaling=64.0, decr_every_n_nan_or_inf=1)
    grads = gradients(model, 3)
    for grad, factor, expected in zip(grads, (64.0, math.inf, 32.0), (1, 1, 2)):
        backward(model, {key: value * np.float32(factor) for key, value in grad.items()})
        scaler.step(wrapped)
        scaler.update()
        assert counted() == expected


@pytest.mark.parametrize("wrapper", ["ema", "lookahead"])
def test_steps_that_the_check_leaves_out_are_not_counted(wrapper, problem, gradients, backward):
    model = problem()
    wrapped = WRAPPERS[wrapper](build("adamw", model, nonfinite="skip"))
    good, bad = gradients(model, 2)
    bad["gain"][0] = math.nan
    take(wrapped, model, good, backward)
    state = state_bits(wrapped)
    take(wrapped, model, bad, backward)
    assert state_bits(wrapped) == state and wrapped.skipped_steps == 1


@pytest.mark.parametrize("wrapper", ["ema", "lookahead"])
def test_loading_a_wrong_state_changes_nothing(wrapper, problem, gradients, backward):
    model = problem()
    wrapped = WRAPPERS[wrapper](build("adamw", model))
    for grad in gradients(model, 2):
        take(wrapped, model, grad, backward)
    good, before = dict(wrapped.state_dict()), state_bits(wrapped)
    mine = next(key for key in good if f"_{wrapper}_" in key)
    theirs = next(key for key in good if key.endswith("moment1_0"))
    for state, message in (
        ({k: v for k, v in good.items() if k != mine}, "lacks"),
        ({k: v for k, v in good.items() if k != theirs}, "lacks"),
        ({**good, mine: paddle.zeros([2, 9])}, "has shape"),
        ({**good, f"{wrapper}_step": paddle.zeros([2])}, "has shape"),
        (wrapped.optimizer.state_dict(), "saved without"),
    ):
        with pytest.raises(ValueError, match=message):
            wrapped.set_state_dict(state)
        assert state_bits(wrapped) == before
    fresh = WRAPPERS[wrapper](build("adamw", problem()))
    wrapped.set_state_dict(fresh.state_dict())
    assert not wrapped.state_dict()


@WRAPPED
def test_paddles_optimisers_can_be_wrapped(wrapper, problem, gradients, backward):
    model = problem()
    inside = paddle.optimizer.Momentum(0.01, parameters=model.parameters())
    wrapped = WRAPPERS[wrapper](inside)
    before = bits(model)
    for grad in gradients(model, 3):
        take(wrapped, model, grad, backward)
    assert all(bits(model)[key] != before[key] for key in before)
    state = {key: paddle.assign(value) for key, value in wrapped.state_dict().items()}
    wrapped.set_state_dict(state)
    assert state_bits(wrapped) == {key: value.numpy().tobytes() for key, value in state.items()}


def test_what_averages_by_itself_is_refused(problem):
    """EMA and Lookahead would take the points of its gradients for its iterates, in a chain too."""
    assert "schedule_free_adamw" in AVERAGING and "adamw" not in AVERAGING
    for name in AVERAGING:
        inside = build(name, problem())
        for optimizer in (inside, Wrapper(inside), optim.SAM(inside), optim.SAM(Wrapper(inside))):
            for wrapper in (optim.EMA, optim.Lookahead):
                message = rf"{type(inside).__name__} within {wrapper.__name__}.*averaged\(\)"
                with pytest.raises(ValueError, match=message):
                    wrapper(optimizer)


def test_wrong_wrapping_is_refused(problem):
    optimizer = build("adamw", problem())
    for wrapper in (optim.SAM, optim.EMA, optim.Lookahead):
        with pytest.raises(ValueError, match="already"):
            wrapper(wrapper(optimizer))
    with pytest.raises(ValueError, match="already"):
        optim.EMA(optim.Lookahead(optim.EMA(optimizer)))
    for wrapper in (optim.EMA, optim.Lookahead):
        with pytest.raises(ValueError, match=rf"outside: SAM\({wrapper.__name__}"):
            wrapper(optim.SAM(optimizer))
    for wrapper in (optim.SAM, optim.Lookahead):
        with pytest.raises(ValueError, match="^optimizer must be an optimiser"):
            wrapper(problem())
    for wrapper in (optim.SAM, optim.Lookahead):
        with pytest.raises(ValueError, match="^optimizer must have an optimiser inside"):
            wrapper(optim.EMA(problem()))
