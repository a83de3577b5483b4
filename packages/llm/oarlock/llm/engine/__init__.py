"""Inference: many texts at once, on native kernels.

>>> from oarlock.llm.engine import LLM, SamplingParams
>>> llm = LLM("folder or file", weights="int8")
>>> llm.generate("Once upon a time", SamplingParams(max_tokens=50, temperature=0.0))[0].text
"""

from oarlock.llm.engine.background import EngineService, open_service
from oarlock.llm.engine.engine import Engine, EngineConfig
from oarlock.llm.engine.llm import LLM
from oarlock.llm.engine.outputs import Completion, Delta, Result, TokenLogprob, Usage
from oarlock.llm.engine.params import Constraint, Request, SamplingParams
from oarlock.llm.ranks import RanksConfig

__all__ = [
    "Completion",
    "Constraint",
    "Delta",
    "Engine",
    "EngineConfig",
    "EngineService",
    "LLM",
    "RanksConfig",
    "Request",
    "Result",
    "SamplingParams",
    "TokenLogprob",
    "Usage",
    "open_service",
]
