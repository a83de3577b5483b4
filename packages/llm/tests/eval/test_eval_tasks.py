"""Task files, the sources behind them, and the items they make."""

import re

import numpy as np
import pytest

from oarlock.llm.eval import (
    ABILITIES,
    TIERS,
    Task,
    build,
    data,
    filters,
    load,
    matrix,
    metrics,
    select,
)
from oarlock.llm.eval import sources
from oarlock.llm.eval.sources import corpora, long_context
from oarlock.llm.eval.task import TierRule

TASKS = {task.name: task for task in select()}


def test_every_cell_of_ability_and_tier_is_filled():
    assert len(TASKS) >= 40
    cells = matrix(list(TASKS.values()))
    assert set(cells) == set(ABILITIES) and len(ABILITIES) >= 8
    for ability, row in cells.items():
        for tier in TIERS:
            assert row[tier], f"no {tier} task of {ability}"
    assert {task.language for task in TASKS.values()} == {"en", "zh"}


@pytest.mark.parametrize("name", TASKS)
def test_task_names_what_exists(name):
    task = TASKS[name]
    assert task.source.reader in sources.READERS
    for metric in task.metrics:
        assert metric.name in metrics.METRICS
    for steps in task.filters.values():
        filters.apply(steps, "some text")
    if task.output == "generate_until":
        primary, _, way = task.primary.partition(",")
        assert primary in {m.name for m in task.metrics} and (way in task.filters or not way)
    if task.output == "multiple_choice":
        assert task.primary in ("acc", "acc_norm") and task.chance


@pytest.mark.parametrize(
    "name", [name for name, task in TASKS.items() if "made here" in task.licence]
)
def test_made_items_are_the_same_each_time(name):
    def nowhere(data_set):
        raise AssertionError(f"{data_set} is not needed")

    task = TASKS[name]
    first, second = (build(task, data=nowhere, limit=6) for _ in range(2))
    assert first == second and len(first) >= 6
    assert {item.tier for item in first} <= set(task.tiers)


def test_all_tasks_build_from_their_data(shared_data):
    shared_data("llm/gsm8k")
    for task in TASKS.values():
        if task.name in ("next_poem_line_medium", "next_poem_line_hard", "tang_poems_bits"):
            continue  # they read the same 20 MB as next_poem_line_easy
        items = build(task, data=data.find, limit=4)
        assert len(items) >= 4, task.name
        for item in items:
            assert item.prompt.strip() and "{{" not in item.prompt
            assert item.tier in task.tiers
            if task.output == "multiple_choice":
                assert len(set(item.choices)) > 1
        for variant in task.variants:
            asked = build(task, data=data.find, limit=4, variant=variant)
            assert [a.prompt for a in asked] != [i.prompt for i in items]
            assert [a.target for a in asked] == [i.target for i in items]


def test_no_item_is_its_own_example(shared_data):
    shared_data("llm/bbh")
    for item in build(TASKS["bbh_navigate"], data=data.find, limit=250)[:6]:
        assert item.prompt.count(item.fields["question"]) == 1
        assert item.prompt.count("Answer:") == 4


def test_tiers_of_gsm8k_are_those_that_models_find_hard(shared_data):
    """The solutions of two sizes of GPT-3 that come with the set: each tier is harder than the one before."""
    import gzip
    import json

    folder = shared_data("llm/gsm8k")
    with gzip.open(folder / "example_model_solutions.jsonl.gz") as file:
        records = [json.loads(line) for line in file]
    rule = TASKS["gsm8k"].tier
    for model in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
        right = {tier: [] for tier in TIERS}
        for record in records:
            tier = rule.of({"steps": record["ground_truth"].count("<<")})
            right[tier].append(record[model]["is_correct"])
        shares = [np.mean(right[tier]) for tier in TIERS]
        errors = [np.std(right[tier]) / len(right[tier]) ** 0.5 for tier in TIERS]
        for i in (0, 1):
            assert shares[i] - shares[i + 1] > 1.96 * np.hypot(errors[i], errors[i + 1])


def test_needles_lie_where_they_should():
    rows = long_context.needle(
        None, characters=[500, 3000], depths=[0, 0.5, 1], items=6, seed=3, keys=2
    )
    for row in rows:
        fact = f"The special number of {row['city']} is {row['answer']}."
        assert row["text"].count(fact) == 1
        assert row["characters"] <= len(row["text"]) < row["characters"] + 150
        begin = row["text"].index(fact) / len(row["text"])
        assert abs(begin - row["depth"]) < 0.25


def test_hops_lead_to_the_code():
    [row] = long_context.multi_hop(None, characters=[2000], hops=3, chains=2, items=1, seed=0)
    person = row["person"]
    for _ in range(3):
        [person] = re.findall(rf"The code of {person} is the same as that of (\w+)\.", row["text"])
    assert f"The code of {person} is {row['answer']}." in row["text"]


def test_arithmetic_is_right_and_of_the_digits_asked_for():
    rows = sources.read(
        "arithmetic", None, {"digits": [3], "operations": ["+", "-", "*"], "items": 30, "seed": 5}
    )
    assert len({(r["a"], r["b"], r["operation"]) for r in rows}) == 30
    for r in rows:
        assert eval(f"{r['a']} {r['operation']} {r['b']}") == r["answer"]
        assert len(str(r["a"])) == len(str(r["b"])) == 3
    with pytest.raises(ValueError, match="no 500 different items"):
        sources.read(
            "arithmetic", None, {"digits": [1], "operations": ["+"], "items": 500, "seed": 0}
        )


def test_wikitext_reads_as_it_was_written():
    marked = ' It was ( then ) 5 @,@ 000 @-@ year old , " very " good ; the dog \'s . \n'
    assert corpora.detokenize(marked) == 'It was (then) 5,000-year old, "very" good; the dog\'s.'


GOOD = """
name: small
version: 1
description: d
ability: code
tier: {field: digits, easy: 1, medium: 2}
tier_reason: by construction
language: en
licence: made here
source: {reader: arithmetic, options: {digits: [1, 2, 3], operations: ["+"], items: 9, seed: 0}}
output: generate_until
prompt: "{{ a }}+{{ b }}="
target: "{{ answer }}"
few_shot: {count: 2}
metrics: [{name: number_match}]
primary: number_match
"""


def write(tmp_path, text, name="small.yaml"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_tiers_of_items_follow_the_rule(tmp_path):
    task = load(write(tmp_path, GOOD))
    items = build(task, data=data.find)
    assert [i.tier for i in items] == ["easy", "medium", "hard"] * 3
    assert TierRule(field="x", easy=1, medium=2).of({"x": 1.5}) == "medium"
    assert select("small", folder=tmp_path, tier="hard") == [task]
    assert select(folder=str(tmp_path)) == [task]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 1", "version: 0", "version"),
        ("ability: code", "ability: cooking", "ability"),
        ("primary: number_match", "primary: number_match\nspeed: 3", "speed"),
        ("easy: 1, medium: 2", "easy: 2, medium: 2", "easy must be below medium"),
        ("metrics: [{name: number_match}]", "", "metrics belong to generate_until"),
        ("output: generate_until", "output: multiple_choice", "choices and gold"),
        ("name: small", "name: other", "must be named other.yaml"),
        ("name: small", "name: [", "is no task"),
    ],
)
def test_wrong_files_are_refused_by_name(tmp_path, old, new, message):
    assert old in GOOD
    with pytest.raises(ValueError, match=f"(?s)small.yaml.*{re.escape(message)}"):
        load(write(tmp_path, GOOD.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{{ a }}+", "{{ c }}+", "'c' is undefined"),
        ("{{ a }}+", "{{ a.__class__.__mro__ }}+", "unsafe"),
        ("reader: arithmetic", "reader: astrology", "no reader is named 'astrology'"),
        ("seed: 0", "seed: 0, colour: 1", "unexpected keyword argument 'colour'"),
        ("field: digits", "field: hue", "hue"),
        ("count: 2", "count: 20", "21 examples are needed"),
    ],
)
def test_tasks_that_do_not_fit_their_source_are_refused(tmp_path, old, new, message):
    assert old in GOOD
    task = load(write(tmp_path, GOOD.replace(old, new)))
    with pytest.raises(ValueError, match=message):
        build(task, data=data.find)


def test_selection_is_by_pattern_and_says_what_is_near():
    assert {t.ability for t in select("bfcl_*")} == {"tools"}
    assert all(t.language == "zh" for t in select(ability="reading", language="zh"))
    with pytest.raises(ValueError, match="no task matches 'gsm8': did you mean gsm8k"):
        select("gsm8")
    with pytest.raises(ValueError, match="no task is left"):
        select("gsm8k", ability="code")
    with pytest.raises(ValueError, match="has no variant 'loud'; it has: default, instruct"):
        build(TASKS["gsm8k"], data=data.find, variant="loud")
    with pytest.raises(ValueError, match="limit must be 1 or more"):
        build(TASKS["gsm8k"], data=data.find, limit=0)


def test_missing_data_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("OARLOCK_DATA", str(tmp_path))
    with pytest.raises(data.DataMissing, match=f"{tmp_path}.*Set OARLOCK_DATA"):
        data.find("llm/nowhere")
    (tmp_path / "llm" / "here").mkdir(parents=True)
    assert data.find("llm/here") == tmp_path / "llm" / "here"


def test_the_sandbox_of_templates_is_one():
    task = Task.model_validate(
        dict(
            name="t", version=1, description="d", ability="code", tier="easy", tier_reason="by construction",
            language="en", licence="l", source={"reader": "refusals", "options": {"kind": "direct"}},
            output="generate_until", prompt="{{ cycler.__init__.__globals__ }}",
            metrics=[{"name": "refusal"}], primary="refusal",
        )
    )  # fmt: skip
    with pytest.raises(ValueError, match="unsafe"):
        build(task, data=data.find)
