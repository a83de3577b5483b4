"""Small models whose weights depend on their names only, shared by the tests."""

import os
import string
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

VOCAB_SIZE = 29
TOKENS = np.random.default_rng(7).integers(0, VOCAB_SIZE, [2, 11])

CONFIGS: dict[str, dict[str, Any]] = {
    "gpt": dict(hidden_size=24, num_layers=2, num_heads=4, intermediate_size=40, max_length=16),
    "llama": dict(
        hidden_size=24,
        num_layers=2,
        num_heads=6,
        num_kv_heads=2,
        intermediate_size=40,
        max_length=16,
        rope_theta=500.0,
    ),
    "bloom": dict(hidden_size=24, num_layers=2, num_heads=6),
    "glm": dict(
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        intermediate_size=40,
        max_length=16,
    ),
    "rwkv4": dict(hidden_size=16, num_layers=2, intermediate_size=40),
    "moe": dict(
        hidden_size=24,
        num_layers=2,
        num_heads=6,
        num_kv_heads=2,
        intermediate_size=20,
        max_length=16,
        num_experts=4,
        experts_per_token=2,
    ),
}


def draw(name: str, shape: list[int]) -> np.ndarray:
    """The weights of the parameter ``name``, of a size at which every part of a model matters."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    last = name.rsplit(".", 1)[-1]
    if last.startswith("mix_"):
        values = rng.uniform(0, 1, shape)
    elif len(shape) == 2:
        values = rng.standard_normal(shape) * (0.5 if "embedding" in name else shape[0] ** -0.5)
    elif last == "weight":  # of a norm
        values = 1 + 0.2 * rng.standard_normal(shape)
    else:
        values = 0.3 * rng.standard_normal(shape)
    return values.astype(np.float32)


@pytest.fixture
def small_config():
    """Configuration of the small model ``name``, with some fields changed."""

    def build(name: str, **changes):
        from oarlock.llm import models

        fields = {"vocab_size": VOCAB_SIZE} | CONFIGS[name] | changes
        return models.config_class(name)(**fields)

    return build


@pytest.fixture
def small_model(small_config):
    """The small model ``name`` with the weights of ``draw``."""

    def build(name: str, **changes):
        from oarlock.llm import models

        model = models.create(name, small_config(name, **changes))
        for key, value in model.state_dict().items():
            value.set_value(draw(key, value.shape))
        return model

    return build


@pytest.fixture
def tokens():
    """Tokens [2, 11] for the small models."""
    import paddle

    return paddle.to_tensor(TOKENS)


@pytest.fixture
def shared_data():
    """A folder of the data sets named by ``OARLOCK_DATA``; the test is skipped without it."""

    def find(name: str) -> Path:
        root = os.environ.get("OARLOCK_DATA")
        if root is None:
            pytest.skip(f"OARLOCK_DATA is not set: no {name} to test with")
        folder = Path(root) / name
        if not folder.is_dir():
            pytest.skip(f"OARLOCK_DATA has no folder {name}")
        return folder

    return find


@pytest.fixture(scope="session")
def fixtures():
    """Files that the libraries of their formats wrote."""
    return Path(__file__).parent / "fixtures"


TEXTS = [
    "秦川雄帝宅，函谷壯皇居。綺殿千尋起，離宮百雉餘。",
    "Once upon a time, there was a little girl named Lily. She didn't know what to do.",
    "def f(x):\n    return x + 1\n",
    "Zoë said: naïve café, 1,234.5 %",
] * 3


@pytest.fixture(scope="session")
def texts():
    """A few texts in two languages."""
    return TEXTS


def _llama2c():
    """Single characters and a few unions, as a llama2.c file holds them."""
    from oarlock.llm import tokenizers

    pieces = [b"<unk>", b"\n<s>\n", b"\n</s>\n"] + [b"<0x%02X>" % i for i in range(256)]
    text = [c.encode() for c in string.ascii_letters + " .,秦川"] + [b"th", b" t", b"he", b" the"]
    scores = [0.0] * len(pieces) + [-100.0] * (len(text) - 4) + [-1.0, -0.5, -2.0, -3.0]
    return tokenizers.Llama2cTokenizer(pieces + text, scores)


def _rwkv_world():
    from oarlock.llm import tokenizers

    words = ["the", " the", "there", "秦川", "  ", "\n\n"]
    tokens = [bytes([i]) for i in range(256)] + [word.encode() for word in words]
    return tokenizers.RWKVWorldTokenizer(dict(enumerate(tokens, 1)), vocab_size=300)


@pytest.fixture(scope="session")
def made():
    """A small tokenizer of each kind."""
    from oarlock.llm import tokenizers

    train = tokenizers.SentencePieceTokenizer.train
    return {
        "byte": tokenizers.ByteTokenizer(),
        "bpe": tokenizers.BPETokenizer.train(TEXTS, vocab_size=320, special_tokens=["<|end|>"]),
        "unigram": train(TEXTS, vocab_size=340),
        "sentencepiece-bpe": train(TEXTS, vocab_size=340, model_type="bpe"),
        "llama2c": _llama2c(),
        "rwkv-world": _rwkv_world(),
    }
