"""GLM's own: positions on half of each head, and the prefix that sees itself."""

import numpy as np
import paddle
import pytest

from oarlock.llm.models import common, glm


def test_second_half_of_a_head_does_not_turn():
    cos, sin = glm.half_rope_tables(9, 8, 10000.0)
    x = paddle.to_tensor(np.random.default_rng(0).standard_normal([1, 2, 9, 8]), "float32")
    turned = common.rotate(x, common.rope_rotations(cos, sin, 0, 9, 2)).numpy()
    np.testing.assert_array_equal(turned[..., 4:], x.numpy()[..., 4:])
    half_cos, half_sin = common.rope_tables(9, 4, 10000.0)
    half = common.rotate(x[..., :4], common.rope_rotations(half_cos, half_sin, 0, 9, 2))
    np.testing.assert_allclose(turned[..., :4], half.numpy(), atol=1e-6)


@pytest.mark.parametrize("T, S", [(4, 4), (2, 5), (1, 3)])
def test_prefix_bias_opens_the_context_only(T, S):
    lengths = [0, 2, S]
    bias = glm.prefix_bias(T, S, paddle.to_tensor(lengths)).numpy()
    assert bias.shape == (3, 1, T, S)
    for row, length in enumerate(lengths):
        for t in range(T):
            seen = [s < length or s <= S - T + t for s in range(S)]
            assert ((bias[row, 0, t] == 0) == seen).all()


def test_context_sees_itself_and_the_rest_stays_causal(small_model, tokens):
    model, lengths = small_model("glm"), paddle.to_tensor([5, 3])
    before = model(tokens, None, lengths).numpy()
    changed = tokens.numpy().copy()
    changed[:, 4] = (changed[:, 4] + 1) % 29
    after = model(paddle.to_tensor(changed), None, lengths).numpy()
    moved = abs(after - before).max(-1) > 1e-4
    assert moved[0].all()  # 4 is inside the first row's context, which all see
    assert not moved[1, :4].any() and moved[1, 4:].all()


def test_no_context_is_causal(small_model, tokens):
    model = small_model("glm")
    zero = model(tokens, None, paddle.to_tensor([0, 0])).numpy()
    np.testing.assert_allclose(zero, model(tokens).numpy(), atol=1e-5)


def test_context_in_the_first_call_of_a_cache(small_model, tokens):
    model, lengths = small_model("glm"), paddle.to_tensor([4, 4])
    whole, cache = model(tokens, None, lengths).numpy(), model.new_cache()
    pieces = [model(tokens[:, :4], cache, lengths), model(tokens[:, 4:], cache)]
    np.testing.assert_allclose(np.concatenate([p.numpy() for p in pieces], 1), whole, atol=1e-5)


def test_loss_with_a_context(small_model, tokens):
    model, lengths = small_model("glm"), paddle.to_tensor([5, 5])
    targets = paddle.roll(tokens, -1, 1)
    targets[:, :5] = -100
    assert model.loss(tokens, targets, lengths).item() != model.loss(tokens, targets).item()


def test_heads_must_split_into_halves_of_pairs(small_config):
    with pytest.raises(ValueError, match="must be a multiple of 4 to turn half of it, got 24 / 4"):
        small_config("glm", hidden_size=24)
