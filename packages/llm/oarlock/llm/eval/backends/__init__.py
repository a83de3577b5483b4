"""What runs the model: one of our models, the engine, a server, or a function."""

from oarlock.llm.eval.backends.base import Backend, Continuation, NotSupported, Prompt, Score
from oarlock.llm.eval.backends.endpoint import EndpointBackend, EndpointError
from oarlock.llm.eval.backends.engine import Engine, EngineBackend
from oarlock.llm.eval.backends.function import FunctionBackend
from oarlock.llm.eval.backends.language_model import LanguageModelBackend

__all__ = [
    "Backend",
    "Continuation",
    "EndpointBackend",
    "EndpointError",
    "Engine",
    "EngineBackend",
    "FunctionBackend",
    "LanguageModelBackend",
    "NotSupported",
    "Prompt",
    "Score",
]
