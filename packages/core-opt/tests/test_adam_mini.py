"""Adam-mini: its blocks, by role and by head."""

import dataclasses

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim
from oarlock.core_opt.optim.reference import adam_mini as reference

PATHS = pytest.mark.parametrize("path", ["native", "paddle"])
# role, shape, heads, number of blocks
BLOCKS = [
    ("hidden_matrix", [6, 8], None, 8),
    ("hidden_matrix", [6, 8], 4, 4),
    ("hidden_matrix", [6, 8], 1, 1),
    ("hidden_matrix", [1, 12], 12, 12),
    ("head", [5, 9], None, 9),
    ("embedding", [9, 5], None, 9),
    ("experts", [3, 4, 5], None, 15),
    ("conv", [6, 4, 3, 3], None, 6),
    ("conv", [6, 2, 5], None, 6),
    ("vector", [7], None, 1),
    ("vector", [1], None, 1),
    ("vector", [4, 6], None, 1),
]
EVERY_BLOCK = pytest.mark.parametrize("role,shape,heads,blocks", BLOCKS, ids=str)


def parameter(shape, dtype="float32", seed=0):
    with paddle.utils.unique_name.guard():
        layer = paddle.nn.Layer()
        value = np.random.default_rng(seed).standard_normal(shape).astype("float32")
        layer.add_parameter("w", layer.create_parameter(shape))
        layer.w.set_value(paddle.to_tensor(value).astype("bfloat16").astype("float32"))
        layer.to(dtype=dtype)
    return layer.w


def group(w, role, heads=None):
    return {"params": [w], "role": role, **({"num_heads": heads} if heads else {})}


def train(w, optimizer, steps=5, seed=1):
    rng, grads = np.random.default_rng(seed), []
    for _ in range(steps):
        wide = "float64" if w.dtype == paddle.float64 else "float32"
        grad = paddle.to_tensor(rng.standard_normal(w.shape).astype("float32"))
        grads.append(grad.astype("bfloat16").astype("float32").numpy())
        (w.astype(wide) * paddle.to_tensor(grads[-1]).astype(wide)).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
    return grads


@PATHS
@EVERY_BLOCK
def test_blocks_and_steps_are_those_of_the_reference(role, shape, heads, blocks, path):
    w = parameter(shape)
    expected, state = w.numpy().astype("float64"), {}
    options = {**optim.info("adam_mini").defaults, "weight_decay": 0.1, "num_heads": heads}
    optimizer = optim.AdamMini(0.02, [group(w, role, heads)], weight_decay=0.1, path=path)
    for number, grad in enumerate(train(w, optimizer), 1):
        expected = reference.step(
            expected, grad.astype("float64"), state, step=number, lr=0.02, role=role,
            options=options,
        )  # fmt: skip
    np.testing.assert_allclose(w.numpy(), expected, atol=2e-6)
    found = optimizer.state_dict()[f"{w.name}_moment2_0"]
    assert found.shape == [blocks] and optimizer.state_dict()[f"{w.name}_moment1_0"].shape == shape
    means = np.unique(np.round(np.atleast_1d(state["v"]).ravel(), 12))
    np.testing.assert_allclose(np.sort(found.numpy()), means, rtol=1e-5)


@PATHS
@pytest.mark.parametrize("stochastic", [False, True])
@EVERY_BLOCK
def test_bfloat16_on_every_layout(role, shape, heads, blocks, path, stochastic):
    w, exact = parameter(shape, "bfloat16"), parameter(shape)
    for p in (w, exact):
        optimizer = optim.AdamMini(
            0.02, [group(p, role, heads)], path=path, stochastic_rounding=stochastic
        )
        train(p, optimizer)
    assert w.dtype == paddle.bfloat16
    np.testing.assert_allclose(w.astype("float32").numpy(), exact.numpy(), atol=0.06)


@PATHS
@pytest.mark.parametrize(
    "role,shape",
    [("embedding", [40, 1]), ("hidden_matrix", [1, 40]), ("head", [1, 40]), ("vector", [1]),
     ("experts", [5, 1, 8]), ("conv", [40, 1, 1, 1])],
)  # fmt: skip
def test_blocks_of_one_element_are_adamw(role, shape, path):
    w, twin = parameter(shape), parameter(shape)
    options = {"weight_decay": 0.1, "path": path}
    train(w, optim.AdamMini(0.02, [group(w, role)], **options), steps=20)
    train(twin, optim.AdamW(0.02, parameters=[twin], **options), steps=20)
    np.testing.assert_allclose(w.numpy(), twin.numpy(), atol=1e-6)


@PATHS
def test_a_block_has_one_learning_rate(path):
    """Of a head, update over momentum is one number; AdamW would give each element its own."""
    w = parameter([6, 8])
    optimizer = optim.AdamMini(0.02, [group(w, "hidden_matrix", 4)], path=path)
    train(w, optimizer, steps=4)
    before = w.numpy().copy()
    train(w, optimizer, steps=1, seed=7)
    momentum = optimizer.state_dict()[f"{w.name}_moment1_0"].numpy()
    rates = ((before - w.numpy()) / momentum).reshape(6, 4, 2)
    spread = rates.max(axis=(0, 2)) / rates.min(axis=(0, 2))
    np.testing.assert_allclose(spread, 1, atol=1e-3)
    assert rates.max() > 1.01 * rates.min()


@PATHS
def test_clipping_by_global_norm_reaches_the_blocks(path):
    clip = paddle.nn.ClipGradByGlobalNorm(0.1)
    for role, shape, heads, _ in BLOCKS:
        w = parameter(shape)
        optimizer = optim.AdamMini(0.02, [group(w, role, heads)], grad_clip=clip, path=path)
        grad = train(w, optimizer, steps=1)[0]
        factor = min(1.0, 0.1 / np.linalg.norm(grad))
        v = optimizer.state_dict()[f"{w.name}_moment2_0"].numpy()
        expected = 0.001 * np.square(grad * factor).sum() * len(v) / grad.size
        np.testing.assert_allclose(v.sum(), expected, rtol=1e-4)


# Heads ------------------------------------------------------------------------------------------


class Attention(paddle.nn.Layer):
    """Queries of 4 heads and keys of 2."""

    def __init__(self):
        super().__init__()
        self.q_proj = paddle.nn.Linear(8, 8)
        self.k_proj = paddle.nn.Linear(8, 4)
        self.v_proj = paddle.nn.Linear(8, 4)
        self.lm_head = paddle.nn.Linear(8, 16)


def blocks_of(optimizer, model):
    return {
        name: optimizer._slots[p.name].rule.blocks(tuple(p.shape))
        for name, p in model.named_parameters()
        if "weight" in name
    }


def test_heads_by_name_in_the_model():
    model = Attention()
    found = blocks_of(optim.create("adam_mini", model), model)
    neurons = {"q_proj.weight": 8, "k_proj.weight": 4, "v_proj.weight": 4, "lm_head.weight": 16}
    assert found == neurons
    heads = {"*_proj.weight": 1, "q_proj.weight": 4, "k_proj.weight": 2, "v_proj.weight": 4}
    found = blocks_of(optim.create("adam_mini", model, num_heads=heads), model)
    assert found == {**neurons, "q_proj.weight": 4, "k_proj.weight": 2}
    heads = {model.q_proj.weight.name: 2}  # by the tensor's name
    roles = {p.name: r for p, r in ((model.q_proj.weight, "hidden_matrix"),)}
    found = optim.AdamMini(0.02, [model.q_proj.weight], roles, num_heads=heads)
    assert found._slots[model.q_proj.weight.name].rule.num_heads == 2


def test_the_state_is_about_half_of_adamws():
    model = paddle.nn.Sequential(*(paddle.nn.Linear(64, 64) for _ in range(4)))
    sizes = {}
    for name in ("adamw", "adam_mini"):
        optimizer = optim.create(name, model)
        model(paddle.ones([2, 64])).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
        state = optimizer.state_dict()
        sizes[name] = sum(v.numpy().nbytes for key, v in state.items() if "_step_" not in key)
    assert 0.5 < sizes["adam_mini"] / sizes["adamw"] < 0.51


@pytest.mark.parametrize(
    "heads,message",
    [
        ({"q_proj.wieght": 4}, "matches no parameter: did you mean 'q_proj.weight'"),
        ({"q_proj.weight": 3}, "num_heads=3 does not divide the 8 outputs"),
        ({"*.bias": 2}, "num_heads is for matrices"),
        ({"lm_head.*": 2}, "num_heads is for matrices"),
        ({"q_proj.weight": 0}, "must be an integer >= 1"),
        ({"q_proj.weight": True}, "must be an integer >= 1"),
        (4, "must map patterns"),
        ({4: 4}, "must map patterns"),
    ],
)
def test_wrong_heads_are_refused(heads, message):
    with pytest.raises(ValueError, match=message):
        optim.create("adam_mini", Attention(), num_heads=heads)


@pytest.mark.parametrize(
    "role,shape",
    [("hidden_matrix", [64]), ("hidden_matrix", [2, 4, 4]), ("experts", [4, 4]), ("conv", [4]),
     ("embedding", [4])],
)  # fmt: skip
def test_wrong_shapes_are_refused(role, shape):
    with pytest.raises(ValueError, match="flattened shard, gather it first"):
        optim.AdamMini(0.02, [group(parameter(shape), role)])


@pytest.mark.parametrize("role", ["hidden_matrix", "vector"])
def test_shards_are_refused(role):
    whole = parameter([8, 8])
    whole.is_distributed = True
    with pytest.raises(ValueError, match="sharded, and its rule needs the whole matrix. Gather"):
        optim.AdamMini(0.02, [group(whole, role)])


@pytest.mark.parametrize("role, shape", [("hidden_matrix", [6, 4]), ("experts", [2, 6, 4])])
def test_the_default_dtype_does_not_matter(role, shape):
    first, second = parameter(shape), parameter(shape)
    train(first, optim.AdamMini(0.02, [group(first, role)]))
    paddle.set_default_dtype("float64")
    try:
        train(second, optim.AdamMini(0.02, [group(second, role)]))
    finally:
        paddle.set_default_dtype("float32")
    np.testing.assert_array_equal(first.numpy(), second.numpy())


def test_rules_are_frozen():
    w = parameter([4, 4])
    rule = optim.AdamMini(0.02, [group(w, "hidden_matrix")])._slots[w.name].rule
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule.num_heads = 2
