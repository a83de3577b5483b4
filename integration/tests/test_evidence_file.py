"""Evidence is merged by name; a broken file stays as it is."""

import json

import pytest

from oarlock.accept import evidence_file
from oarlock.accept.results import ResultsCorrupt, read


def test_merging_replaces_by_name_and_keeps_the_rest(tmp_path, entry):
    evidence_file.merge(tmp_path, "full", "1.1", [entry(name="a", extra=1), entry(name="b")])
    path = evidence_file.merge(tmp_path, "full", "1.1", [entry(name="c"), entry(name="b", n=9)])
    found = read(path)
    assert [(one.name, one.n) for one in found] == [("a", 5), ("b", 9), ("c", 5)]
    assert json.loads(path.read_text())["evidence"][0]["extra"] == 1
    assert json.loads(path.read_text())["tier"] == "full"
    assert [one.name for one in path.parent.iterdir()] == ["1.1.json"]


@pytest.mark.parametrize("content", ["{", "[]", '{"criterion": "1.2", "evidence": []}'])
def test_a_broken_file_is_left_alone(tmp_path, entry, content):
    path = evidence_file.path(tmp_path, "full", "1.1")
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(ResultsCorrupt, match=r"1\.1\.json"):
        evidence_file.merge(tmp_path, "full", "1.1", [entry()])
    with pytest.raises(ResultsCorrupt, match=r"1\.1\.json"):
        evidence_file.check(tmp_path, "full", "1.1")
    assert path.read_text() == content


def test_a_record_that_nobody_could_read_is_not_written(tmp_path, entry):
    path = evidence_file.merge(tmp_path, "full", "1.1", [entry()])
    before = path.read_bytes()
    for broken in (entry(verdict="won"), entry(ratio=float("nan"))):
        with pytest.raises(ValueError):
            evidence_file.merge(tmp_path, "full", "1.1", [broken])
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ["1.1.json"]
