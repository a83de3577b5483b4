"""Models of random weights in the shapes of real ones; how long a token takes does not depend on the weights."""

from collections.abc import Mapping
from typing import Any

LLAMAS: Mapping[str, Mapping[str, int]] = {
    "llama-tiny": {
        "vocab_size": 512,
        "hidden_size": 128,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "intermediate_size": 352,
        "max_length": 1024,
    },
    "llama-15m": {
        "vocab_size": 32000,
        "hidden_size": 288,
        "num_layers": 6,
        "num_heads": 6,
        "num_kv_heads": 6,
        "intermediate_size": 768,
        "max_length": 1024,
    },
    "llama-135m": {
        "vocab_size": 32000,
        "hidden_size": 768,
        "num_layers": 12,
        "num_heads": 12,
        "num_kv_heads": 12,
        "intermediate_size": 2048,
        "max_length": 1024,
    },
    "llama-1100m": {
        "vocab_size": 32000,
        "hidden_size": 2048,
        "num_layers": 22,
        "num_heads": 32,
        "num_kv_heads": 4,
        "intermediate_size": 5632,
        "max_length": 1024,
    },
}
GPTS: Mapping[str, Mapping[str, int]] = {
    "gpt-124m": {
        "vocab_size": 50257,
        "hidden_size": 768,
        "num_layers": 12,
        "num_heads": 12,
        "intermediate_size": 3072,
        "max_length": 1024,
    },
}


def random(*, name: str, seed: int) -> Any:
    """A GPT of that name in Paddle."""
    from oarlock.llm.models.gpt import GPT, GPTConfig

    return GPT(GPTConfig(**GPTS[name]), seed=seed).eval()
