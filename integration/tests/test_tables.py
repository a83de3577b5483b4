"""Tables in Markdown follow the evidence, and a stale one is named."""

import subprocess
import sys
from pathlib import Path

import pytest

from oarlock.accept import tables

README = """# Title

<!-- table:topics -->
<!-- /table -->

after
"""


@pytest.fixture
def house(tmp_path, write_evidence, entry):
    """A repository with a README, one topic page and evidence for one criterion."""
    results = tmp_path / "integration"
    write_evidence("1.1", entry(), entry(name="b", verdict="short", target=1.5), root=results)
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    page = tmp_path / "docs" / "topics" / "1.1.md"
    page.parent.mkdir(parents=True)
    page.write_text("<!-- table:evidence 1.1 -->\nold\n<!-- /table -->\n", encoding="utf-8")
    return tmp_path


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_topics_with_their_verdicts(house):
    assert tables.main(house, []) == 0
    text = (house / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# Title\n") and text.endswith("<!-- /table -->\n\nafter\n")
    head, first, second, *rest = rows(text)
    assert len([first, second, *rest]) == 31
    assert first[0] == "1.1" and first[-1] == "short" and first[-2] == "0 of 1"
    assert "(docs/topics/1.1.md)" in first[1]
    assert second[-1] == "not yet" and "](" not in second[1]
    assert "31 topics: 0 met, 1 short, 0 info, 30 not yet." in text


def test_evidence_of_a_criterion(house):
    tables.main(house, [])
    text = (house / "docs" / "topics" / "1.1.md").read_text(encoding="utf-8")
    _, first, second = rows(text)
    assert first[1:4] == ["202.4 s (AdamW, tuned)", "137.7 s", "1.47× (1.38–1.55)"]
    assert (first[-1], second[-1], second[5]) == ("met", "short", "≥ 1.5")
    assert "old" not in text
    assert "$ ./pants accept run 1.1 --tier full" in text
    assert "2026-11-24, commit 0123abc, cpu Xeon, cores 2" in text


def test_check_names_stale_files_and_changes_nothing(house, capsys, write_evidence, entry):
    before = (house / "README.md").read_text(encoding="utf-8")
    assert tables.main(house, ["--check"]) == 1
    printed = capsys.readouterr().out
    assert "README.md is stale" in printed and "docs/topics/1.1.md is stale" in printed
    assert (house / "README.md").read_text(encoding="utf-8") == before
    assert tables.main(house, []) == 0
    assert tables.main(house, ["--check"]) == 0
    write_evidence("1.1", entry(), root=house / "integration")
    assert tables.main(house, ["--check"]) == 1


def test_a_second_run_changes_nothing(house):
    tables.main(house, [])
    first = (house / "README.md").read_text(encoding="utf-8")
    tables.main(house, [])
    assert (house / "README.md").read_text(encoding="utf-8") == first


def test_a_csv_file_becomes_a_table(house):
    page = house / "docs" / "topics" / "1.1.md"
    text = "<!-- table:csv optimizers -->\n<!-- /table -->\n"
    page.write_text(text, encoding="utf-8")
    tables.main(house, [])
    assert "Not yet: no integration/results/optimizers.csv" in page.read_text(encoding="utf-8")
    file = house / "integration" / "results" / "optimizers.csv"
    file.write_text("optimizer,state_bytes,options\nsoap,24,a|b\nlion,4,\n", encoding="utf-8")
    tables.main(house, [])
    found = page.read_text(encoding="utf-8")
    assert "| optimizer | state bytes | options |" in found
    assert "| soap | 24 | a\\|b |" in found and "| lion | 4 | – |" in found


def test_no_evidence_is_said(house):
    page = house / "docs" / "topics" / "1.1.md"
    page.write_text("<!-- table:evidence 2.4.1 -->\n<!-- /table -->\n", encoding="utf-8")
    assert tables.main(house, []) == 0
    assert "Not yet: no evidence for criterion 2.4.1" in page.read_text(encoding="utf-8")


def test_text_of_evidence_cannot_break_a_table(house, write_evidence, entry):
    hostile = entry(metric="a | b\n<script> [x](y) *z* `q`", baseline_name="c|d")
    write_evidence("1.1", hostile, root=house / "integration")
    tables.main(house, [])
    text = (house / "docs" / "topics" / "1.1.md").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if "&lt;script>" in line]
    assert line.replace(r"\|", "").count("|") == 9
    assert r"\[x\](y) \*z\* \`q\`" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table:topics -->\n", "needs its own"),
        ("<!-- /table -->\n", "needs its own"),
        ("<!-- table:topics -->\n<!-- table:topics -->\n<!-- /table -->\n", "needs its own"),
        ("<!-- table:winners -->\n<!-- /table -->\n", "no table 'table:winners'"),
        ("<!-- table:topics 1.1 -->\n<!-- /table -->\n", "no table 'table:topics 1.1'"),
        ("<!-- table:evidence -->\n<!-- /table -->\n", "no table 'table:evidence'"),
        ("<!-- table:csv ../secret -->\n<!-- /table -->\n", "no table 'table:csv ../secret'"),
        ("<!-- table:evidence 9.9 -->\n<!-- /table -->\n", "no table 'table:evidence 9.9'"),
    ],
)
def test_wrong_markers_are_refused(house, capsys, text, message):
    (house / "docs" / "bad.md").write_text(text, encoding="utf-8")
    before = (house / "README.md").read_text(encoding="utf-8")
    assert tables.main(house, []) == 1
    printed = capsys.readouterr().out
    assert message in printed and "bad.md" in printed
    assert (house / "README.md").read_text(encoding="utf-8") == before


def test_markers_within_a_line_are_text(house):
    page = house / "docs" / "about.md"
    page.write_text("Write `<!-- table:topics -->` there.\n", encoding="utf-8")
    assert tables.main(house, []) == 0


def test_corrupt_evidence_is_named(house, capsys):
    (house / "integration" / "results" / "full" / "1.1.json").write_text("{")
    assert tables.main(house, ["--check"]) == 1
    assert "1.1.json is not JSON" in capsys.readouterr().out


def test_evidence_for_an_unknown_criterion_is_refused(house, capsys, write_evidence, entry):
    write_evidence("8.1", entry(), root=house / "integration")
    assert tables.main(house, []) == 1
    assert "unknown criteria: 8.1" in capsys.readouterr().out


def test_wrong_usage(house):
    with pytest.raises(SystemExit) as caught:
        tables.main(house, ["--chek"])
    assert caught.value.code == 2


def test_needs_only_the_standard_library():
    folder = str(Path(tables.__file__).resolve().parents[2])
    code = f"import sys; sys.path.insert(0, {folder!r}); import oarlock.accept.tables"
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
