"""Cautious weight decay, of every optimiser whose decay is decoupled."""

import dataclasses
from typing import ClassVar

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim
from oarlock.core_opt.optim.adamw import AdamWRule

PATHS = ("native", "paddle")
LR, DECAY = 0.02, 0.5


def refuses(name):
    """Whether the decay of this optimiser is a part of its direction."""
    with paddle.utils.unique_name.guard():
        layer = paddle.nn.Linear(4, 4)
    roles = {"role": "hidden_matrix"} if optim.info(name).needs_roles else {}
    optimizer = optim.create(name, [{"params": layer.parameters()[:1], **roles}], weight_decay=0.1)
    return not all(slot.rule.decoupled for slot in optimizer._slots.values())


NAMES = [name for name in optim.list() if not refuses(name)]
OTHERS = [name for name in optim.list() if refuses(name)]
EVERY = pytest.mark.parametrize(
    "name,path", [(name, path) for name in NAMES for path in PATHS], ids=lambda value: value
)


def build(name, model, path, decay, **options):
    if optim.info(name).needs_roles:
        options["roles"] = model.role
    for key in optim.info(name).defaults:
        if key.endswith("weight_decay"):  # that of AdamW's part too
            options.setdefault(key, decay)
    return optim.create(name, model.parameters(), learning_rate=LR, path=path, **options)


def bits(model):
    return {key: p.numpy().tobytes() for key, p in model.named_parameters()}


def test_the_members_are_known():
    assert {"adamw", "muon"} <= set(NAMES)


@EVERY
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_equals_the_formula(name, path, dtype, problem, gradients, backward):
    """The update comes from the same optimiser without decay, from the same point and state."""
    cautious, bare = problem(dtype), problem("float32")
    ours = optim.cautious_weight_decay(
        build(name, cautious, path, DECAY, multi_precision=dtype != "float32")
    )
    plain = build(name, bare, path, 0.0)
    left_out = 0
    for grad in gradients(cautious, 6):
        before = {key: q.numpy().copy() for key, q in bare.named_parameters()}
        for model, optimizer in ((cautious, ours), (bare, plain)):
            backward(model, grad)
            optimizer.step()
        for (key, p), (_, q) in zip(cautious.named_parameters(), bare.named_parameters()):
            found = ours._master_weights.get(p.name, p).numpy()
            after, old = q.numpy(), before[key]
            rate = LR * plain._slots[q.name].rule.lr_scale * DECAY
            mask = np.sign(old - after) * old >= 0
            np.testing.assert_allclose(found, after - rate * old * mask, rtol=1e-6, atol=1e-7)
            left_out += (~mask).sum()
            q.set_value(found)
    assert left_out > 50  # plain decay would have been noticed


@pytest.mark.parametrize("path", PATHS)
def test_adamw_by_hand(path):
    start = np.array([1.0, -1.0, 2.0, -2.0, 0.0], "float32")
    grad = np.array([1.0, 1.0, -1.0, -1.0, 1.0], "float32")
    layer = paddle.nn.Layer()
    layer.w = layer.create_parameter([5])
    layer.w.set_value(start)
    optimizer = optim.AdamW(0.1, parameters=[layer.w], weight_decay=0.5, path=path)
    optim.cautious_weight_decay(optimizer)
    (layer.w * paddle.to_tensor(grad)).sum().backward()
    optimizer.step()
    # AdamW's first update is the sign of the gradient; it agrees with w in the 1st, 4th and 5th
    decay = np.array([1, 0, 0, 1, 1]) * 0.05 * start
    np.testing.assert_allclose(layer.w.numpy(), start - 0.1 * grad - decay, rtol=1e-6)


@EVERY
def test_without_decay_it_changes_no_bit(name, path, problem, gradients, backward):
    model, twin = problem(), problem()
    groups = [{"params": model.parameters(), "cautious_weight_decay": True}]
    options = {"roles": model.role} if optim.info(name).needs_roles else {}
    for key in optim.info(name).defaults:
        if key.endswith("weight_decay"):
            options[key] = 0.0
    ours = optim.create(name, groups, learning_rate=LR, path=path, **options)
    plain = build(name, twin, path, 0.0)
    for grad in gradients(model, 3):
        for m, o in ((model, ours), (twin, plain)):
            backward(m, grad)
            o.step()
    assert bits(model) == bits(twin)


def test_a_group_may_have_it_alone(problem, gradients, backward):
    model, everywhere, nowhere = problem(), problem(), problem()
    rest = [p for p in model.parameters() if p is not model.matrix]
    groups = [{"params": [model.matrix], "cautious_weight_decay": True}, {"params": rest}]
    optimizers = [
        optim.AdamW(LR, parameters=groups, weight_decay=DECAY),
        optim.cautious_weight_decay(build("adamw", everywhere, None, DECAY)),
        build("adamw", nowhere, None, DECAY),
    ]
    for grad in gradients(model, 3):
        for m, o in zip((model, everywhere, nowhere), optimizers):
            backward(m, grad)
            o.step()
    assert bits(model)["matrix"] == bits(everywhere)["matrix"] != bits(nowhere)["matrix"]
    assert bits(model)["tall"] == bits(nowhere)["tall"] != bits(everywhere)["tall"]


@pytest.mark.parametrize("path", PATHS)
def test_bfloat16_without_masters_is_decayed_before_it_is_rounded(
    path, problem, gradients, backward
):
    """Small updates round to nothing in bfloat16, but their signs count."""
    model, exact = problem("bfloat16"), problem()
    for m in (model, exact):
        optimizer = optim.AdamW(1e-4, parameters=m.parameters(), weight_decay=500.0, path=path)
        optim.cautious_weight_decay(optimizer)
        backward(m, gradients(m, 1)[0])
        optimizer.step()
    for p, q in zip(model.parameters(), exact.parameters()):
        assert p.numpy().tobytes() == q.astype("bfloat16").numpy().tobytes()


def test_state_is_that_of_the_optimiser(problem, gradients, backward):
    first, second = problem(), problem()
    ours = optim.cautious_weight_decay(build("adamw", first, None, DECAY))
    again = optim.cautious_weight_decay(build("adamw", second, None, DECAY))
    grads = gradients(first, 4)
    for grad in grads[:2]:
        backward(first, grad)
        ours.step()
    second.set_state_dict(first.state_dict())
    again.set_state_dict(ours.state_dict())
    for grad in grads[2:]:
        for m, o in ((first, ours), (second, again)):
            backward(m, grad)
            o.step()
    assert bits(first) == bits(second)


def test_it_is_switched_on_through_wrappers(problem):
    model = problem()
    inside = build("adamw", model, None, DECAY)
    wrapped = optim.Lookahead(inside)
    assert optim.cautious_weight_decay(wrapped) is wrapped
    assert all(slot.rule.cautious_weight_decay for slot in inside._slots.values())


def test_decay_inside_the_direction_is_refused(problem):
    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class Coupled(AdamWRule):
        decoupled: ClassVar[bool] = False

    parameters = problem().parameters()
    own = optim.Optimizer(
        learning_rate=LR, parameters=parameters, rules=Coupled(weight_decay=DECAY)
    )
    for optimizer in [own, *(build(name, problem(), None, DECAY) for name in OTHERS)]:
        with pytest.raises(ValueError, match="cautious_weight_decay must be False"):
            optim.cautious_weight_decay(optimizer)
        assert not any(slot.rule.cautious_weight_decay for slot in optimizer._slots.values())


def test_wrong_use_is_refused(problem):
    model = problem()
    with pytest.raises(ValueError, match="no weight decay"):
        optim.cautious_weight_decay(build("adamw", model, None, 0.0))
    with pytest.raises(ValueError, match="this package's"):
        optim.cautious_weight_decay(paddle.optimizer.AdamW(parameters=model.parameters()))
    with pytest.raises(ValueError, match="^cautious_weight_decay must be True or False"):
        optim.AdamW(parameters=[{"params": model.parameters(), "cautious_weight_decay": 1}])
