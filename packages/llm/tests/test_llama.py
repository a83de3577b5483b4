"""LLaMA's own: rotary positions by formula, grouped queries, tied head, a NumPy reference."""

import numpy as np
import paddle
import pytest

from oarlock.llm import models
from oarlock.llm.models import common


def reference(config, w, tokens_BT):
    """LLaMA in NumPy, float64, written from the papers."""
    K, H, G = config.head_size, config.num_heads, config.num_kv_heads

    def norm(x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + config.norm_epsilon) * weight

    def softmax(x):
        x = np.exp(x - x.max(-1, keepdims=True))
        return x / x.sum(-1, keepdims=True)

    x = w["embedding.weight"][tokens_BT]
    B, T, D = x.shape
    for i in range(config.num_layers):
        p = f"blocks.{i}."
        h = norm(x, w[p + "attention_norm.weight"])
        q = (h @ w[p + "attention.query.weight"]).reshape(B, T, H, K)
        k = (h @ w[p + "attention.key.weight"]).reshape(B, T, G, K)
        v = (h @ w[p + "attention.value.weight"]).reshape(B, T, G, K)
        q, k = rotated(q, config.rope_theta), rotated(k, config.rope_theta)
        out = np.zeros([B, T, H, K])
        for head in range(H):
            group = head // (H // G)
            for t in range(T):
                scores = np.einsum("bk,bsk->bs", q[:, t, head], k[:, : t + 1, group]) / K**0.5
                out[:, t, head] = np.einsum("bs,bsk->bk", softmax(scores), v[:, : t + 1, group])
        x = x + out.reshape(B, T, D) @ w[p + "attention.out.weight"]
        h = norm(x, w[p + "feed_forward_norm.weight"])
        gate = h @ w[p + "feed_forward.gate.weight"]
        gated = gate / (1 + np.exp(-gate)) * (h @ w[p + "feed_forward.up.weight"])
        x = x + gated @ w[p + "feed_forward.down.weight"]
    head = w["head.weight"] if "head.weight" in w else w["embedding.weight"].T
    return norm(x, w["norm.weight"]) @ head


def rotated(x_BTHK, theta):
    """Pair (2i, 2i+1) at position t turned by the angle t * theta^(-2i/K)."""
    out = np.empty_like(x_BTHK)
    K = x_BTHK.shape[-1]
    for t in range(x_BTHK.shape[1]):
        for i in range(0, K, 2):
            angle = t * theta ** (-i / K)
            a, b = x_BTHK[:, t, :, i], x_BTHK[:, t, :, i + 1]
            out[:, t, :, i] = a * np.cos(angle) - b * np.sin(angle)
            out[:, t, :, i + 1] = a * np.sin(angle) + b * np.cos(angle)
    return out


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_kv_heads": 6},
        {"num_kv_heads": 1},
        {"tie_embeddings": True},
        {"num_layers": 1, "hidden_size": 12, "num_heads": 3, "num_kv_heads": 3},
    ],
)
def test_forward_equals_the_numpy_reference(small_model, tokens, changes):
    model = small_model("llama", **changes)
    weights = {key: value.numpy().astype(float) for key, value in model.state_dict().items()}
    expected = reference(model.config, weights, tokens.numpy())
    np.testing.assert_allclose(model(tokens).numpy(), expected, atol=1e-5)
    model.to(dtype="float64")
    # the tables of the angles were made in single precision
    np.testing.assert_allclose(model(tokens).numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (2, 3, 5, 8), (3, 1, 7, 6)])
def test_rotary_positions_equal_the_formula(shape):
    B, H, T, K = shape
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    cos, sin = common.rope_tables(T + 4, K, 100.0)
    found = common.rotate(paddle.to_tensor(x), common.rope_rotations(cos, sin, 4, T, B * H + 2))
    padded = np.concatenate([np.zeros([B, H, 4, K]), x], 2).transpose(0, 2, 1, 3)
    expected = rotated(padded, 100.0).transpose(0, 2, 1, 3)[:, :, 4:]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_scores_depend_on_the_distance_only():
    cos, sin = common.rope_tables(64, 8, 10000.0)
    rng = np.random.default_rng(0)
    q, k = (paddle.to_tensor(rng.standard_normal([1, 1, 1, 8]), "float32") for _ in range(2))

    def score(t, s):
        turned = [
            common.rotate(x, common.rope_rotations(cos, sin, at, 1, 1))
            for x, at in ((q, t), (k, s))
        ]
        return (turned[0] * turned[1]).sum().item()

    assert score(9, 4) == pytest.approx(score(59, 54), abs=1e-5)
    assert abs(score(9, 4) - score(9, 5)) > 1e-3


def test_grouped_queries_equal_repeated_keys():
    rng = np.random.default_rng(0)
    q, k, v = (
        paddle.to_tensor(rng.standard_normal([2, heads, 5, 4]), "float32") for heads in (6, 2, 2)
    )
    bias = common.causal_bias(5, 5)
    grouped = common.attention(q, k, v, bias)
    repeated = [paddle.repeat_interleave(x, 3, axis=1) for x in (k, v)]
    np.testing.assert_allclose(
        grouped.numpy(), common.attention(q, *repeated, bias).numpy(), atol=1e-6
    )


def test_tied_head_is_no_parameter_of_its_own(small_model):
    tied, untied = (small_model("llama", tie_embeddings=tie) for tie in (True, False))
    assert untied.num_parameters() - tied.num_parameters() == 29 * 24


def test_derived_sizes():
    config = models.llama.LlamaConfig(vocab_size=5, hidden_size=96, num_heads=4)
    assert (config.num_kv_heads, config.intermediate_size, config.head_size) == (4, 256, 24)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_heads": 5}, "hidden_size must be a multiple of num_heads = 5"),
        ({"num_kv_heads": 4}, "num_heads must be a multiple of num_kv_heads = 4"),
        ({"num_heads": 8, "num_kv_heads": 8}, "must be even for rotary positions, got 24 / 8"),
        ({"tie_embeddings": 1}, "tie_embeddings must be True or False"),
    ],
)
def test_bad_configuration_is_refused(small_config, changes, message):
    with pytest.raises(ValueError, match=message):
        small_config("llama", **changes)


@pytest.mark.parametrize("name", ["gpt", "llama", "glm", "moe"])
def test_texts_beyond_the_context_are_refused(small_model, name):
    model = small_model(name)
    with pytest.raises(ValueError, match="reach position 17, but max_length is 16"):
        model(paddle.zeros([1, 17], "int64"))
    with pytest.raises(ValueError, match="max_new_tokens must be at most .* = 16 - 3, got 14"):
        model.generate(paddle.zeros([1, 3], "int64"), max_new_tokens=14)
    cache = model.new_cache()
    model(paddle.zeros([1, 16], "int64"), cache)
    with pytest.raises(ValueError, match="reach position 17"):
        model(paddle.zeros([1, 1], "int64"), cache)
