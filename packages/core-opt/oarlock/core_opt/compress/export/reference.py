"""The function of ``LlamaWeights`` in NumPy: what the files of all exporters must compute."""

import numpy as np

from .codes import values_of
from .llama import LlamaWeights


def logits(weights: LlamaWeights, tokens: np.ndarray) -> np.ndarray:
    """Logits of the token after each.

    Args:
        weights: of the model.
        tokens: [T] integers, a text from its start.

    Returns:
        [T, V] float64.

    Source: LLaMA 2302.13971; grouped queries 2305.13245.
    """
    sizes = weights.sizes
    part = {name: values_of(matrix).astype(np.float64) for name, matrix in weights.parts.items()}
    T, K, G = len(tokens), sizes.head_size, sizes.num_kv_heads
    frequencies = sizes.rope_theta ** (-np.arange(0, K, 2) / K)
    turns = np.exp(1j * np.outer(np.arange(T), frequencies))[:, None]  # [T, 1, K / 2]
    later = np.triu(np.full((T, T), -np.inf), 1)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + sizes.norm_epsilon) * part[name]

    def rotated(x: np.ndarray) -> np.ndarray:
        x = x.reshape(T, -1, K)
        pairs = (x[..., ::2] + 1j * x[..., 1::2]) * turns
        return np.stack([pairs.real, pairs.imag], -1).reshape(x.shape)

    x = part["embedding"][tokens]
    for i in range(sizes.num_layers):
        block = f"blocks.{i}"
        h = norm(x, f"{block}.attention_norm")
        query = rotated(h @ part[f"{block}.query"]).reshape(T, G, -1, K)
        key = rotated(h @ part[f"{block}.key"])
        value = (h @ part[f"{block}.value"]).reshape(T, G, K)
        scores = np.einsum("tgrk,sgk->grts", query, key) / np.sqrt(K) + later
        share = np.exp(scores - scores.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
        x = x + np.einsum("grts,sgk->tgrk", share, value).reshape(T, -1) @ part[f"{block}.out"]
        h = norm(x, f"{block}.feed_forward_norm")
        gate = h @ part[f"{block}.gate"]
        x = x + (gate / (1 + np.exp(-gate)) * (h @ part[f"{block}.up"])) @ part[f"{block}.down"]
    head = part["embedding"].T if weights.tied else part["head"]
    return norm(x, "norm") @ head
