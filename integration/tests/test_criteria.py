"""criteria.toml is whole and consistent, and wrong ids get a useful answer."""

import re
import tomllib
from importlib.resources import files

import pytest

from oarlock.accept import criteria
from oarlock.accept.criteria import PACKAGES, Criteria, Criterion, load, target_ratio

CHINESE = re.compile(r"[一-鿿]")


def table() -> dict:
    text = (files("oarlock.accept") / "criteria.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def test_31_topics_in_7_chapters():
    loaded = load()
    assert [chapter.id for chapter in loaded.chapters] == list("1234567")
    per_chapter = [4, 6, 5, 4, 4, 4, 4]
    ids = [f"{c + 1}.{t + 1}" for c, count in enumerate(per_chapter) for t in range(count)]
    assert [topic.id for topic in criteria.topics()] == ids
    assert len(ids) == 31


def test_criteria_are_numbered_as_in_the_call():
    several = {"2.2": 2, "2.3": 2, "2.4": 4, "2.6": 3, "4.2": 2, "4.3": 3, "4.4": 2, "5.1": 3}
    several |= {"5.2": 2, "5.3": 2, "5.4": 3, "6.1": 3, "6.2": 2, "7.1": 2, "7.2": 2, "7.3": 2}
    several |= {"7.4": 4}
    for topic in load().topics:
        assert len(topic.criteria) == several.get(topic.id, 1)
    ids = [criterion.id for criterion in load().criteria]
    assert len(set(ids)) == len(ids) == 57


@pytest.mark.parametrize("id", [criterion.id for criterion in load().criteria])
def test_both_languages_are_whole(id: str):
    criterion = criteria.criterion(id)
    topic = criteria.topic(criterion.topic_id)
    for chinese in (criterion.text_zh, topic.title_zh, topic.summary_zh):
        assert CHINESE.search(chinese) or topic.id == "4.3"  # its title is "Prompt"
        assert "\n" not in chinese
    for english in (criterion.text_en, criterion.metric, topic.title_en, topic.summary):
        assert english and not CHINESE.search(english)
    assert criterion.package in PACKAGES and topic.package in PACKAGES


@pytest.mark.parametrize("criterion", load().criteria, ids=lambda criterion: criterion.id)
def test_percentages_are_those_of_the_call(criterion: Criterion):
    """A per cent in the Chinese text is the rule's or, once, a side condition's."""
    stated = [float(n) for n in re.findall(r"(\d+)%", criterion.text_zh)]
    if criterion.percent is not None:
        assert stated[0] == criterion.percent
    elif criterion.id == "4.3.3":
        assert criterion.required == stated[0] / 100
    else:
        assert stated == []
    assert sorted(stated) == sorted(float(n) for n in re.findall(r"(\d+) %", criterion.text_en))


@pytest.mark.parametrize(
    "id, target",
    [
        ("1.1", None),
        ("1.2", 1 / 0.9),
        ("1.4", 1.10),
        ("2.1", 0.95),
        ("2.2.2", 1.05),
        ("2.3.1", 1 / 0.85),
        ("2.4.1", 1.20),
        ("2.4.2", 1.80),
        ("2.4.3", 1.0),
        ("2.4.4", 1.0),
        ("3.1", 1.20),
        ("3.4", 1.20),
        ("3.5", 0.90),
        ("4.1", 1.0),
        ("4.3.3", 1.0),
        ("7.4.3", None),
    ],
)
def test_targets(id: str, target: float | None):
    assert criteria.criterion(id).target == (None if target is None else pytest.approx(target))


def test_target_is_exact_not_as_rounded_in_the_file():
    assert criteria.criterion("1.2").target == 1 / 0.9
    assert criteria.criterion("2.3.1").target == 1 / 0.85


def test_less_time_is_not_the_same_as_more_speed():
    assert target_ratio("less", 20) == pytest.approx(1.25)
    assert target_ratio("more", 20) == pytest.approx(1.20)


def test_publications_are_reports():
    reports = [one.id for one in load().criteria if one.kind == "report"]
    assert reports == ["7.1.2", "7.3.2"]
    assert all("论文" in c.text_zh or "期刊" in c.text_zh for c in map(criteria.criterion, reports))


def test_better_must_be_exceeded():
    assert criteria.criterion("6.2.1").exclusive
    assert not criteria.criterion("2.4.4").exclusive


def test_select_takes_chapters_topics_and_criteria():
    loaded = load()
    assert [c.id for c in loaded.select("2.3")] == ["2.3.1", "2.3.2"]
    assert [c.id for c in loaded.select("2.4.4")] == ["2.4.4"]
    assert len(loaded.select("7")) == 10
    assert sum(len(loaded.select(str(n))) for n in range(1, 8)) == 57


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: criteria.topic("2.7"), "no topic '2.7'; did you mean .*2.6"),
        (lambda: criteria.topic("9.9"), "no topic '9.9'"),
        (lambda: criteria.criterion("2.4.9"), "no criterion '2.4.9'; did you mean .*2.4.4"),
        (lambda: criteria.criterion("2.4"), "several criteria; name one of: 2.4.1, 2.4.2"),
        (lambda: load().select("convergence"), "no chapter, topic or criterion 'convergence'"),
    ],
)
def test_wrong_ids_get_a_useful_answer(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()


def find(values: dict, id: str) -> dict:
    return next(c for t in values["topic"] for c in t["criterion"] if c["id"] == id)


@pytest.mark.parametrize(
    "id, change, message",
    [
        ("1.2", {"target": 1.10}, "target 1.1, but rule 'less' gives 1.1111"),
        ("1.2", {"rule": "required"}, "percent do not fit"),
        ("1.1", {"target": 1.0}, "a target needs a rule"),
        ("4.3.3", {"required": None}, "required do not fit"),
        ("1.1", {"package": "core_opt"}, "package"),
        ("1.1", {"id": "1.1.1"}, "criteria are numbered"),
        ("2.4.2", {"id": "2.4.1"}, "criteria are numbered"),
        ("1.1", {"text_zh": ""}, "text_zh"),
        ("1.1", {"direction": "up"}, "direction"),
        ("1.1", {"colour": "red"}, "colour"),
    ],
)
def test_inconsistent_files_are_refused(id: str, change: dict, message: str):
    values = table()
    find(values, id).update(change)
    with pytest.raises(ValueError, match=message):
        Criteria.model_validate(values)


def test_topics_are_unique_and_have_chapters():
    values = table()
    values["topic"].append(values["topic"][0])
    with pytest.raises(ValueError, match="topics appear twice"):
        Criteria.model_validate(values)
    values = table()
    values["chapter"].pop()
    with pytest.raises(ValueError, match="without a chapter"):
        Criteria.model_validate(values)
