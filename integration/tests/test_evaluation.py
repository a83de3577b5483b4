"""What criterion 4.4 compares with and measures by."""

import json
from importlib.resources import files

import numpy as np
import pytest
from oarlock.accept import data
from oarlock.accept.evaluation import (
    agreement,
    answers,
    credibility,
    hugging_face,
    lm_eval_tasks,
    standing,
)
from oarlock.accept.topics import t4_4_lm_eval
from oarlock.llm import loading
from oarlock.llm.eval import EvalResult, build, evaluate, select
from oarlock.llm.eval.data import DataMissing
from oarlock.llm.eval.result import ItemResult, TaskResult
from oarlock.llm.tokenizers import BPETokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    try:
        data.path("stories260K")
    except data.DataMissing:
        pytest.skip("weights/stories260K is not here")
    place = tmp_path_factory.mktemp("stories")
    hugging_face.write(*hugging_face.stories(), place)
    return place


def test_the_folder_holds_the_same_weights_and_tokenizer(folder):
    model, tokenizer = hugging_face.stories()
    read, _ = loading.load_model(folder)
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(read.state_dict()[name].numpy(), tensor.numpy())
    theirs = BPETokenizer.from_file(folder / "tokenizer.json")
    for text in ("Once upon a time, Lily saw 3 cats.", "", " é 中文\n\n  x<s>", "<unk> The"):
        assert theirs.encode(text) == tokenizer.encode(text)
    assert theirs.begins_with() == [1]


@pytest.mark.parametrize("name", t4_4_lm_eval.TASKS)
def test_tasks_are_spelt_for_lm_eval(name, tmp_path):
    [task] = lm_eval_tasks.tasks_of([name])
    try:
        spelt = lm_eval_tasks.spell(task, 3, tmp_path)
    except DataMissing as missing:
        pytest.skip(str(missing))
    assert json.loads(json.dumps(spelt)) == spelt
    rows = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().split("\n")]
    items = build(task, data=lm_eval_tasks.data.find, limit=3)
    assert [item.id for item in items] == [f"{name}:{i}" for i in spelt["samples"]]
    for item, number in zip(items, spelt["samples"]):
        if item.choices:
            choices = rows[number][spelt["choices"]]
            assert tuple(task.delimiter + choice for choice in choices) == item.choices


def test_tasks_that_lm_eval_cannot_do_alike_are_refused(tmp_path):
    with pytest.raises(ValueError, match="gsm8k: examples are drawn or have solutions"):
        lm_eval_tasks.spell(select("gsm8k")[0], 1, tmp_path)


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ([-8.3841, -6.4517], [-8.384076, -6.451737], True),
        ([-8.3841, -6.4517], [-8.3849, -6.451737], False),
        (-14716.722, -14716.7221, True),
        (-14716.722, -14718.2, False),
        (" a cat", "a cat", True),
        (" a cat", "a cart", False),
    ],
)
def test_agreement(ours, theirs, same):
    [task] = select("arithmetic_sums_easy" if isinstance(ours, str) else "coin_flip")
    scores = {"acc": 1.0, "acc_norm": 0.5}
    a = {"items": [ours], "scores": scores}
    b = {"items": [theirs], "scores": {f"{k},none": v for k, v in scores.items()}}
    found = agreement.compare(task, a, b)
    assert (found.same == 1) is same and (found.difference <= 1) is same
    with pytest.raises(ValueError, match="1 items of ours, 2 of theirs"):
        agreement.compare(task, a, b | {"items": [theirs, theirs]})


def test_what_is_recorded_are_tasks_of_each_kind():
    recorded = json.loads((files("oarlock.accept.evaluation") / "recorded.json").read_text())
    tasks = lm_eval_tasks.tasks_of(list(recorded["tasks"]))
    assert len(tasks) >= 5 and len({task.output for task in tasks}) == 3
    assert all(len(one["items"]) == recorded["items"] for one in recorded["tasks"].values())


@pytest.mark.parametrize("name", ["programs_easy", "hidden_orders", "refuse_direct", "needle_easy"])
def test_right_answers_are_right_and_wrong_ones_wrong(name):
    [task] = select(name)
    items = build(task, data=lm_eval_tasks.data.find, limit=2)
    for right in (True, False):
        found = evaluate(answers.model(task, items, right=right), task, limit=2)
        assert found.tasks[name].estimate().value == float(right)


def result(model: str, values, clusters=None) -> EvalResult:
    items = tuple(
        ItemResult(
            id=str(i),
            tier="easy",
            cluster=str(i if clusters is None else clusters[i]),
            prompt="",
            target="",
            output="",
            values={"acc": (float(value), 1.0)},
        )
        for i, value in enumerate(values)
    )
    task = TaskResult(
        name="t",
        ability="language",
        language="en",
        primary="acc",
        chance=None,
        clustered=clusters is not None,
        items=items,
    )
    about = {"tasks": {"t": {"version": 1, "items": "same"}}}
    return EvalResult(model=model, fingerprint=about, tasks={"t": task}, refused={}, seconds={})


@pytest.fixture
def three():
    rng = np.random.default_rng(0)
    hard = rng.random(200)
    return {
        name: result(name, hard < level) for name, level in (("c", 0.3), ("a", 0.8), ("b", 0.78))
    }


def test_models_are_ordered_and_only_large_leads_are_sure(three):
    found = standing.rank(three, "t")
    assert found.order == ("a", "b", "c")
    first, second = found.adjacent()
    assert (first.better, first.worse, first.sure) == ("a", "b", False)
    assert (second.better, second.worse, second.sure) == ("b", "c", True)
    assert found.pair("c", "a").better == "a"
    assert standing.agreement(three, "t", ("a", "b", "c"), seed=0)[0] == 1
    tau, low, high = standing.agreement(three, "t", ("c", "b", "a"), seed=0)
    assert tau == low == -1 and high < 0


def test_promises_hold_for_items_alone_and_in_clusters():
    rng = np.random.default_rng(1)
    task = result("m", rng.random(60)).tasks["t"]
    assert 0.92 <= credibility.coverage(task, draws=400, seed=0) <= 0.98
    shared = np.repeat(rng.normal(0, 1, 12), 5) + rng.normal(0, 0.1, 60)
    clustered = result("m", shared, clusters=np.repeat(np.arange(12), 5)).tasks["t"]
    assert 0.88 <= credibility.coverage(clustered, draws=400, seed=0) <= 0.99
    other = result("m", np.repeat(rng.normal(0, 1, 12), 5), clusters=np.repeat(np.arange(12), 5))
    known = credibility.false_alarms(clustered, other.tasks["t"], draws=300, seed=0)
    assert known < 0.1


def test_power_is_what_was_forecast():
    rng = np.random.default_rng(2)
    a, b = (rng.normal(mean, 1, 2000) for mean in (0.6, 0.0))
    first, second = result("a", a).tasks["t"], result("b", b).tasks["t"]
    n = credibility.forecast(first, second)
    assert 30 < n < 90
    assert 0.7 < credibility.power(first, second, n, draws=400, seed=0) < 0.9
    assert credibility.forecast(first, first) is None
