"""Criterion 4.4.1: tasks that cover abilities in tiers of difficulty, and whether they are asked and judged right."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from oarlock.accept.experiment import Evidence, Run, experiment

TASKS, ABILITIES = 40, 8  #: at least
#: Items that a task is tried with; the quick tier tries one task of each ability and tier.
TRIED = {"quick": 1, "full": 20}
#: Readers that take seconds; not in the quick tier.
SLOW = ("next_line", "next_sentence")
#: Models whose sampled solutions come with GSM8K.
SOLVERS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
NORMAL_95 = 1.959963984540054


@experiment(
    "4.4.1",
    name="tasks",
    tiers=("quick", "full"),
    title="Tasks by ability and tier; right and wrong answers to them; tiers against measured difficulty",
    minutes=4,
    data=(
        "gsm8k",
        "bbh",
        "agieval",
        "bfcl_v4",
        "zero_shot_cot_sets",
        "wikitext2",
        "chinese_poetry",
    ),
)
def tasks(run: Run) -> Iterator[Evidence]:
    """Counts tasks and items, answers them without a model, and compares tiers with what models find hard."""
    from oarlock.llm.eval import select

    every = select()
    yield from _counts(run, every)
    yield from _answers(run, every)
    yield _tiers(run, every)


def _counts(run: Run, every: Sequence[Any]) -> Iterator[Evidence]:
    from oarlock.llm.eval import build, data, matrix

    cells = Counter[tuple[str, str]]()
    if run.tier == "full":
        for done, task in enumerate(every):
            run.progress(done, len(every), task.name)
            cells.update((task.ability, item.tier) for item in build(task, data=data.find))
    else:
        found = matrix(every)
        cells.update(
            {(a, tier): len(names) for a, row in found.items() for tier, names in row.items()}
        )
    what = "items" if run.tier == "full" else "tasks"
    tiers = {tier for _, tier in cells}
    whole = [a for a in {a for a, _ in cells} if all(cells[a, tier] for tier in tiers)]
    smallest = min(cells, key=lambda cell: cells[cell])
    told = "; ".join(
        f"{a} " + ", ".join(f"{t} {cells[a, t]}" for t in ("easy", "medium", "hard"))
        for a in sorted(whole)
    )
    notes = f"{what} by ability and tier: {told}."
    chinese = sum(task.language == "zh" for task in every)
    common: dict[str, Any] = {"unit": "", "direction": "higher", "seeds": [run.seed]}
    yield Evidence(
        name="tasks",
        metric="tasks",
        baseline=float(TASKS),
        baseline_name="at least",
        ours=float(len(every)),
        target=1.0,
        notes=f"{chinese} of them in Chinese. {notes}",
        **common,
    )
    yield Evidence(
        name="abilities",
        metric="abilities with items in each of three tiers",
        baseline=float(ABILITIES),
        baseline_name="at least",
        ours=float(len(whole) if len(tiers) == 3 else 0),
        ratio=(len(whole) if len(tiers) == 3 else 0) / ABILITIES,
        target=1.0,
        notes=notes,
        **common,
    )
    yield Evidence(
        name="smallest-cell",
        metric=f"{what} in the smallest cell, {smallest[0]}, {smallest[1]}",
        baseline=None,
        baseline_name=f"none; {sum(cells.values()):,} in all cells",
        ours=float(cells[smallest]),
        notes=notes,
        **common,
    )


def _answers(run: Run, every: Sequence[Any]) -> Iterator[Evidence]:
    """Right answers must have full marks, wrong ones none: of texts, choices, calls and programs."""
    from oarlock.accept.evaluation import answers
    from oarlock.llm.eval import data, build, evaluate

    chosen = [task for task in every if answers.answerable(task)]
    if run.tier == "quick":
        one = {(t.ability, t.tiers): t for t in chosen if t.source.reader not in SLOW}
        chosen = list(one.values())
    limit = TRIED[run.tier]
    failed: Mapping[bool, list[str]] = {True: [], False: []}
    for done, task in enumerate(chosen):
        run.progress(done, len(chosen), task.name)
        items = build(task, data=data.find, limit=limit)
        for right in (True, False):
            if not right and task.name in answers.ALWAYS_RIGHT:
                continue
            backend = answers.model(task, items, right=right)
            found = evaluate(backend, task, limit=limit).tasks[task.name].estimate()
            if found is None or found.value != float(right):
                failed[right].append(task.name)
    left_out = len(every) - len(chosen)
    for right, words in (
        (True, "right answers have full marks"),
        (False, "wrong answers have none"),
    ):
        count = len(chosen) - (0 if right else sum(t.name in answers.ALWAYS_RIGHT for t in chosen))
        good = count - len(failed[right])
        yield Evidence(
            name=f"{'right' if right else 'wrong'}-answers",
            metric=f"tasks in which {words}",
            unit="tasks",
            direction="higher",
            baseline=float(count),
            baseline_name="all that are tried",
            ours=float(good),
            ratio=good / count,
            n=limit,
            seeds=[run.seed],
            target=1.0,
            notes=(
                f"Up to {limit} items each; {left_out} tasks are not tried: bits per byte have no right answer, texts under"
                f" several rules are not made here. Failed: {', '.join(failed[right]) or 'none'}."
            ),
        )


def _tiers(run: Run, every: Sequence[Any]) -> Evidence:
    """The share that models solve falls from tier to tier of GSM8K, whose solutions by four models are public."""
    from oarlock.accept import data
    from oarlock.llm.eval.statistics import mean

    [task] = [one for one in every if one.name == "gsm8k"]
    with gzip.open(data.path("gsm8k", "example_model_solutions.jsonl.gz"), "rt") as file:
        records = [json.loads(line) for line in file]
    falls, told = 0, []
    for solver in SOLVERS:
        by_tier: dict[str, list[float]] = {"easy": [], "medium": [], "hard": []}
        for record in records:
            tier = task.tier.of({"steps": record["ground_truth"].count("<<")})
            by_tier[tier].append(float(record[solver]["is_correct"]))
        found = [mean(values) for values in by_tier.values()]
        for a, b in zip(found, found[1:]):
            error = (a.standard_error**2 + b.standard_error**2) ** 0.5
            falls += a.value - b.value > NORMAL_95 * error
        told.append(f"{solver} " + ", ".join(f"{one.value:.3f}" for one in found))
    steps = 2 * len(SOLVERS)
    return Evidence(
        name="tiers-gsm8k",
        metric="GSM8K: steps from tier to tier at which a model solves fewer, beyond its error",
        unit="steps",
        direction="higher",
        baseline=float(steps),
        baseline_name=f"all, two for each of {len(SOLVERS)} models",
        ours=float(falls),
        ratio=falls / steps,
        n=len(records),
        seeds=[run.seed],
        target=1.0,
        notes=f"Solutions that come with the set, shares of easy, medium and hard: {'; '.join(told)}.",
    )
