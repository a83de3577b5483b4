"""Evidence judges itself and refuses nonsense; experiments register and are found."""

import math

import pytest

from oarlock.accept import experiment
from oarlock.accept.experiment import Evidence, Run


def given(**changes) -> Evidence:
    known = {
        "name": "time",
        "metric": "time to the same loss",
        "unit": "s",
        "direction": "lower",
        "baseline": 3.0,
        "baseline_name": "AdamW",
        "ours": 2.0,
    }
    return Evidence(**known | changes)


@pytest.mark.parametrize(("direction", "ratio"), [("lower", 1.5), ("higher", 2 / 3)])
def test_the_ratio_follows_from_the_direction(direction, ratio):
    assert given(direction=direction).ratio == pytest.approx(ratio)
    assert given(direction=direction, ratio=7).ratio == 7.0
    assert given(direction=direction, ours=None).ratio is None


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"target": 1.5}, "met"),
        ({"target": 1.5, "exclusive": True}, "short"),
        ({"target": 1.49, "exclusive": True}, "met"),
        ({"target": 1.4, "exclusive": True, "ci": (1.41, 1.6)}, "met"),
        ({"target": 1.4, "exclusive": True, "ci": (1.39, 1.6)}, "short"),
        ({"target": 1.4, "ci": (1.39, 1.6)}, "met"),
        ({"target": 1.6}, "short"),
        ({"target": 1.6, "judged": False}, "info"),
        ({}, "info"),
        ({"target": 1.0, "ours": None}, "short"),
    ],
)
def test_verdicts(changes, verdict):
    assert given(**changes).verdict == verdict
    assert given(**changes).as_dict()["verdict"] == verdict


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ours": math.nan}, "ours must be a finite number, got nan"),
        ({"baseline": math.inf}, "baseline must be a finite"),
        ({"ratio": "1.5"}, "ratio must be a finite"),
        ({"ours": 0.0}, "no ratio follows from baseline 3.0 and ours 0.0"),
        ({"ci": (1.0, math.nan)}, "ci must be a finite"),
        ({"ci": (2.0, 1.0)}, r"ci must be \(low, high\)"),
        ({"direction": "down"}, "direction must be one of"),
        ({"level": "guessed"}, "level must be one of"),
        ({"name": ""}, "name must be"),
        ({"metric": None}, "metric must be text"),
        ({"series": [{"label": "a"}]}, "a curve of series has"),
        (
            {"series": [{"label": "a", "x": [1], "y": [], "x_label": "x", "y_label": "y"}]},
            "as many x as y",
        ),
    ],
)
def test_nonsense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        given(**changes)


def test_arrays_become_plain_values():
    import numpy as np

    curve = {"label": "a", "x": np.arange(2), "y": np.ones(2), "x_label": "x", "y_label": "y"}
    record = given(ours=np.float32(2), seeds=np.arange(3), series=[curve], n=np.int64(3)).as_dict()
    assert record["seeds"] == [0, 1, 2]
    assert record["series"][0]["y"] == [1.0, 1.0]
    assert (type(record["ours"]), type(record["n"])) == (float, int)


def test_a_run_for_tests_remembers_in_memory():
    run, calls = Run(tier="quick", seed=0), []
    run.progress(1, 2, "text")
    run.log("text")
    for _ in range(2):
        assert run.remember(["a", 1], lambda: calls.append(1) or {"loss": (1, 2)}) == {
            "loss": [1, 2]
        }
    assert calls == [1]


GOOD = """
@experiment("1.2", name="b", tiers=("full",), title="B")
def b(run):
    yield evidence()

@experiment("1.1", name="a", tiers=("full", "quick"), title="A")
def a(run):
    yield evidence()
"""


def test_experiments_are_found_in_the_order_of_the_criteria(topics):
    topics(GOOD)
    assert [one.id for one in experiment.discover()] == ["1.1/a", "1.2/b"]
    assert [one.id for one in experiment.select([], tier="quick")] == ["1.1/a"]
    assert [one.id for one in experiment.select(["1"])] == ["1.1/a", "1.2/b"]
    assert [one.id for one in experiment.select(["1.2"])] == ["1.2/b"]
    assert [one.id for one in experiment.select([], only=["b"])] == ["1.2/b"]


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        (["1.11"], {}, "did you mean 1.1"),
        ([], {"only": ["bb"]}, "no experiment 'bb' among those asked for; did you mean b"),
        ([], {"tier": "fast"}, "tier must be one of quick, full, gpu"),
    ],
)
def test_wrong_selections_are_explained(topics, ids, options, message):
    topics(GOOD)
    with pytest.raises(ValueError, match=message):
        experiment.select(ids, **options)


def test_one_name_belongs_to_one_module(topics):
    topics(GOOD)
    topics(GOOD, module="t1_2_again")
    with pytest.raises(
        ValueError, match=r"experiment 1\.2/b is in .*t1_1_fake and in .*t1_2_again"
    ):
        experiment.discover()


@pytest.mark.parametrize(
    ("criterion", "changes", "message"),
    [
        ("9.9", {}, "no criterion '9.9'"),
        ("2.4", {}, "topic 2.4 has several criteria"),
        ("1.1", {"tiers": ("fast",)}, "tiers are quick, full, gpu; got fast"),
        ("1.1", {"tiers": ()}, "name at least one"),
        ("1.1", {"name": "Not OK"}, "lower-case words joined by hyphens"),
    ],
)
def test_wrong_registrations_are_refused(criterion, changes, message):
    with pytest.raises(ValueError, match=message):
        experiment.experiment(
            criterion, **{"name": "x", "tiers": ("quick",), "title": "X"} | changes
        )


def test_the_real_topics_can_be_imported():
    experiment.discover()
