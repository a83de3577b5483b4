"""Small models whose weights depend on their names only, shared by the tests."""

import os
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
