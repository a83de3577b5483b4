"""LLaMA weights in the format of llama2.c (version 0).

Seven int32: dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size (negative if the head is
not the embedding), seq_len. Then float32: embedding, and for all layers together one after another
the attention norms, query, key, value, out, the feed-forward norms, gate (w1), down (w2), up (w3);
the last norm; cosines and sines of the rotary angles (not used here); the head if it has its own.
A matrix is stored as [out, in].

Source: github.com/karpathy/llama2.c, ``export.py`` (legacy export) and ``run.c``.
"""

import os

import numpy as np

from oarlock.llm.models.llama import Llama, LlamaConfig
from oarlock.llm.models.registry import assign
from oarlock.llm.weights.binary import BinaryFile

LATER_MAGIC = 0x616B3432  # "ak42", which versions 1 and 2 begin with


def load_llama2c(path: str | os.PathLike) -> Llama:
    """Read a ``.bin`` of llama2.c; its tokenizer is ``tokenizers.Llama2cTokenizer``.

    Raises:
        ValueError: the file is truncated, too long, of a later version or no such file; names the
            tensor, the bytes expected and found.
    """
    config, tensors = read_llama2c(path)
    model = Llama(config, seed=None)
    assign(model, tensors, str(path))
    return model.eval()


def read_llama2c(path: str | os.PathLike) -> tuple[LlamaConfig, dict[str, np.ndarray]]:
    """The configuration and, by our names, the parameters: views of the file."""
    file = BinaryFile(path)
    D, F, L, H, G, V, T = file.numbers("7i", "the header")
    if D == LATER_MAGIC:
        raise ValueError(
            f"{file.path} is a llama2.c file of version {F}; export it with version 0."
        )
    tied, V = V > 0, abs(V)
    try:
        config = LlamaConfig(
            vocab_size=V,
            hidden_size=D,
            num_layers=L,
            num_heads=H,
            num_kv_heads=G,
            intermediate_size=F,
            max_length=T,
            tie_embeddings=tied,
        )
    except ValueError as error:
        raise ValueError(f"{file.path} is no llama2.c file: in its header {error}") from error
    kv_size = G * config.head_size
    tensors = {"embedding.weight": _floats(file, (V, D), "embedding.weight")}
    for name, shape in (
        ("attention_norm", (L, D)),
        ("attention.query", (L, D, D)),
        ("attention.key", (L, kv_size, D)),
        ("attention.value", (L, kv_size, D)),
        ("attention.out", (L, D, D)),
        ("feed_forward_norm", (L, D)),
        ("feed_forward.gate", (L, F, D)),
        ("feed_forward.down", (L, D, F)),
        ("feed_forward.up", (L, F, D)),
    ):
        stacked = _floats(file, shape, f"blocks.*.{name}.weight")
        for i in range(L):
            tensors[f"blocks.{i}.{name}.weight"] = stacked[i].T
    tensors["norm.weight"] = _floats(file, (D,), "norm.weight")
    _floats(file, (2, T, config.head_size // 2), "the rotary tables")
    if not tied:
        tensors["head.weight"] = _floats(file, (V, D), "head.weight").T
    file.end()
    return config, tensors


def _floats(file: BinaryFile, shape: tuple[int, ...], what: str) -> np.ndarray:
    return file.array(shape, "<f4", what)
