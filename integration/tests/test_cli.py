"""`list`, `show`, `report`, `compare`, `doctor`: what they print, for people and as JSON."""

import json
import os
import subprocess
import sys

import pytest

from oarlock.accept import spawn, stamp

ONE = """
@experiment("1.1", name="muon", tiers=("quick", "full"), title="Muon [tuned]", minutes=25,
            peers=("torch",), data=("llm/tinyshakespeare",))
def muon(run):
    yield evidence()
"""


def test_list_shows_all_topics_and_their_experiments(topics, accept, write_evidence, entry):
    topics(ONE)
    root = write_evidence("1.1", entry())
    done = accept("list", "--results", str(root))
    assert done.exit_code == 0
    assert "muon (quick, full)" in done.stdout
    assert "31 topics in the full tier: 1 met, 0 short, 0 info, 30 not yet" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    listed = json.loads(accept("list", "--json", "--results", str(root)).stdout)
    assert len(listed["topics"]) == 31
    first = listed["topics"][0]
    assert (first["id"], first["verdict"], first["criteria"]) == ("1.1", "met", {"1.1": "met"})
    assert first["experiments"][0]["minutes"] == 25
    assert {topic["verdict"] for topic in listed["topics"][1:]} == {"not yet"}


def test_show_tells_what_is_asked_and_what_was_found(topics, accept, write_evidence, entry):
    topics(ONE)
    root = write_evidence("1.1", entry(name="time-to-loss"))
    shown = accept("show", "1.1", "--results", str(root))
    for text in (
        "飞桨",
        "condition: verified on at least 3 large models",
        "muon: Muon [tuned]",
        "tiers quick, full; full tier about 25 min; peers torch; data llm/tinyshakespeare",
        "$ oarlock-accept run 1.1 --only muon --tier full",
        "1.47× (1.38–1.55)",
    ):
        assert text in " ".join(shown.stdout.split())
    assert "target: ratio ≥ 1.111" in accept("show", "1.2").stdout
    several = accept("show", "2.4", "--json", "--results", str(root))
    assert [one["id"] for one in json.loads(several.stdout)] == ["2.4.1", "2.4.2", "2.4.3", "2.4.4"]
    found = json.loads(accept("show", "1.1", "--json", "--results", str(root)).stdout)[0]
    assert found["evidence"]["full"][0]["name"] == "time-to-loss"
    wrong = accept("show", "7.5")
    assert (wrong.exit_code, "no chapter, topic or criterion '7.5'" in wrong.stderr) == (2, True)


def test_corrupt_evidence_is_named(topics, accept, tmp_path):
    topics(ONE)
    path = tmp_path / "results" / "full" / "1.1.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    commands = [
        ["list", "--results", str(tmp_path / "results")],
        ["show", "1.1", "--results", str(tmp_path / "results")],
        ["report", "--results", str(tmp_path / "results"), "--out", str(tmp_path / "page.html")],
        ["compare", str(path), str(path)],
    ]
    for command in commands:
        done = accept(*command)
        assert done.exit_code == 2, command
        assert "1.1.json is not JSON" in done.stderr
    assert not (tmp_path / "page.html").exists()


def test_report_writes_one_page(accept, tmp_path, write_evidence, entry):
    root = write_evidence("1.1", entry())
    page = tmp_path / "deep" / "page.html"
    done = accept("report", "--results", str(root), "--out", str(page))
    assert (done.exit_code, done.stdout) == (0, f"{page}\n")
    assert "time to validation loss 1.9" in page.read_text()
    none = accept("report", "--results", str(tmp_path / "none"), "--out", str(page))
    assert (none.exit_code, "no such folder" in none.stderr) == (2, True)
    folder = accept("report", "--results", str(root), "--out", str(tmp_path))
    assert (folder.exit_code, "Is a directory" in folder.stderr) == (2, True)


def test_report_of_a_tier_without_evidence_names_what_makes_some(
    accept, tmp_path, write_evidence, entry
):
    root = write_evidence("1.1", entry())
    page = tmp_path / "page.html"
    done = accept("report", "--tier", "gpu", "--results", str(root), "--out", str(page))
    command = f"`oarlock-accept run --tier gpu --out {root}` would make some"
    assert done.exit_code == 2
    assert done.stderr == f"error: no evidence in the gpu tier of {root}; {command}\n"
    assert not page.exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    assert accept("report", "--results", str(empty), "--out", str(page)).exit_code == 0


def compared(accept, write_evidence, tmp_path, old: list[dict], new: list[dict]):
    roots = [
        write_evidence("1.1", *entries, root=tmp_path / name)
        for name, entries in (("old", old), ("new", new))
    ]
    return accept("compare", *map(str, roots))


@pytest.mark.parametrize(
    ("old", "new", "remark", "code"),
    [
        ({}, {}, "", 0),
        ({}, {"verdict": "short", "target": 1.5}, "worse", 1),
        ({"verdict": "short", "target": 1.5}, {}, "better", 0),
        ({}, {"ratio": 1.2, "ci": [1.1, 1.3]}, "fell", 0),
        ({}, {"ratio": 2.0, "ci": [1.9, 2.1]}, "rose", 0),
        ({}, {"ratio": 1.4, "ci": [1.3, 1.5]}, "", 0),
        ({}, {"name": "z"}, "gone", 0),
    ],
)
def test_compare(accept, write_evidence, entry, tmp_path, old, new, remark, code):
    done = compared(accept, write_evidence, tmp_path, [entry(**old)], [entry(**new)])
    assert done.exit_code == code, done.stdout
    line = next(line for line in done.stdout.splitlines() if line.startswith("full 1.1"))
    assert [one for one in ("worse", "better", "fell", "rose", "gone") if one in line] == (
        [remark] if remark else []
    )


def test_compare_takes_files_and_folders(accept, write_evidence, entry, tmp_path):
    root = write_evidence("1.1", entry())
    file = root / "full" / "1.1.json"
    for path in (file, file.parent, root):
        assert accept("compare", str(path), str(root)).exit_code == 0
    for wrong, message in (("absent", "no such file"), (".", "holds no evidence")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        done = accept("compare", str(root), str(tmp_path / "empty" / wrong))
        assert (done.exit_code, message in done.stderr) == (2, True)


def test_doctor_names_what_is_missing(topics, accept, monkeypatch, tmp_path):
    topics(ONE)
    monkeypatch.setenv("OARLOCK_DATA", str(tmp_path / "no-data"))
    done = accept("doctor", "--json")
    found = {one["what"]: one for one in json.loads(done.stdout)}
    assert {"Python", "Paddle", "CPU", "memory", "limits", "kernels", "GPU"} <= set(found)
    corpus = found["data llm/tinyshakespeare"]
    assert corpus["state"] == "optional"
    assert "for 1.1/muon" in corpus["found"] and "set OARLOCK_DATA" in corpus["remedy"]
    assert found["peer torch"]["remedy"] == "oarlock-accept peers install torch"
    missing = any(one["state"] == "missing" for one in found.values())
    assert done.exit_code == (1 if missing else 0)
    assert "→ oarlock-accept peers install torch" in " ".join(accept("doctor").stdout.split())


@pytest.mark.parametrize(
    "command", ["list", "show", "run", "prepare", "report", "compare", "doctor", "peers"]
)
def test_help(accept, command):
    done = accept(command, "--help")
    assert done.exit_code == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    if command != "peers":
        assert "rites " in " ".join(done.stdout.split()) + " ", "says what it writes"


def test_prepare_lists_the_models(accept, cache):
    done = accept("prepare", "--list")
    assert (done.exit_code, "llama-shakespeare-bytes" in done.stdout) == (0, True)
    wrong = accept("prepare", "lama")
    assert (wrong.exit_code, "no prepared model 'lama'" in wrong.stderr) == (2, True)


def test_the_file_runs_by_itself(tmp_path):
    """As Pants runs it: the source file, with source folders on the path in ways of its own."""
    from oarlock.accept import cli

    places = os.pathsep.join(spawn.search_path())
    done = subprocess.run(
        [sys.executable, cli.__file__, "show", "1.2"],
        env=os.environ | {"PYTHONPATH": places},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "low-precision training" in done.stdout


@pytest.mark.parametrize("words", [["list"], ["list", "--json"], ["show", "1.1"]])
def test_a_reader_that_goes_away_is_no_error(words):
    from oarlock.accept import cli

    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, cli.__file__, *words],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(spawn.search_path())},
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_version(accept, monkeypatch):
    monkeypatch.setattr(stamp, "version", {"oarlock-accept": "1.2.3"}.get)
    done = accept("--version")
    assert (done.exit_code, done.stdout) == (0, "oarlock-accept 1.2.3\n")


def test_results_go_to_the_checkout_or_the_working_folder(tmp_path, monkeypatch):
    inside = tmp_path / "checkout" / "docs"
    mark = tmp_path / "checkout" / "integration" / "oarlock" / "accept" / "criteria.toml"
    mark.parent.mkdir(parents=True)
    inside.mkdir()
    mark.touch()
    monkeypatch.chdir(inside)
    assert stamp.results_root() == tmp_path / "checkout" / "integration" / "results"
    monkeypatch.setattr(stamp, "checkout", lambda: None)
    assert str(stamp.results_root()) == "results"
    assert stamp.commit().startswith("version ")
