"""Language models, each one readable file.

>>> from oarlock.llm import models
>>> model = models.create("llama", models.config_class("llama")(vocab_size=256))
>>> logits = model(tokens)  # [B, T] int64 -> [B, T, V]
"""

from oarlock.llm.models import llama
from oarlock.llm.models.registry import config_class, create, names

__all__ = ["config_class", "create", "llama", "names"]
