"""Tasks of ours in lm-eval's terms: rows, templates and numbers of items, as JSON.

lm-eval gets no prompts: it builds them with examples from the rows and templates, cuts tokens, filters answers and
computes metrics by itself.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oarlock.llm.eval import Task, data, select, sources

#: Column of a choice task's answers, as texts.
CHOICES = "oarlock_choices"
#: lm-eval's names of scores by ours, for each kind of output.
SCORES: Mapping[str, Mapping[str, str]] = {
    "multiple_choice": {"acc": "acc,none", "acc_norm": "acc_norm,none"},
    "loglikelihood_rolling": {
        "bits_per_byte": "bits_per_byte,none",
        "byte_perplexity": "byte_perplexity,none",
    },
    "generate_until": {},
}


def tasks_of(names: Sequence[str]) -> list[Task]:
    """Tasks by name, in this order."""
    found = {task.name: task for task in select(names)}
    return [found[name] for name in names]


def spell(task: Task, limit: int, folder: Path) -> dict[str, Any]:
    """A task for lm-eval; its rows are written below ``folder``.

    Returns:
        "name", "output", "config" (lm-eval's own), "choices" (a column, or null) and "samples", the numbers of
        the items that ``limit`` chooses.
    Raises:
        ValueError: lm-eval has nothing that does what the task asks for.
    """
    few_shot = task.few_shot
    if few_shot is not None and (few_shot.pick != "first" or few_shot.target is not None):
        raise ValueError(f"task {task.name}: examples are drawn or have solutions")
    rows = [
        _with_choices(task, row)
        for row in sources.read(task.source.reader, data.find, task.source.options)
    ]
    files = {"test": _write(rows, folder / f"{task.name}.jsonl")}
    config: dict[str, Any] = {
        "task": task.name,
        "dataset_path": "json",
        "test_split": "test",
        "output_type": task.output,
        "doc_to_text": task.prompt,
        "target_delimiter": task.delimiter,
    }
    if few_shot is not None:
        config |= {
            "fewshot_split": "test",
            "num_fewshot": few_shot.count,
            "fewshot_delimiter": few_shot.separator,
            "fewshot_config": {"sampler": "first_n"},
        }
        if few_shot.options is not None:
            pool = sources.read(task.source.reader, data.find, few_shot.options)
            examples = [_with_choices(task, row) for row in pool]
            files["examples"] = _write(examples, folder / f"{task.name}.examples.jsonl")
            config["fewshot_split"] = "examples"
    config |= _judged(task) | {"dataset_kwargs": {"data_files": files}}
    count = min(limit, len(rows))
    return {
        "name": task.name,
        "output": task.output,
        "config": config,
        "choices": CHOICES if task.choices else None,
        "samples": [i * len(rows) // count for i in range(count)],
    }


def _judged(task: Task) -> dict[str, Any]:
    if task.output == "multiple_choice":
        return {
            "doc_to_target": task.gold,
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        }
    if task.output == "loglikelihood_rolling":
        names = ("bits_per_byte", "byte_perplexity")
        return {
            "doc_to_text": "",
            "doc_to_target": task.prompt,
            "metric_list": [{"metric": name} for name in names],
        }
    if task.output != "generate_until":
        raise ValueError(f"task {task.name}: {task.output} is not compared")
    return {
        "doc_to_target": task.target,
        "metric_list": [{"metric": "exact_match"}],
        "generation_kwargs": {
            "until": list(task.stop),
            "max_gen_toks": task.max_tokens,
            "do_sample": False,
        },
    }


def _with_choices(task: Task, row: dict[str, Any]) -> dict[str, Any]:
    if task.choices is None:
        return row
    return row | {CHOICES: [str(choice) for choice in row[task.choices]]}


def _write(rows: Sequence[Mapping[str, Any]], path: Path) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)
