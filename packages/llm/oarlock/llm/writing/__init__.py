"""Models to disk in the formats of others.

>>> from oarlock.llm import writing
>>> writing.convert("model.gguf", "model", dtype="bf16")        # a Hugging Face folder
>>> writing.quantize("model", "model-q4.gguf", weights="int4")  # a file that keeps int4 codes
"""

from oarlock.llm.writing.convert import Written, convert, quantize

__all__ = ["Written", "convert", "quantize"]
