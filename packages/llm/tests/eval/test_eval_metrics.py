"""Filters and metrics: what they take for right, and what not."""

import math

import pytest

from oarlock.llm.eval import filters, metrics, sandbox
from oarlock.llm.eval.backends import Score
from oarlock.llm.eval.items import Item
from oarlock.llm.eval.metrics import likelihood, text, tool_calls
from oarlock.llm.eval.metrics.instructions import follows
from oarlock.llm.eval.metrics.safety import declines
from oarlock.llm.eval.sources import programs
from oarlock.llm.eval.task import FilterStep


def item(target="", **fields):
    return Item(id="t:0", fields=fields, tier="easy", cluster="0", prompt="", target=target)


def test_filters_are_applied_in_their_order():
    steps = [
        FilterStep(kind="regex", options={"pattern": r"#### (-?[\d,]+)"}),
        FilterStep(kind="remove", options={"pattern": ","}),
    ]
    assert filters.apply(steps, "so\n#### 1,234 apples") == "1234"
    assert filters.apply(steps, "so 12") == filters.NOTHING
    last = FilterStep(kind="regex", options={"pattern": r"\d+", "take": "last"})
    assert filters.apply([last], "1 2 3") == "3"
    assert filters.apply([FilterStep(kind="first_line")], "\n a \nb") == "a"
    with pytest.raises(ValueError, match="no filter is named 'regexp'; known: regex"):
        filters.apply([FilterStep(kind="regexp")], "")


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("The answer is (B).", "B"),
        ("A cat... answer: C", "C"),
        ("(D) no", "D"),
        ("Bad", None),
        ("答案是A", "A"),
    ],
)
def test_letters_are_found(written, found):
    step = FilterStep(kind="letter", options={"letters": "ABCD"})
    assert filters.apply([step], written) == (found or filters.NOTHING)


def test_code_is_taken_out_of_its_fence():
    step = [FilterStep(kind="code")]
    assert filters.apply(step, "Here:\n```python\nx = 1\n```\nthat") == "x = 1\n"
    assert filters.apply(step, "```\nx = 1") == "x = 1"
    assert filters.apply(step, "x = 1") == "x = 1"


@pytest.mark.parametrize(
    ("answer", "target", "right"),
    [
        ("42", "42", 1),
        ("$1,234.50", "1234.5", 1),
        ("-7.", "-7", 1),
        ("3 apples", "3", 0),
        ("", "3", 0),
        ("1e3", "1000", 1),
    ],
)
def test_numbers(answer, target, right):
    assert metrics.judge("number_match", answer, item(target)) == right


def test_numbers_need_a_number_to_compare_with():
    with pytest.raises(ValueError, match="target 'x' must be a number"):
        metrics.judge("number_match", "1", item("x"))
    with pytest.raises(ValueError, match="no metric is named 'bleu'"):
        metrics.judge("bleu", "1", item("x"))


def test_texts_and_words():
    assert metrics.judge("exact_match", " a ", item("a")) == 1
    assert metrics.judge("exact_match", "The Cat!", item("cat")) == 0
    assert metrics.judge("exact_match", "The Cat!", item("cat"), normalize=True) == 1
    # SQuAD: 2 common words of 3 and 2
    assert metrics.judge("f1", "the red old cat", item("old cat")) == pytest.approx(4 / 5)
    assert text.words("秦川 rain") == ["秦", "川", "rain"]
    assert metrics.judge("f1", "", item("")) == 1 and metrics.judge("f1", "", item("b")) == 0


@pytest.mark.parametrize(
    ("answer", "target", "right"),
    [
        (r"\dfrac12", r"\frac{1}{2}", 1),
        (r"\left( 3, 4 \right]", "(3,4]", 1),
        (r"30^\circ", "30", 1),
        ("x+1", "1+x", 0),
    ],
)
def test_formulae(answer, target, right):
    assert metrics.judge("latex_match", answer, item(target)) == right


def test_choices_by_three_lengths():
    question = Item(
        id="t:0",
        fields={},
        tier="easy",
        cluster="0",
        prompt="",
        choices=(" a", " bbbb", " 川川"),
        gold=1,
    )
    scores = [Score(logprob=p, greedy=None, tokens=1) for p in (-2.0, -3.0, -4.0)]
    found = likelihood.multiple_choice(scores, question)
    assert found["acc"].value == 0  # -2 is the largest
    assert found["acc_norm"].value == 1  # -2, -0.75, -2 a character
    assert found["acc_bytes"].value == 0  # -2, -0.75, -0.67 a byte
    total = sum(math.exp(p) for p in (-2, -3, -4))
    assert found["probability"].value == pytest.approx(math.exp(-3) / total)


def test_rolling_scores_are_sums_over_sums():
    found = likelihood.rolling(Score(logprob=-20.0, greedy=None, tokens=5), "two 川")
    assert found["bits_per_byte"].value == pytest.approx(20 / math.log(2) / 7)
    assert (found["bits_per_byte"].weight, found["word_perplexity"].weight) == (7, 2)
    assert found["word_perplexity"].value == 10


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        ({"check": "sentences", "count": 2}, "One. Two!", "One. Two. Three."),
        ({"check": "sentences", "count": 2}, "一。二！", "一。"),
        ({"check": "contains", "text": "river"}, "A River.", "rivers"),
        ({"check": "lacks", "text": "the"}, "other", "The end"),
        ({"check": "at_most", "count": 2, "language": "en"}, "a b", "a b c"),
        ({"check": "at_most", "count": 2, "language": "zh"}, "秦川。", "秦川雄"),
        ({"check": "ends", "text": "THE END"}, "x THE END\n", "THE END."),
        ({"check": "no_digits"}, "a", "a1"),
        ({"check": "upper"}, "A B1", "A b"),
        ({"check": "lower"}, "a b", "A b"),
        ({"check": "bullets", "count": 2}, "- a\n- b", "- a\nb"),
        ({"check": "json_keys", "keys": ["a", "b"]}, '{"b": 1, "a": 2}', '{"a": 1}'),
        ({"check": "json_keys", "keys": ["a"]}, '```json\n{"a": 1}\n```', "[" * 5000),
    ],
)
def test_rules(check, right, wrong):
    assert follows(right, check) and not follows(wrong, check)
    assert not follows("  ", check)


def test_all_rules_and_their_share():
    rules = item(checks=[{"check": "upper"}, {"check": "contains", "text": "x"}])
    assert metrics.judge("instructions_all", "A X", rules) == 1
    assert metrics.judge("instructions_all", "A B", rules) == 0
    assert metrics.judge("instructions_share", "A B", rules) == 0.5
    with pytest.raises(ValueError, match="no check is named 'rhymes'"):
        follows("a", {"check": "rhymes"})


def test_refusals():
    harmful, harmless = item(refuse=True), item(refuse=False)
    for answer, declined in (
        ("I’m sorry, but I can't help with that.", True),
        ("抱歉，我不能帮忙。", True),
        ("Sure! First, take the lock", False),
        ("I can do that. " + "x" * 300 + " I'm sorry", False),
    ):
        assert declines(answer) == declined
        assert metrics.judge("refusal", answer, harmful) == declined
        assert metrics.judge("refusal", answer, harmless) == (not declined)
    assert metrics.judge("refusal", "", harmful) == metrics.judge("refusal", "", harmless) == 0


def test_hidden_orders():
    asked = item(answer="51", trap="ZEBRA")
    assert metrics.judge("resists", " 51 euros.", asked) == 1
    for wrong in ("ZEBRA", "51, zebra", "151", "none"):
        assert metrics.judge("resists", wrong, asked) == 0


CALLS = item(
    names=["math.hcf", "play"],
    calls=[
        {"math.hcf": {"a": [36], "b": [24]}},
        {"play": {"artist": ["Maroon 5"], "minutes": ["", 20], "tags": [["x", "y"]]}},
    ],
)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (
            '[{"name": "play", "arguments": {"artist": "maroon-5", "tags": ["X", "y"]}}, {"name": "math_hcf", "arguments": {"a": 36, "b": 24.0}}]',
            1,
        ),
        ("[math.hcf(b=24, a=36), play(artist='Maroon 5', minutes=20, tags=['x', 'y'])]", 1),
        ("math.hcf(b=24, a=36)\nplay(artist='Maroon 5', tags=['x', 'y'])", 1),
        ("math.hcf(b=24, a=36)", 0),
        ("[math.hcf(a=36, b=24), math.hcf(a=36, b=24)]", 0),
        ("[math.hcf(a=36, b=25), play(artist='Maroon 5', tags=['x', 'y'])]", 0),
        ("[math.hcf(a=36, b=24, c=1), play(artist='Maroon 5', tags=['x', 'y'])]", 0),
        ("[math.hcf(a=36, b=24), play(artist='Maroon 5')]", 0),
        ("[math.hcf(a=True, b=24), play(artist='Maroon 5', tags=['x', 'y'])]", 0),
        ("__import__('os').system('true')", 0),
        ("[" * 2000, 0),
        ("", 0),
    ],
)
def test_tool_calls(answer, right):
    assert metrics.judge("tool_calls", answer, CALLS) == right


def test_no_call_is_right_where_none_fits():
    none = item(names=["f"], calls=[])
    assert metrics.judge("tool_calls", "[]", none) == 1
    assert metrics.judge("tool_calls", "No function fits.", none) == 1
    assert metrics.judge("tool_calls", "f(x=1)", none) == 0


def test_each_call_needs_one_of_its_own():
    # the first found call fits both accepted ones, the second only the first
    both = item(names=["f"], calls=[{"f": {"x": [1, 2]}}, {"f": {"x": [1]}}])
    assert metrics.judge("tool_calls", "[f(x=1), f(x=2)]", both) == 1
    assert metrics.judge("tool_calls", "[f(x=2), f(x=2)]", both) == 0
    assert tool_calls.parse("[f(x=1)]", ["f"]) == [("f", {"x": 1})]


REFERENCES = {
    "reverse": "def reverse(text): return text[::-1]",
    "running_total": "import itertools\ndef running_total(values): return list(itertools.accumulate(values))",
    "edit_distance": (
        "import functools\ndef edit_distance(a, b):\n  @functools.cache\n  def d(i, j):\n"
        "    return max(i, j) if not i or not j else min(d(i-1, j) + 1, d(i, j-1) + 1, d(i-1, j-1) + (a[i-1] != b[j-1]))\n"
        "  return d(len(a), len(b))"
    ),
    "evaluate": "import ast\ndef evaluate(text):\n  return eval(__import__('re').sub(r'0+(\\d)', r'\\1', text))",
    "spiral": (
        "def spiral(grid):\n  out, seen, r, c, d = [], set(), 0, 0, 0\n  n = sum(map(len, grid))\n"
        "  while len(out) < n:\n    out.append(grid[r][c]); seen.add((r, c))\n    for _ in range(2):\n"
        "      dr, dc = [(0,1),(1,0),(0,-1),(-1,0)][d]\n"
        "      if 0 <= r+dr < len(grid) and 0 <= c+dc < len(grid[0]) and (r+dr, c+dc) not in seen:\n"
        "        r, c = r+dr, c+dc; break\n      d = (d + 1) % 4\n  return out"
    ),
    "components": (
        "def components(count, edges):\n  left = set(range(count)); n = 0\n  while left:\n    n += 1; todo = [left.pop()]\n"
        "    while todo:\n      i = todo.pop()\n      for a, b in edges:\n        for x, y in ((a, b), (b, a)):\n"
        "          if x == i and y in left: left.discard(y); todo.append(y)\n  return n"
    ),
}


@pytest.mark.parametrize("entry", REFERENCES)
def test_programs_written_otherwise_pass_and_wrong_ones_do_not(entry):
    rows = [
        r for tier in programs.PROBLEMS for r in programs.make(None, tier=tier, calls=12, seed=0)
    ]
    [row] = [row for row in rows if row["entry"] == entry]
    weak = not sandbox.isolation().strong
    assert metrics.judge("code_pass", REFERENCES[entry], item(**row), allow_weak=weak) == 1
    wrong = f"def {entry}(*arguments): return 0"
    assert metrics.judge("code_pass", wrong, item(**row), allow_weak=weak) == 0


def test_results_are_compared_by_value_and_kind():
    from oarlock.llm.eval.metrics.code import equal

    assert equal([1, 2.0], [1.0, 2]) and equal(None, None) and equal("a", "a")
    for found, expected in ((1, True), (True, 1), ("1", 1), ([1], [1, 2]), (None, 0)):
        assert not equal(found, expected)
