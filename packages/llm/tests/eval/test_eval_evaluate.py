"""Whole evaluations: scores, cache, fingerprints, comparison, sensitivity, contamination, report, command."""

import html.parser
import json
import re
from collections import Counter

import pytest
from typer.testing import CliRunner

from oarlock.llm import eval as evaluation
from oarlock.llm.eval import (
    AnswerCache,
    EvalResult,
    FunctionBackend,
    NotSupported,
    Task,
    build,
    compare_task,
    contamination,
    evaluate,
    find,
    report,
    sandbox,
    select,
    sensitivity,
)

WEAK = not sandbox.isolation().strong


def solver(name, wrong=(), calls=None):
    """Does sums, but for those whose first number is in ``wrong``; finds the shortest answer most probable."""

    def generate(prompt):
        if calls is not None:
            calls[prompt.text] += 1
        last = re.findall(r"(-?\d+) (?:([+*-])|plus|minus|times) (-?\d+)", prompt.text)[-1]
        a, operation, b = last
        right = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}.get(operation, 0)
        return f" {right + 1 if int(a) in wrong else right}\nnext"

    return FunctionBackend(
        name=name, generate=generate, loglikelihood=lambda context, text: (-float(len(text)), False)
    )


def test_scores_of_a_model_that_knows_and_one_that_errs():
    good = evaluate(solver("good"), "arithmetic_sums_easy")
    task = good.tasks["arithmetic_sums_easy"]
    assert task.estimate().value == 1 and task.estimate().n == 160
    assert task.metrics == ["number_match,strict", "number_match,flexible"]
    bad = evaluate(
        solver("bad", wrong={3, 4}), ["arithmetic_sums_easy", "arithmetic_products_easy"]
    )
    share = (
        sum(
            item.fields["a"] not in (3, 4)
            for item in build(select("arithmetic_sums_easy")[0], data=find)
        )
        / 160
    )
    assert bad.tasks["arithmetic_sums_easy"].estimate().value == pytest.approx(share)
    assert bad.tasks["arithmetic_sums_easy"].estimate(tier="hard") is None
    with pytest.raises(ValueError, match="has no metric 'bleu'; it has: number_match,strict"):
        task.estimate("bleu")


def test_programs_are_run(tmp_path):
    answer = "def reverse(text):\n    return text[::-1]\n```"
    result = evaluate(
        FunctionBackend(name="one", generate=lambda prompt: answer),
        "programs_easy",
        allow_weak_sandbox=WEAK,
    )
    assert [i.values["code_pass,completed"][0] for i in result.tasks["programs_easy"].items] == [
        1.0
    ] + [0.0] * 9


def test_an_interruption_costs_one_portion(tmp_path):
    calls, path = Counter(), tmp_path / "deep" / "answers.sqlite"
    whole = evaluate(solver("s"), "arithmetic_sums_easy")

    class Interrupted(FunctionBackend):
        def generate(self, prompts):
            if len(calls) >= 40:
                raise KeyboardInterrupt
            return super().generate(prompts)

    broken = Interrupted(name="s", generate=solver("s", calls=calls)._generate)
    with AnswerCache(path) as cache:
        with pytest.raises(KeyboardInterrupt):
            evaluate(broken, "arithmetic_sums_easy", cache=cache, portion=20)
        assert len(cache) == 40
    with AnswerCache(path) as cache:
        again = evaluate(solver("s", calls=calls), "arithmetic_sums_easy", cache=cache, portion=7)
        assert set(calls.values()) == {1} and len(calls) == 160
        assert again.tasks == whole.tasks and again.fingerprint == whole.fingerprint
        # another model, or the same called otherwise, gets nothing of it
        evaluate(solver("other", calls=calls), "arithmetic_sums_easy", cache=cache)
    assert set(calls.values()) == {2}


def test_a_file_that_is_no_cache_is_refused(tmp_path):
    (tmp_path / "x").write_text("no database" * 100)
    with pytest.raises(ValueError, match="x is no cache of answers"):
        AnswerCache(tmp_path / "x")


def test_portions_change_nothing():
    results = [
        evaluate(solver("s", wrong={5}), "arithmetic_sums_easy", portion=p) for p in (1, 9, 999)
    ]
    assert results[0].tasks == results[1].tasks == results[2].tasks
    with pytest.raises(ValueError, match="portion must be 1 or more"):
        evaluate(solver("s"), "arithmetic_sums_easy", portion=0)


def test_what_a_backend_cannot_do_is_refused_or_noted(shared_data):
    shared_data("llm/bbh")
    writes = FunctionBackend(name="w", generate=lambda prompt: "4")
    tasks = ["bbh_navigate", "arithmetic_sums_easy"]
    with pytest.raises(NotSupported, match="task bbh_navigate: loglikelihood was not given"):
        evaluate(writes, tasks, limit=3)
    result = evaluate(writes, tasks, limit=3, skip_unsupported=True)
    assert list(result.tasks) == ["arithmetic_sums_easy"] == list(result.fingerprint["tasks"])
    assert "only generates" in result.refused["bbh_navigate"]


def test_fingerprints_tell_what_differs():
    base = evaluate(solver("s"), "arithmetic_sums_easy", limit=8).fingerprint
    assert base == evaluate(solver("s"), "arithmetic_sums_easy", limit=8).fingerprint
    of_task = base["tasks"]["arithmetic_sums_easy"]
    words = evaluate(solver("s"), "arithmetic_sums_easy", limit=8, variant="words").fingerprint
    changed = words["tasks"]["arithmetic_sums_easy"]
    assert {k for k in of_task if of_task[k] != changed[k]} == {"template", "variant", "items"}
    [task] = select("arithmetic_sums_easy")
    newer = Task.model_validate(task.model_dump() | {"version": 2})
    changed = evaluate(solver("s"), newer, limit=8).fingerprint["tasks"]["arithmetic_sums_easy"]
    assert {k for k in of_task if of_task[k] != changed[k]} == {"version", "definition"}
    assert of_task["few_shot"]["count"] == 4 and base["versions"]["paddlepaddle"]
    with pytest.raises(ValueError, match="different names, got two of 'arithmetic_sums_easy'"):
        evaluate(solver("s"), [task, newer])


@pytest.fixture(scope="module")
def results():
    tasks = ["arithmetic_sums_easy", "arithmetic_products_easy"]
    return [
        evaluate(solver(name, wrong), tasks)
        for name, wrong in (("strong", {9}), ("weak <b>&", {1, 2, 3, 4, 5, 6}))
    ]


def test_results_survive_being_saved(results, tmp_path):
    for name in ("r.json", "r.json.gz"):
        results[0].save(tmp_path / name)
        assert EvalResult.load(tmp_path / name) == results[0]
    (tmp_path / "bad.json").write_text('{"format": 1, "tasks": {"t": {}}}')
    with pytest.raises(ValueError, match="bad.json holds no result"):
        EvalResult.load(tmp_path / "bad.json")


def test_models_are_compared_on_the_same_items_only(results):
    found = compare_task(*results, "arithmetic_sums_easy")
    assert found.difference > 0.3 and found.p_value < 1e-6 and found.sign_p_value < 1e-6
    assert compare_task(*results[::-1], "arithmetic_sums_easy").difference == -found.difference
    short = evaluate(solver("strong"), "arithmetic_sums_easy", limit=10)
    with pytest.raises(
        ValueError, match="was not the same for strong and weak.*same limit and variant"
    ):
        compare_task(short, results[1], "arithmetic_sums_easy")
    with pytest.raises(ValueError, match="strong has not run task recall_easy"):
        compare_task(*results, "recall_easy")


def test_prompts_that_matter_are_found_out():
    # the solver does not understand words
    found = sensitivity(solver("s"), select("arithmetic_sums_easy")[0], limit=40)
    assert found.scores["default"].value == 1 > found.scores["words"].value
    assert found.spread == 1 - found.scores["words"].value == found.flipped
    assert found.against_default["words"].p_value < 1e-6
    with pytest.raises(ValueError, match="has no variants"):
        sensitivity(solver("s"), select("recall_easy")[0])


def test_contaminated_items_are_found_and_split():
    [task] = select("hidden_orders")
    items = build(task, data=find, limit=30)
    leaked = [
        items[i].fields["document"] + " " + items[i].fields["question"] for i in (2, 5, 7, 11)
    ]
    corpus = ["nothing to see here " * 30, "so: " + leaked[0].upper() + "!!", *leaked[1:]]
    found = contamination.overlaps(items, corpus, n=13)
    assert {i for i, o in enumerate(found) if o.share == 1} >= {2, 5, 7, 11}
    clean = contamination.overlaps(items, corpus[:1])
    assert not any(o.dirty for o in clean)

    known = set(leaked)
    backend = FunctionBackend(
        name="parrot",
        generate=lambda p: " 51" if not any(k.split("\n")[0] in p.text for k in known) else
        re.search(r"(\d+) euros", p.text)[1],
    )  # fmt: skip
    result = evaluate(backend, task, limit=30).tasks["hidden_orders"]
    split = contamination.split(result, found)
    assert split.dirty.value > split.clean.value and split.difference > 0.5 and split.unknown == 0
    assert split.clean.n + split.dirty.n == 30
    with pytest.raises(ValueError, match="found must be one an item"):
        contamination.split(result, found[:3])
    with pytest.raises(ValueError, match="n must be 2 or more"):
        contamination.overlaps(items, [], n=1)


def test_short_items_are_not_judged_and_chinese_has_words():
    items = build(select("arithmetic_sums_easy")[0], data=find, limit=3)
    assert all(o.share != o.share for o in contamination.overlaps(items, ["1 plus 1"]))
    assert contamination.words("Ab-c 秦川！") == ["ab", "c", "秦", "川"]


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.addresses = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [v for k, v in attributes if k in ("src", "href")]


def hostile(name):
    evil = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>"
    return FunctionBackend(
        name=f"{name}{evil}",
        generate=lambda p: evil,
        loglikelihood=lambda a, b: (-1.0 * len(b), None),
    )


def test_the_report_stands_alone_and_escapes_everything(results, tmp_path):
    tasks = ["arithmetic_sums_easy", "refuse_direct", "rules_en_easy"]
    evil = [evaluate(hostile(name), tasks, limit=6) for name in ("a", "b")]
    report.write(evil, tmp_path / "evil.html")
    page = Page()
    text = (tmp_path / "evil.html").read_text()
    page.feed(text)
    assert "script" not in page.tags and "img" not in page.tags and not page.addresses
    assert "&lt;script&gt;" in text and "<svg" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")


def test_the_report_says_who_is_better(results, tmp_path):
    report.write(results, tmp_path / "r.html", worst=3)
    text = (tmp_path / "r.html").read_text()
    assert "strong is better" in text and "weak &lt;b&gt;&amp;" in text
    assert text.count("<details><summary>arithmetic_sums_easy:") == 3
    assert "difficulty" in text and results[0].fingerprint["id"] in text
    with pytest.raises(ValueError, match="different names"):
        report.write([results[0], results[0]], tmp_path / "no.html")
    assert not (tmp_path / "no.html").exists()


def test_abilities_are_shares_of_what_chance_leaves(shared_data):
    shared_data("llm/bbh")
    guess = FunctionBackend(name="g", loglikelihood=lambda a, b: (-1.0, None))
    result = evaluate(guess, "bbh_navigate")
    task = result.tasks["bbh_navigate"]
    expected = (task.estimate().value - 0.5) / 0.5
    assert result.shares("reasoning").value == pytest.approx(expected)
    assert result.shares("reasoning", "medium").value == pytest.approx(expected)
    assert result.shares("reasoning", "hard") is None and result.shares("code") is None


def run(*arguments):
    from oarlock.llm.cli.main import app

    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


def test_the_command_runs_models_and_goes_on(shared_data, tmp_path):
    folder = shared_data("weights/stories260K")
    spec = f"{folder / 'stories260K.bin'},{folder / 'tok512.bin'}"
    arguments = [
        "run",
        spec,
        "--tasks",
        "recall_easy,next_sentence_easy",
        "--limit",
        5,
        "--output",
        tmp_path,
    ]
    first = run(*arguments)
    assert first.exit_code == 0, first.output
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"stories260K.json.gz", "report.html", "answers.sqlite"}
    saved = (tmp_path / "stories260K.json.gz").read_bytes()
    before = EvalResult.load(tmp_path / "stories260K.json.gz")
    assert run(*arguments).exit_code == 0
    after = EvalResult.load(tmp_path / "stories260K.json.gz")
    assert after.tasks == before.tasks and after.fingerprint == before.fingerprint and saved
    assert before.fingerprint["backend"]["start"] == 1
    other = run("report", tmp_path / "stories260K.json.gz", "--output", tmp_path / "other.html")
    assert other.exit_code == 0 and (tmp_path / "other.html").exists()
    same = run("compare", *[tmp_path / "stories260K.json.gz"] * 2)
    assert same.exit_code == 0 and "recall" in same.output
    fast = run(*arguments, "--weights", "int8")
    assert fast.exit_code == 0, fast.output
    small = EvalResult.load(tmp_path / "stories260K-int8.json.gz")
    assert small.fingerprint["backend"]["weights"] == "int8"
    assert small.fingerprint["tasks"] == before.fingerprint["tasks"]


def test_the_command_lists_and_plans():
    listed = run("list", "--ability", "tools")
    assert listed.exit_code == 0 and "7 tasks" in listed.output
    # p = 0.5 and 0.53, no correlation: (1.96 + 0.84)² · (0.25 + 0.2491) / 0.03² = 4352.7, and 1.96² / 2 for
    # Student's test
    planned = run("power", "--difference", 0.03, "--correlation", 0)
    assert planned.output.startswith("4355 items")
    assert "difference of 0.03" in run("power", "--items", 4353, "--correlation", 0).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere,bytes", "--tasks", "recall_easy"], "no file or folder nowhere"),
        (["run", "nowhere"], "no file or folder nowhere"),
        (["run", "http://localhost:1/v1", "--tasks", "recall_easy"], "URL#MODEL"),
        (["list", "--tasks", "recal"], "did you mean"),
        (["report", "nowhere.json"], "nowhere.json"),
        (["power", "--difference", "-1"], "difference must be above 0"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2 and message in result.output


def test_answers_become_responses(results):
    matrix = evaluation.answers_matrix(results, "arithmetic_sums_easy")
    assert len(matrix) == 2 and set(matrix[0]) == {0.0, 1.0}
    assert json.dumps(results[0].fingerprint)
