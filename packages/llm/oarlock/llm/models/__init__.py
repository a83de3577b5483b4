"""Language models, each one readable file.

>>> from oarlock.llm import models
>>> model = models.create("llama", models.llama.LlamaConfig(vocab_size=256))
>>> logits = model(tokens)  # [B, T] int64 -> [B, T, V]
>>> model.loss(tokens, targets).backward()
>>> models.save(model, "folder"); model = models.load("folder")
"""

from oarlock.llm.models import bloom, glm, gpt, llama, moe, rope, rwkv4
from oarlock.llm.models.base import LanguageModel
from oarlock.llm.models.config import ModelConfig
from oarlock.llm.models.registry import config_class, create, load, name_of, names, save, undrawn

__all__ = [
    "LanguageModel",
    "ModelConfig",
    "bloom",
    "config_class",
    "create",
    "glm",
    "gpt",
    "llama",
    "load",
    "moe",
    "name_of",
    "names",
    "rope",
    "rwkv4",
    "save",
    "undrawn",
]
