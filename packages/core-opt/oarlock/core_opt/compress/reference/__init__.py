"""GPTQ and SparseGPT written as their papers derive them: slow, for tests."""

from .surgeon import gptq, sparsegpt

__all__ = ["gptq", "sparsegpt"]
