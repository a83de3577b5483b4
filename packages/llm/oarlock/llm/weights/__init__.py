"""Real weights in the formats of other projects.

>>> from oarlock.llm import weights
>>> model = weights.load_llama2c("stories260K.bin")  # a Llama
>>> model = weights.load_rwkv_cpp("tiny-rwkv-4v0-660K-FP32.bin")  # an RWKV4
"""

from oarlock.llm.weights.llama2c import load_llama2c
from oarlock.llm.weights.rwkv import load_rwkv_cpp

__all__ = ["load_llama2c", "load_rwkv_cpp"]
