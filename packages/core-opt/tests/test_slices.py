"""Flat slices in the place of parameters, as Paddle's sharding of the second stage hands them over."""

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim

PATHS = pytest.mark.parametrize("path", ["native", "paddle"])
WHOLE = {
    "lamb": (optim.Lamb, {}),
    "lars": (optim.Lars, {}),
    "lars-vectors": (optim.Lars, {"adapt_vectors": True}),
    "adafactor": (optim.Adafactor, {}),
    "adam_mini": (optim.AdamMini, {}),
    "mars": (optim.MARS, {}),
    "mars-vectors": (optim.MARS, {"optimize_1d": True}),
}
APART = {
    "adamw": (optim.AdamW, {}),
    "lion": (optim.Lion, {}),
    "lamb": (optim.Lamb, {"weight_decay": 0.0}),
    "lars": (optim.Lars, {}),
    "mars": (optim.MARS, {}),
}


def parameter(shape):
    value = paddle.to_tensor(np.linspace(-1, 1, int(np.prod(shape)), dtype="float32"))
    return paddle.base.framework.EagerParamBase.from_tensor(value.reshape(shape))


def slice_of(whole, size):
    part = parameter([size])
    part.name = whole.name
    part.set_value(whole.flatten()[:size])
    return part


def build(kind, whole, path, options):
    group = {"params": [whole]}
    if kind in (optim.AdamMini, optim.MARS):
        group["role"] = "hidden_matrix" if whole.ndim > 1 else "vector"
    return kind(0.02, parameters=[group], path=path, **options)


def hand_over(optimizer, part):
    optimizer._apply_optimize(None, None, [(part, paddle.ones_like(part))])


@PATHS
@pytest.mark.parametrize(
    "name, shape",
    [
        (name, shape)
        for name in WHOLE
        for shape in ([6, 4], [24])
        if len(shape) > 1 or name not in ("lars", "mars")  # vectors of these: below
    ],
)
def test_rules_that_need_the_whole_refuse_a_slice(name, shape, path):
    kind, options = WHOLE[name]
    whole = parameter(shape)
    optimizer = build(kind, whole, path, options)
    part = slice_of(whole, 10)
    before = part.numpy()
    with pytest.raises(ValueError, match=r"sharded, and its rule needs it whole. Gather"):
        hand_over(optimizer, part)
    assert (part.numpy() == before).all()
    hand_over(optimizer, whole)  # the parameter itself still steps
    assert (whole.flatten()[:10].numpy() != before).any()


@PATHS
def test_a_slice_is_refused_after_loading_too(path):
    whole, again = parameter([6, 4]), parameter([6, 4])
    first = build(optim.Lamb, whole, path, {})
    hand_over(first, whole)
    again.name = whole.name
    second = build(optim.Lamb, again, path, {})
    second.set_state_dict(first.state_dict())
    with pytest.raises(ValueError, match="sharded, and its rule needs it whole"):
        hand_over(second, slice_of(again, 10))
    hand_over(second, again)


def check_alone(kind, options, shape, path):
    """Each element of a slice takes the step that it takes in the whole."""
    whole, twin = parameter(shape), parameter(shape)
    part = slice_of(whole, 10)
    hand_over(build(kind, whole, path, options), part)
    hand_over(build(kind, twin, path, options), twin)
    np.testing.assert_array_equal(part.numpy(), twin.flatten()[:10].numpy())


@PATHS
@pytest.mark.parametrize("name", APART)
def test_rules_that_take_each_element_alone_take_a_slice(name, path):
    kind, options = APART[name]
    shape = [24] if name in ("lars", "mars") else [6, 4]
    check_alone(kind, options, shape, path)
