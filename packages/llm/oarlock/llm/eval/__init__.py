"""Evaluation of language models: tasks as data, scores with errors, reports.

>>> from oarlock.llm import eval
>>> backend = eval.LanguageModelBackend(model, tokenizer, name="mine", start=1)
>>> result = eval.evaluate(backend, ["gsm8k", "bbh_*"], limit=100)
>>> result.tasks["gsm8k"].estimate()  # value, standard error, interval
"""

from oarlock.llm.eval.backends import (
    Backend,
    Continuation,
    EndpointBackend,
    EngineBackend,
    FunctionBackend,
    LanguageModelBackend,
    NotSupported,
    Prompt,
    Score,
)
from oarlock.llm.eval.cache import AnswerCache
from oarlock.llm.eval.data import DataMissing, find
from oarlock.llm.eval.evaluate import evaluate
from oarlock.llm.eval.items import Item, build
from oarlock.llm.eval.registry import matrix, select
from oarlock.llm.eval.result import (
    EvalResult,
    ItemResult,
    TaskResult,
    answers_matrix,
    compare_all,
    compare_task,
)
from oarlock.llm.eval.sensitivity import Sensitivity, sensitivity
from oarlock.llm.eval.task import ABILITIES, TIERS, Task, load

__all__ = [
    "ABILITIES",
    "TIERS",
    "AnswerCache",
    "Backend",
    "Continuation",
    "DataMissing",
    "EndpointBackend",
    "EngineBackend",
    "EvalResult",
    "FunctionBackend",
    "Item",
    "ItemResult",
    "LanguageModelBackend",
    "NotSupported",
    "Prompt",
    "Score",
    "Sensitivity",
    "Task",
    "TaskResult",
    "answers_matrix",
    "build",
    "compare_all",
    "compare_task",
    "evaluate",
    "find",
    "load",
    "matrix",
    "select",
    "sensitivity",
]
