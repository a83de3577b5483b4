"""Models from disk, whoever wrote them: everything that running one needs.

>>> from oarlock.llm import loading
>>> checkpoint = loading.load("Qwen2.5-0.5B-Instruct")  # a folder, a .gguf, a .bin
>>> checkpoint.config, checkpoint.text.eos, checkpoint.parameters["blocks.0.attention.query.weight"]
>>> model, tokenizer = loading.load_model("Qwen2.5-0.5B-Instruct")  # float32, for reference
"""

from oarlock.llm.loading.blocks import BlockArray, BlockFormat
from oarlock.llm.loading.checkpoint import Checkpoint, Text
from oarlock.llm.loading.load import load, load_model
from oarlock.llm.loading.lora import Adapter, LowRank, load_adapter
from oarlock.llm.loading.stored import Parameters

__all__ = [
    "Adapter",
    "BlockArray",
    "BlockFormat",
    "Checkpoint",
    "LowRank",
    "Parameters",
    "Text",
    "load",
    "load_adapter",
    "load_model",
]
