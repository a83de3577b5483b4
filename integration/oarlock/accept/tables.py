"""Generates the tables of READMEs and documentation from the committed evidence.

A table stands between two lines of a Markdown file, and is replaced as a whole:

    <!-- table:topics -->           all topics with their verdicts
    <!-- table:evidence 1.1 -->     the measurements of one criterion
    <!-- table:csv optimizers -->   integration/results/optimizers.csv
    <!-- /table -->                 ends either

Standard library only: the tables are made and checked before anything is installed.
"""

import argparse
import csv
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from oarlock.accept import wording
from oarlock.accept.results import Result, read_tier
from oarlock.accept.standing import VERDICTS, of_criterion, weakest

MARKDOWN = ("*.md", "docs/**/*.md", "native/*.md", "packages/*/*.md", "integration/*.md")
TABLE = re.compile(
    r"^<!-- table:(?P<name>\S+)(?: (?P<argument>\S+))? -->\n(?P<body>.*?)^<!-- /table -->$",
    re.MULTILINE | re.DOTALL,
)
MARKER = re.compile(r"^<!-- (table:.*|/table) -->$", re.MULTILINE)


class TableError(ValueError):
    """A Markdown file asks for a table that cannot be made; the message names the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What tables are made from: the repository, criteria.toml as read, and the full tier."""

    root: Path
    criteria: Mapping
    results: Mapping[str, tuple[Result, ...]]


def read_source(root: Path) -> Source:
    """Reads the criteria and the committed evidence of the repository at `root`."""
    text = Path(__file__).with_name("criteria.toml").read_text(encoding="utf-8")
    return Source(
        root=root,
        criteria=tomllib.loads(text),
        results=read_tier(root / "integration" / "results", "full"),
    )


def _cell(text: str) -> str:
    """`text` as it stands in a cell of a Markdown table."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_|\[\]])", r"\\\1", text)


def _table(head: str, rows: list[list[str]]) -> str:
    columns = head.count("|") - 1
    lines = [head, "|" + "---|" * columns]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def topics(source: Source, page: Path) -> str:
    """All topics with their verdicts; a topic that has a page is linked to it from `page`."""
    rows, verdicts = [], []
    for topic in source.criteria["topic"]:
        standing = [
            of_criterion(
                (result.verdict for result in source.results.get(criterion["id"], ())),
                pending=criterion.get("pending"),
            )
            for criterion in topic["criterion"]
        ]
        verdicts.append(weakest(standing))
        title = _cell(topic["title_en"])
        target = source.root / "docs" / "topics" / f"{topic['id']}.md"
        if target.exists() and target != page:
            title = f"[{title}]({Path(os.path.relpath(target, page.parent)).as_posix()})"
        met = f"{standing.count('met')} of {len(standing)}"
        package = f"`{topic['package']}`"
        rows.append([topic["id"], f"{title}<br>{topic['title_zh']}", package, met, verdicts[-1]])
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS)
    table = _table("| id | topic | package | criteria met | verdict |", rows)
    return f"{len(rows)} topics: {counts}.\n\n{table}"


def evidence(source: Source, criterion: str) -> str:
    """The measurements of one criterion, and where and when they were made."""
    results = source.results.get(criterion)
    if not results:
        return f"Not yet: no evidence for criterion {criterion} in the full tier."
    rows = []
    for one in results:
        ratio = wording.times(one.ratio)
        baseline = wording.quantity(one.baseline, one.unit)
        rows.append(
            [
                f"{_cell(one.metric)} (`{one.name}`)",
                _cell(f"{baseline} ({one.baseline_name})" if one.baseline_name else baseline),
                _cell(wording.quantity(one.ours, one.unit)),
                f"{ratio} ({wording.interval(one.ci)})" if one.ci else ratio,
                wording.number(one.n),
                wording.target(one.target, one.exclusive),
                one.level,
                one.verdict,
            ]
        )
    head = "| what | baseline | ours | ratio (interval) | n | target | level | verdict |"
    made = {
        _cell(f"{one.date[:10]}, commit {one.commit}, {wording.in_words(one.hardware)}")
        for one in results
    }
    commands = sorted({one.command for one in results})
    return "\n\n".join(
        [
            _table(head, rows),
            "A ratio above 1 means that ours is better. Measured " + "; ".join(sorted(made)) + ".",
            "Reproduce it:",
            "```console\n" + "\n".join(f"$ {command}" for command in commands) + "\n```",
        ]
    )


def from_csv(source: Source, name: str) -> str:
    """The table in `integration/results/<name>.csv`, which a script wrote."""
    path = source.root / "integration" / "results" / f"{name}.csv"
    if not path.exists():
        return f"Not yet: no {path.relative_to(source.root).as_posix()}."
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    cells = [[_cell(cell) or "–" for cell in row] for row in rows]
    return _table("| " + " | ".join(column.replace("_", " ") for column in head) + " |", cells)


def _make(source: Source, page: Path, name: str, argument: str | None) -> str:
    known = {c["id"] for topic in source.criteria["topic"] for c in topic["criterion"]}
    if name == "topics" and argument is None:
        return topics(source, page)
    if name == "evidence" and argument is not None and argument in known:
        return evidence(source, argument)
    if name == "csv" and argument is not None and argument.isidentifier():
        return from_csv(source, argument)
    wanted = f"table:{name} {argument}" if argument else f"table:{name}"
    raise TableError(
        f"{page}: no table {wanted!r}; known are `table:topics`, `table:evidence <criterion>` with a"
        " criterion of criteria.toml, and `table:csv <file in integration/results without .csv>`"
    )


def updated(source: Source, page: Path, text: str) -> str:
    """`text` of the Markdown file `page` with each table made afresh."""

    def replace(match: re.Match) -> str:
        body = _make(source, page, match["name"], match["argument"])
        first = match.group().split("\n", 1)[0]
        return f"{first}\n\n{body}\n\n<!-- /table -->"

    found = [match.group().split("\n", 1)[0] for match in TABLE.finditer(text)]
    opened = [match.group() for match in MARKER.finditer(text)]
    if opened != [line for first in found for line in (first, "<!-- /table -->")]:
        raise TableError(f"{page}: every `<!-- table:… -->` needs its own `<!-- /table -->`")
    return TABLE.sub(replace, text)


def stale(source: Source) -> Iterator[tuple[Path, str]]:
    """Markdown files whose tables differ from the evidence, each with its new text."""
    if strangers := set(source.results) - {
        criterion["id"] for topic in source.criteria["topic"] for criterion in topic["criterion"]
    }:
        raise TableError(f"evidence for unknown criteria: {', '.join(sorted(strangers))}")
    for page in sorted({path for pattern in MARKDOWN for path in source.root.glob(pattern)}):
        text = page.read_text(encoding="utf-8")
        new = updated(source, page, text)
        if new != text:
            yield page, new


def main(root: Path, arguments: list[str] | None = None) -> int:
    """Updates the tables of the repository at `root`, or with `--check` only compares them.

    Returns:
        0; with `--check` 1 if a file is stale; 1 for evidence or markers that cannot be read.
    """
    parser = argparse.ArgumentParser(description="Tables of READMEs and docs, from the evidence.")
    parser.add_argument("--check", action="store_true", help="change nothing, name stale files")
    check = parser.parse_args(arguments).check
    try:
        found = list(stale(read_source(root)))
    except ValueError as error:
        print(f"error: {error}")
        return 1
    for page, text in found:
        name = page.relative_to(root)
        if check:
            print(f"{name} is stale: run `python scripts/update_tables.py` and commit it")
        else:
            page.write_text(text, encoding="utf-8")
            print(f"{name} updated")
    return 1 if check and found else 0
