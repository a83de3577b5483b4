"""Evidence files are read whole, and a broken one is named with the place where it breaks."""

import pytest

from oarlock.accept.results import ResultsCorrupt, read, read_tier
from oarlock.accept.standing import of_criterion, weakest

CURVE = {"label": "a", "x": [0, 1], "y": [2.0, 1.0], "x_label": "step", "y_label": "loss"}


def test_reads_what_was_written(write_evidence, entry):
    root = write_evidence(
        "1.1", entry(series=[CURVE]), entry(name="other", ci=None, target=None, verdict="info")
    )
    first, second = read_tier(root, "full")["1.1"]
    assert (first.ratio, first.ci, first.series) == (1.47, (1.38, 1.55), (CURVE,))
    assert (second.name, second.ci, second.target, second.series) == ("other", None, None, ())
    assert read_tier(root, "quick") == {}


def test_further_keys_are_allowed(write_evidence, entry):
    root = write_evidence("1.1", entry(added_later=1))
    assert len(read_tier(root, "full")["1.1"]) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratio": "1.5"}, "ratio must be a number"),
        ({"n": None}, "n must be a number"),
        ({"ours": True}, "ours must be a number"),
        ({"verdict": "won"}, "verdict must be one of met, short, info, got 'won'"),
        ({"level": "guessed"}, "level must be one of measured, emulated, simulated"),
        ({"ci": [1.0]}, "ci must be"),
        ({"metric": 3}, "metric must be text"),
        ({"exclusive": 1}, "exclusive must be true or false"),
        ({"series": [{"label": "a"}]}, "series[0] lacks x, x_label, y, y_label"),
        ({"series": [CURVE | {"x": [0]}]}, "as many x as y are needed, got 1 x and 2 y"),
        ({"series": [CURVE | {"y": [0, "b"]}]}, "y must be a list of numbers"),
        ({"series": [CURVE | {"label": 1}]}, "label must be text"),
    ],
)
def test_a_wrong_entry_is_named(write_evidence, entry, change, message):
    root = write_evidence("1.1", entry(), entry(name="second") | change)
    with pytest.raises(ResultsCorrupt) as caught:
        read_tier(root, "full")
    assert message in str(caught.value)
    assert "1.1.json: evidence[1]" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratio": 0.1}, "must be short (or info) with ratio 0.1 and target ≥ 1.0, got 'met'"),
        ({"verdict": "short"}, "must be met (or info) with ratio 1.47 and target ≥ 1.0"),
        ({"ratio": 1.0, "exclusive": True}, "must be short (or info) with ratio 1.0 and target >"),
        ({"ratio": None}, "must be short (or info) with no ratio and target ≥ 1.0, got 'met'"),
        ({"target": None}, "must be info without a target, got 'met'"),
    ],
)
def test_a_verdict_that_contradicts_its_numbers_is_named(write_evidence, entry, change, message):
    root = write_evidence("1.1", entry(), entry(name="second") | change)
    with pytest.raises(ResultsCorrupt) as caught:
        read_tier(root, "full")
    assert message in str(caught.value)
    assert "1.1.json: evidence[1]: verdict" in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"ratio": 1.0},
        {"ratio": 1.0, "exclusive": True, "verdict": "short"},
        {"target": 1.3, "ci": [1.2, 1.6], "exclusive": True, "verdict": "short"},
        {"ratio": None, "verdict": "short"},
        {"ratio": None, "verdict": "info"},
        {"ratio": 0.1, "verdict": "info"},
        {"verdict": "info"},
    ],
)
def test_a_verdict_that_follows_and_information_are_read(write_evidence, entry, change):
    assert len(read_tier(write_evidence("1.1", entry(**change)), "full")["1.1"]) == 1


@pytest.mark.parametrize("key", ["name", "ratio", "verdict", "command", "hardware"])
def test_a_missing_key_is_named(write_evidence, entry, key):
    broken = entry()
    del broken[key]
    with pytest.raises(ResultsCorrupt, match=rf"1\.1\.json: evidence\[0\] lacks {key}"):
        read_tier(write_evidence("1.1", broken), "full")


@pytest.mark.parametrize("content", [b'{"criterion": "1.1", "ev', b"", b"\xff\xfe", b"[]", b"3"])
def test_a_broken_file_is_named(tmp_path, content):
    path = tmp_path / "1.1.json"
    path.write_bytes(content)
    with pytest.raises(ResultsCorrupt, match=r"1\.1\.json"):
        read(path)


def test_a_file_is_named_after_its_criterion(write_evidence, entry):
    path = write_evidence("1.1", entry()) / "full" / "1.1.json"
    with pytest.raises(ResultsCorrupt, match="holds criterion '1.1'; its name says '1.2'"):
        read(path.rename(path.with_name("1.2.json")))


def test_a_name_appears_once(write_evidence, entry):
    with pytest.raises(ResultsCorrupt, match="time-to-loss appears twice"):
        read_tier(write_evidence("1.1", entry(), entry()), "full")


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ([], "not yet"),
        (["met", "met"], "met"),
        (["met", "not yet"], "not yet"),
        (["met", "info"], "info"),
        (["met", "not yet", "info", "short"], "short"),
    ],
)
def test_a_whole_stands_where_its_weakest_part_does(parts, whole):
    assert weakest(parts) == whole


@pytest.mark.parametrize(
    ("verdicts", "verdict"),
    [([], "not yet"), (["info"], "info"), (["info", "met"], "met"), (["met", "short"], "short")],
)
def test_information_does_not_count_beside_judged_measurements(verdicts, verdict):
    assert of_criterion(verdicts) == verdict


@pytest.mark.parametrize(("verdict", "shown"), [("met", "not yet"), ("short", "short")])
def test_nothing_is_met_while_evidence_is_pending(verdict, shown):
    assert of_criterion([verdict], pending="the second model") == shown
