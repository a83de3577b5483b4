"""Runs tasks through a backend."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from oarlock.llm.eval import filters, fingerprint, items, metrics, registry, sandbox
from oarlock.llm.eval.backends import Backend, Continuation, NotSupported, Prompt, Score
from oarlock.llm.eval.cache import AnswerCache
from oarlock.llm.eval.data import Finder, find
from oarlock.llm.eval.items import Item
from oarlock.llm.eval.metrics import likelihood
from oarlock.llm.eval.result import EvalResult, ItemResult, TaskResult
from oarlock.llm.eval.task import Task

Advance = Callable[[float], None]


def evaluate(
    backend: Backend,
    tasks: str | Task | Iterable[str | Task],
    *,
    data: Finder = find,
    limit: int | None = None,
    variant: str = "default",
    cache: AnswerCache | None = None,
    portion: int = 64,
    skip_unsupported: bool = False,
    allow_weak_sandbox: bool = False,
    progress: bool = False,
) -> EvalResult:
    """Score a model on tasks.

    >>> result = evaluate(backend, ["gsm8k", "bbh_*"], limit=100, cache=AnswerCache("answers.sqlite"))
    >>> result.tasks["gsm8k"].estimate("number_match,flexible")

    Ctrl-C leaves what was answered in the cache; the same call goes on from there.

    Args:
        backend: runs the model.
        tasks: tasks, or patterns of their names.
        data: finds folders of data sets.
        limit: at most so many items a task, spread over its source; None for all.
        variant: of the prompts; tasks must have it.
        cache: of answers; None for none.
        portion: requests that the backend gets at a time, and that an interruption may lose.
        skip_unsupported: note tasks that the backend cannot run in ``refused``, instead of raising.
        allow_weak_sandbox: run generated programs even where the kernel does not confine them.
        progress: show a bar on standard error.

    Raises:
        ValueError: a task is unknown or does not fit its data.
        NotSupported: the backend cannot run a task.
        SandboxUnavailable: programs cannot be confined here.
        DataMissing: a data set is not here.
    """
    if portion < 1:
        raise ValueError(f"portion must be 1 or more, got {portion}.")
    chosen = _chosen(tasks)
    if not allow_weak_sandbox and not sandbox.isolation().strong:
        for task in chosen:
            if any(metric.name == "code_pass" for metric in task.metrics):
                sandbox.call("", None)  # says what is missing
    built = {
        task.name: items.build(task, data=data, limit=limit, variant=variant) for task in chosen
    }
    runner = _Runner(backend, cache, portion)
    results: dict[str, TaskResult] = {}
    refused: dict[str, str] = {}
    seconds: dict[str, float] = {}
    with _bar(progress) as start:
        for task in chosen:
            begin = time.monotonic()
            of_task = built[task.name]
            advance = start(task.name, len(of_task))
            try:
                ask = _ANSWER[task.output]
                answers = tuple(ask(runner, task, of_task, advance, allow_weak_sandbox))
            except NotSupported as error:
                if not skip_unsupported:
                    raise NotSupported(f"task {task.name}: {error}") from error
                refused[task.name] = str(error)
                continue
            results[task.name] = TaskResult(
                name=task.name,
                ability=task.ability,
                language=task.language,
                primary=task.primary,
                chance=task.chance,
                clustered=task.cluster is not None,
                items=answers,
            )
            results[task.name].estimate()  # the primary metric exists
            seconds[task.name] = time.monotonic() - begin
    asked = {
        task.name: fingerprint.of_task(task, built[task.name], variant=variant, limit=limit)
        for task in chosen
        if task.name in results
    }
    return EvalResult(
        model=str(backend.description["model"]),
        fingerprint=fingerprint.of_run(backend.description, asked),
        tasks=results,
        refused=refused,
        seconds=seconds,
    )


def _chosen(tasks: str | Task | Iterable[str | Task]) -> list[Task]:
    given = [tasks] if isinstance(tasks, (str, Task)) else list(tasks)
    chosen: dict[str, Task] = {}
    for one in given:
        for task in [one] if isinstance(one, Task) else registry.select(one):
            if chosen.setdefault(task.name, task) != task:
                raise ValueError(f"tasks must have different names, got two of {task.name!r}.")
    if not chosen:
        raise ValueError("tasks must be at least one.")
    return list(chosen.values())


class _Runner:
    """Asks the backend what the cache does not know, in portions."""

    def __init__(self, backend: Backend, cache: AnswerCache | None, portion: int):
        self.backend, self.cache, self.portion = backend, cache, portion

    def scores(self, requests: Sequence[tuple[str, str]], advance: Advance) -> list[Score]:
        return self._run("loglikelihood", requests, self.backend.loglikelihood, Score, advance)

    def rolling(self, texts: Sequence[str], advance: Advance) -> list[Score]:
        return self._run("rolling", texts, self.backend.loglikelihood_rolling, Score, advance)

    def texts(self, prompts: Sequence[Prompt], advance: Advance) -> list[Continuation]:
        return self._run("generate", prompts, self.backend.generate, Continuation, advance)

    def _run(
        self,
        kind: str,
        requests: Sequence[Any],
        ask: Callable[[Sequence[Any]], list[Any]],
        answer: type,
        advance: Advance,
    ) -> list[Any]:
        plain = [dataclasses.asdict(r) if isinstance(r, Prompt) else r for r in requests]
        keys = [AnswerCache.key(self.backend.description, kind, request) for request in plain]
        known: dict[str, Any] = {}
        if self.cache is not None:
            known = {key: answer(**value) for key, value in self.cache.get(keys).items()}
        advance(sum(key in known for key in keys))
        missing = {key: r for key, r in zip(keys, requests) if key not in known}
        waiting = list(missing)
        counts = {key: 0 for key in waiting}
        for key in keys:
            if key in counts:
                counts[key] += 1
        for begin in range(0, len(waiting), self.portion):
            part = waiting[begin : begin + self.portion]
            found = ask([missing[key] for key in part])
            new = dict(zip(part, found, strict=True))
            if self.cache is not None:
                self.cache.put({key: dataclasses.asdict(value) for key, value in new.items()})
            known |= new
            advance(sum(counts[key] for key in part))
        return [known[key] for key in keys]


def _choices(
    runner: _Runner, task: Task, of_task: list[Item], advance: Advance, weak: bool
) -> Iterator[ItemResult]:
    requests = [(item.prompt, choice) for item in of_task for choice in item.choices]
    share = len(of_task) / len(requests)
    scores = iter(runner.scores(requests, lambda n: advance(n * share)))
    for item in of_task:
        own = [next(scores) for _ in item.choices]
        values = likelihood.multiple_choice(own, item)
        taken = max(range(len(own)), key=lambda i: own[i].logprob)
        output = "\n".join(
            f"{'>' if i == taken else ' '} {score.logprob:.4f} {choice}"
            for i, (choice, score) in enumerate(zip(item.choices, own))
        )
        target = item.choices[item.gold]
        yield _result(item, output, values, any(s.truncated for s in own), target=target)


def _likelihood(
    runner: _Runner, task: Task, of_task: list[Item], advance: Advance, weak: bool
) -> Iterator[ItemResult]:
    requests = [(item.prompt, task.delimiter + item.target) for item in of_task]
    for item, score in zip(of_task, runner.scores(requests, advance)):
        output = f"log-probability {score.logprob:.4f} of {score.tokens} tokens"
        yield _result(item, output, likelihood.loglikelihood(score), score.truncated)


def _rolling(
    runner: _Runner, task: Task, of_task: list[Item], advance: Advance, weak: bool
) -> Iterator[ItemResult]:
    for item, score in zip(of_task, runner.rolling([i.prompt for i in of_task], advance)):
        output = f"log-probability {score.logprob:.4f} of {score.tokens} tokens"
        yield _result(item, output, likelihood.rolling(score, item.prompt), score.truncated)


def _generated(
    runner: _Runner, task: Task, of_task: list[Item], advance: Advance, weak: bool
) -> Iterator[ItemResult]:
    prompts = [
        Prompt(text=item.prompt, stop=task.stop, max_tokens=task.max_tokens) for item in of_task
    ]
    ways = dict(task.filters)
    for item, answer in zip(of_task, runner.texts(prompts, advance)):
        values: dict[str, likelihood.Scored] = {}
        for way, steps in ways.items() or [("", ())]:
            text = filters.apply(steps, answer.text)
            for metric in task.metrics:
                options = dict(metric.options)
                if metric.name == "code_pass" and weak:
                    options["allow_weak"] = True
                key = f"{metric.name},{way}" if way else metric.name
                values[key] = likelihood.Scored(metrics.judge(metric.name, text, item, **options))
        yield _result(item, answer.text, values, answer.truncated)


_ANSWER: dict[str, Callable[..., Iterator[ItemResult]]] = {
    "multiple_choice": _choices,
    "loglikelihood": _likelihood,
    "loglikelihood_rolling": _rolling,
    "generate_until": _generated,
}


def _result(
    item: Item,
    output: str,
    values: dict[str, likelihood.Scored],
    truncated: bool,
    *,
    target: str | None = None,
) -> ItemResult:
    return ItemResult(
        id=item.id,
        tier=item.tier,
        cluster=item.cluster,
        prompt=item.prompt,
        target=item.target if target is None else target,
        output=output,
        values={name: (scored.value, scored.weight) for name, scored in values.items()},
        truncated=truncated,
    )


@contextmanager
def _bar(show: bool) -> Iterator[Callable[[str, int], Advance]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not show) as bars:

        def start(name: str, total: int) -> Advance:
            number = bars.add_task(name, total=total)
            return lambda n: bars.advance(number, n)

        yield start
