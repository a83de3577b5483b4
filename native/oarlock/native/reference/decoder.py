"""Decoder-only transformers in NumPy: the formulas of ``oarlock.native.decoder``, in float64, without pages."""

import math

import numpy as np

from oarlock.native.adapters import AdapterLayer
from oarlock.native.reference import quant

NO_CHANGE = AdapterLayer()


def forward(model, tokens, adapter=None):
    """Logits [T, V] of one sequence from its beginning.

    Args:
        model: a ``decoder.Model``; packed weights are unpacked, rows are rounded as their format does.
        tokens: [T].
        adapter: an ``adapters.Adapter``, or None.
    """
    tokens = np.asarray(tokens)
    T, K, group = len(tokens), model.head_size, model.heads // model.kv_heads
    x = model.embedding.rows(tokens).astype(np.float64)
    if model.positions is not None:
        x = x + model.positions[:T]
    if model.embedding_norm is not None:
        x = norm(x, model.embedding_norm, model)
    scale = K**-0.5 if model.attention_scale is None else model.attention_scale
    distance = np.arange(T)[None] - np.arange(T)[:, None]  # key less query
    seen = distance <= 0
    if model.window is not None:
        seen &= distance > -model.window
    changes = [NO_CHANGE] * len(model.layers) if adapter is None else adapter.layers
    for layer, change in zip(model.layers, changes):
        y = linear(norm(x, layer.attention_norm, model), layer.qkv, change.qkv)
        q, k, v = np.split(y.reshape(T, -1, K), [model.heads, model.heads + model.kv_heads], 1)
        q, k = rotate(q, model), rotate(k, model)
        out = np.empty((T, model.heads, K))
        for h in range(model.heads):
            scores = scale * q[:, h] @ k[:, h // group].T
            if model.slopes is not None:
                scores = scores + model.slopes[h] * distance
            out[:, h] = softmax(np.where(seen, scores, -np.inf)) @ v[:, h // group]
        x = x + linear(out.reshape(T, -1), layer.out, change.out)
        y = norm(x, layer.feed_forward_norm, model)
        x = x + (
            experts(y, layer, model, change)
            if layer.experts
            else feed_forward(y, layer.up, layer.down, model, change.up, change.down)
        )
    return product(norm(x, model.final_norm, model), model.head)


def product(x, matrix):
    """Rows times a packed weight, rounded as its format does."""
    if matrix.format in ("fp32", "bf16"):
        return x @ matrix.dequantize().astype(np.float64)
    return quant.rounded_rows(x) @ matrix.dequantize().astype(np.float64)


def linear(x, one, change=None):
    y = product(x, one.weight)
    y = y if one.bias is None else y + one.bias
    for part in () if change is None else change.parts:
        a = change.a.dequantize()[:, part.rank : part.rank + part.b.inputs].astype(np.float64)
        y[:, part.first : part.first + part.b.outputs] += x @ a @ part.b.dequantize()
    return y


def norm(x, one, model):
    if model.layer_norm:
        x = x - x.mean(-1, keepdims=True)
    y = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + model.epsilon) * one.weight
    return y if one.bias is None else y + one.bias


def rotate(x, model):
    """Turns the first numbers of each head, x [T, heads, K]."""
    if model.cos is None:
        return x
    cos, sin = (table[: len(x), None].astype(np.float64) for table in (model.cos, model.sin))
    pairs = cos.shape[-1]
    out = x.copy()
    if model.rotary_halves:
        first, second = slice(0, pairs), slice(pairs, 2 * pairs)
    else:
        first, second = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
    out[..., first] = x[..., first] * cos - x[..., second] * sin
    out[..., second] = x[..., first] * sin + x[..., second] * cos
    return out


def softmax(x):
    y = np.exp(x - x.max(-1, keepdims=True))
    return y / y.sum(-1, keepdims=True)


def feed_forward(x, up, down, model, up_change=None, down_change=None):
    return linear(activate(linear(x, up, up_change), model.activation), down, down_change)


def activate(x, activation):
    if activation == "swiglu":
        gate, up = np.split(x, 2, -1)
        return gate / (1 + np.exp(-gate)) * up
    if activation == "relu":
        return np.maximum(x, 0)
    if activation == "gelu_tanh":
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))


def experts(x, layer, model, change):
    probabilities = softmax(product(x, layer.router))
    out = np.zeros((len(x), layer.experts[0][1].weight.outputs))
    for row, p in enumerate(probabilities):
        best = np.argsort(-p, kind="stable")[: model.experts_per_token]
        for e in best:
            changes = change.experts[e] if change.experts else (None, None)
            gate = p[e] / p[best].sum()
            y = feed_forward(x[row : row + 1], *layer.experts[e], model, *changes)
            out[row] += gate * y[0]
    return out
