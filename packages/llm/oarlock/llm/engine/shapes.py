"""Shapes of published models, to be filled with random weights where only speed matters.

Source: the ``config.json`` of each model's repository on Hugging Face, from memory of them.
"""

import zlib
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from oarlock.llm.loading.others import shapes
from oarlock.llm.models.config import ModelConfig
from oarlock.llm.models.gpt import GPTConfig
from oarlock.llm.models.llama import LlamaConfig
from oarlock.llm.models.moe import MoEConfig

#: Family and configuration by name; the numbers in names are of parameters.
SHAPES: dict[str, tuple[str, ModelConfig]] = {
    # stories15M
    "llama-15m": (
        "llama",
        LlamaConfig(
            vocab_size=32000,
            hidden_size=288,
            num_layers=6,
            num_heads=6,
            intermediate_size=768,
            max_length=2048,
            tie_embeddings=True,
        ),
    ),
    # SmolLM-135M
    "llama-135m": (
        "llama",
        LlamaConfig(
            vocab_size=49152,
            hidden_size=576,
            num_layers=30,
            num_heads=9,
            num_kv_heads=3,
            intermediate_size=1536,
            max_length=2048,
            tie_embeddings=True,
        ),
    ),
    # Qwen2.5-0.5B
    "qwen2-500m": (
        "llama",
        LlamaConfig(
            vocab_size=151936,
            hidden_size=896,
            num_layers=24,
            num_heads=14,
            num_kv_heads=2,
            intermediate_size=4864,
            max_length=4096,
            tie_embeddings=True,
            qkv_bias=True,
        ),
    ),
    # TinyLlama-1.1B
    "llama-1.1b": (
        "llama",
        LlamaConfig(
            vocab_size=32000,
            hidden_size=2048,
            num_layers=22,
            num_heads=32,
            num_kv_heads=4,
            intermediate_size=5632,
            max_length=2048,
        ),
    ),
    # Llama-2-7b
    "llama-7b": (
        "llama",
        LlamaConfig(
            vocab_size=32000,
            hidden_size=4096,
            num_layers=32,
            num_heads=32,
            intermediate_size=11008,
            max_length=4096,
        ),
    ),
    # GPT-2
    "gpt2-124m": (
        "gpt",
        GPTConfig(vocab_size=50257, hidden_size=768, num_layers=12, num_heads=12),
    ),
    # of Mixtral's kind, made up
    "moe-270m": (
        "moe",
        MoEConfig(
            vocab_size=32000,
            hidden_size=512,
            num_layers=12,
            num_heads=8,
            num_kv_heads=4,
            intermediate_size=1536,
            max_length=2048,
            num_experts=8,
        ),
    ),
}


class RandomParameters(Mapping[str, NDArray[np.float32]]):
    """Parameters of a shape, each drawn when it is asked for, the same by name and seed.

    Products get normal numbers of variance 1 / inputs, embeddings 0.02², gains 1 and biases 0.

    Args:
        family: of ``oarlock.llm.models``.
        config: of the model.
        seed: of the draws.
    """

    def __init__(self, family: str, config: ModelConfig, *, seed: int = 0) -> None:
        self._shapes, self._seed = shapes(family, config), seed

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        shape = self._shapes[name]
        if len(shape) == 1:
            return np.full(shape, float(name.endswith(".weight")), np.float32)
        rng = np.random.default_rng((self._seed, zlib.crc32(name.encode())))
        size = 0.02 if "embedding" in name else shape[0] ** -0.5
        return rng.standard_normal(shape, np.float32) * np.float32(size)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)
