"""The engine as an evaluated model, served to an experiment."""

import re
import time
from typing import Any

from oarlock.llm import eval
from oarlock.llm.engine import LLM, EngineConfig
from oarlock.llm.eval.result import TaskResult

_state: dict[str, Any] = {}
_CHOICE = re.compile(r"(?m)^[> ] (-?\d+\.\d{4}) ")  # a choice may have several lines
START = 1  #: of every text, as the folders of `hugging_face` have it


def load(*, folder: str, threads: int, most_rows: int = 512, most_texts: int = 64) -> None:
    """Choose a Hugging Face folder, which is run in float32, and open it once.

    Args:
        threads: of the kernels.
        most_rows, most_texts: tokens a step, and texts at a time.
    """
    config = EngineConfig(threads=threads, most_rows=most_rows, most_texts=most_texts)
    _state.update(folder=folder, config=config)
    _open()


def evaluate(*, tasks: list[str], limit: int, portion: int = 64) -> dict[str, float]:
    """Evaluate from the data sets' files to scores; wall and CPU seconds.

    The engine is new each time, which is not counted: none of an earlier evaluation's keys and values are there.
    """
    backend = _open()
    wall, cpu = time.perf_counter(), time.process_time()
    _state["result"] = eval.evaluate(backend, tasks, limit=limit, portion=portion)
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def _open() -> eval.EngineBackend:
    folder = _state["folder"]
    llm = LLM(folder, weights="fp32", config=_state["config"])
    if llm.tokenizer is None:
        raise ValueError(f"{folder} has no tokenizer")
    return eval.EngineBackend(
        llm,
        llm.tokenizer,
        description={"model": folder, "weights": "fp32"},
        max_length=llm.engine.max_length,
        start=START,
    )


def results() -> dict[str, Any]:
    """Scores and items of the last evaluation, by task.

    An item is a list of log-probabilities, a log-probability or a text; "exact" holds what must not change
    by a bit.
    """
    return {name: _of_task(task) for name, task in _state["result"].tasks.items()}


def _of_task(task: TaskResult) -> dict[str, Any]:
    scores = {}
    for metric in task.metrics:
        estimate = task.estimate(metric)
        if estimate is None:
            raise AssertionError("a task has items")
        scores[metric] = estimate.value
    return {
        "scores": scores,
        "items": [_answer(task, item.output) for item in task.items],
        "exact": [[item.output, item.values] for item in task.items],
        "truncated": task.truncated,
    }


def _answer(task: TaskResult, output: str) -> Any:
    """What an item's output says in words."""
    if task.primary.startswith("acc"):
        return [float(found[1]) for found in _CHOICE.finditer(output)]
    if task.primary == "bits_per_byte":
        return float(output.split()[1])
    return output
