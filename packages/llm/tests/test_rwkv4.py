"""RWKV-4's own: a NumPy reference, all positions and one, exponents that never overflow."""

import numpy as np
import paddle
import pytest

from oarlock.llm.models import rwkv4


def wkv_reference(w, u, k, v):
    """The paper's sums as they stand, in long double, [T, B, D]."""
    w, u, k, v = (np.asarray(x, np.longdouble) for x in (w, u, k, v))
    out = np.empty_like(k)
    for t in range(len(k)):
        weights = [np.exp((t - 1 - i) * w + k[i]) for i in range(t)] + [np.exp(u + k[t])]
        out[t] = sum(a * b for a, b in zip(weights, v[: t + 1])) / sum(weights)
    return out


def reference(config, weights, tokens_BT):
    """RWKV-4 in NumPy, float64, written from the paper (arXiv 2305.13048)."""

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + config.norm_epsilon)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def mixed(x, part, name):
        before = np.concatenate([np.zeros_like(x[:1]), x[:-1]])
        mix = weights[f"{part}.mix_{name}"]
        return (x * mix + before * (1 - mix)) @ weights[f"{part}.{name}.weight"]

    x = norm(weights["embedding.weight"][tokens_BT.T], "embedding_norm")
    for i in range(config.num_layers):
        part = f"blocks.{i}.attention"
        h = norm(x, f"blocks.{i}.attention_norm")
        decay, bonus = -np.exp(weights[f"{part}.log_decay"]), weights[f"{part}.bonus"]
        y = wkv_reference(decay, bonus, mixed(h, part, "key"), mixed(h, part, "value"))
        gated = sigmoid(mixed(h, part, "receptance")) * y.astype(float)
        x = x + gated @ weights[f"{part}.out.weight"]
        part = f"blocks.{i}.feed_forward"
        h = norm(x, f"blocks.{i}.feed_forward_norm")
        k = np.maximum(mixed_key := mixed(h, part, "key"), 0) ** 2
        assert mixed_key.shape[-1] == config.intermediate_size
        x = x + sigmoid(mixed(h, part, "receptance")) * (k @ weights[f"{part}.value.weight"])
    return (norm(x, "norm") @ weights["head.weight"]).swapaxes(0, 1)


def test_forward_equals_the_numpy_reference(small_model, tokens):
    model = small_model("rwkv4")
    weights = {key: value.numpy().astype(float) for key, value in model.state_dict().items()}
    expected = reference(model.config, weights, tokens.numpy())
    np.testing.assert_allclose(model(tokens).numpy(), expected, atol=1e-5)
    model.to(dtype="float64")
    np.testing.assert_allclose(model(tokens).numpy(), expected, atol=1e-12)


def draw(T, B=2, D=3, scale=1.0):
    rng = np.random.default_rng(T)
    w, u = -np.exp(rng.standard_normal(D)), rng.standard_normal(D)
    return w, u, scale * rng.standard_normal([T, B, D]), rng.standard_normal([T, B, D])


def empty(B=2, D=3):
    state = rwkv4.LayerState.empty(B, D, "float64")
    return state.a, state.b, state.p


@pytest.mark.parametrize("T", [1, 2, 3, 7, 8, 9, 33])
def test_all_positions_equal_the_sums_and_single_steps(T):
    arguments = [paddle.to_tensor(x) for x in draw(T)]
    w, u, k, v = arguments
    y, state = rwkv4.wkv(w, u, k, v, *empty())
    np.testing.assert_allclose(y.numpy(), wkv_reference(*draw(T)).astype(float), rtol=1e-10)
    sums, rows = empty(), []
    for t in range(T):
        row, sums = rwkv4.wkv_step(w, u, k[t], v[t], *sums)
        rows.append(row.numpy())
    np.testing.assert_allclose(y.numpy(), np.stack(rows), rtol=1e-10)
    for whole, stepped in zip(state[:2], sums[:2]):  # equal once brought to one exponent
        scale = paddle.exp(state[2] - sums[2])
        np.testing.assert_allclose((whole * scale).numpy(), stepped.numpy(), rtol=1e-10)


def test_state_carries_over():
    w, u, k, v = (paddle.to_tensor(x) for x in draw(9))
    whole, _ = rwkv4.wkv(w, u, k, v, *empty())
    first, sums = rwkv4.wkv(w, u, k[:4], v[:4], *empty())
    second, _ = rwkv4.wkv(w, u, k[4:], v[4:], *sums)
    np.testing.assert_allclose(paddle.concat([first, second]).numpy(), whole.numpy(), rtol=1e-10)


def test_huge_keys_do_not_overflow_and_keep_their_gradients():
    w, u, k, v = (paddle.to_tensor(x, "float32") for x in draw(17, scale=300.0))
    k.stop_gradient = v.stop_gradient = False
    a, b, p = (x.astype("float32") for x in empty())
    y, _ = rwkv4.wkv(w, u, k, v, a, b, p)
    np.testing.assert_allclose(
        y.numpy(), wkv_reference(w, u, k, v).astype(float), rtol=1e-3, atol=1e-4
    )
    y.sum().backward()
    assert np.isfinite(k.grad.numpy()).all() and np.isfinite(v.grad.numpy()).all()


def test_memory_of_decoding_does_not_grow(small_model, tokens):
    model, cache = small_model("rwkv4"), rwkv4.RWKVCache()
    for length in (1, 10):
        model(tokens[:, :length], cache)
        for layer in cache.layers:
            assert layer.a.shape == layer.p.shape == layer.attention_x.shape == [2, 16]
    assert cache.length == 11
