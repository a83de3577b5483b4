"""The mixture's own: who goes where, the auxiliary losses, active parameters."""

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from oarlock.llm.models import moe


@pytest.mark.parametrize("k", [1, 2, 4])
def test_experts_equal_the_sum_over_all_with_zero_gates(small_config, k):
    """Sorting and cutting changes nothing against computing every expert for every token."""
    paddle.seed(0)
    layer = moe.Experts(small_config("moe", experts_per_token=k))
    x = paddle.randn([2, 9, 24])
    y, routing = layer(x)
    dense = paddle.stack([expert(x.reshape([18, 24])) for expert in layer.experts], 1)
    gates = np.zeros([18, 4], np.float32)
    np.put_along_axis(gates, routing.experts_Rk.numpy(), routing.gates_Rk.numpy(), 1)
    expected = (dense.numpy() * gates[:, :, None]).sum(1).reshape([2, 9, 24])
    np.testing.assert_allclose(y.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(gates.sum(1), 1, atol=1e-6)


def routing_of(logits, k):
    logits = paddle.to_tensor(logits, "float32")
    probabilities = F.softmax(logits, -1)
    best, experts = paddle.topk(probabilities, k)
    return moe.Routing(logits, probabilities, experts, best / best.sum(-1, keepdim=True))


def test_balance_loss_is_one_when_balanced_and_e_when_not():
    balanced = routing_of(40 * np.eye(4), 1)
    assert balanced.balance_loss().item() == pytest.approx(1)
    assert balanced.loads().numpy() == pytest.approx([0.25] * 4)
    collapsed = routing_of(40 * np.eye(4)[[1, 1, 1]], 1)
    assert collapsed.balance_loss().item() == pytest.approx(4)


def test_z_loss_by_its_formula():
    logits = np.random.default_rng(0).standard_normal([5, 3])
    expected = (np.log(np.exp(logits).sum(1)) ** 2).mean()
    assert routing_of(logits, 2).z_loss().item() == pytest.approx(expected, rel=1e-5)


def test_training_adds_the_auxiliary_losses(small_model, tokens):
    model = small_model("moe", balance_coefficient=0.5, z_coefficient=0.25)
    targets = paddle.roll(tokens, -1, 1)
    plain = model.eval().loss(tokens, targets).item()
    _, routings = model.route(tokens)
    extra = sum(0.5 * r.balance_loss().item() + 0.25 * r.z_loss().item() for r in routings) / 2
    assert model.train().loss(tokens, targets).item() == pytest.approx(plain + extra, rel=1e-5)


def test_an_expert_nobody_chose_is_no_error_and_gets_no_gradient(small_model, tokens):
    model = small_model("moe", num_layers=1)
    router = model.blocks[0].feed_forward.router.linear.weight
    router.set_value(np.zeros([24, 4], np.float32))
    _, [routing] = model.route(tokens)
    chosen = set(routing.experts_Rk.numpy().ravel())
    assert len(chosen) == 2  # equal logits: the same two for every token
    model.loss(tokens, paddle.roll(tokens, -1, 1)).backward()
    for e, expert in enumerate(model.blocks[0].feed_forward.experts):
        gradient = expert.up.weight.grad
        moved = gradient is not None and bool((gradient.numpy() != 0).any())
        assert moved == (e in chosen)


def test_active_parameters(small_model):
    model = small_model("moe")
    one_expert = 3 * 24 * 20
    assert model.num_parameters() - model.num_active_parameters() == 2 * 2 * one_expert


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"experts_per_token": 5}, "experts_per_token must be at most num_experts = 4, got 5"),
        ({"balance_coefficient": -1.0}, "balance_coefficient must be a finite number, 0 or above"),
        ({"num_experts": 0}, "num_experts must be a positive integer"),
    ],
)
def test_bad_configuration_is_refused(small_config, changes, message):
    with pytest.raises(ValueError, match=message):
        small_config("moe", **changes)
