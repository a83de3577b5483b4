"""`compare`: two sets of evidence, measurement by measurement."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from oarlock.accept import results, wording
from oarlock.accept.commands.common import SHORT, coloured, explained, out, table
from oarlock.accept.experiment import TIERS
from oarlock.accept.results import Result

Key = tuple[str, str, str]  # tier, criterion, name
_RANK = {"short": 0, "info": 1, "met": 2}


def _files(path: Path) -> Iterator[Path]:
    """The evidence files of a file, a tier's folder or a folder of tiers."""
    if path.is_file():
        yield path
    elif not path.is_dir():
        raise ValueError(f"{path}: no such file or folder of evidence")
    else:
        tiers = [file for tier in TIERS for file in (path / tier).glob("*.json")]
        found = sorted([*path.glob("*.json"), *tiers])
        if not found:
            raise ValueError(f"{path} holds no evidence (<tier>/<criterion>.json)")
        yield from found


def read(path: Path) -> dict[Key, Result]:
    """All measurements below `path`."""
    found: dict[Key, Result] = {}
    for file in _files(path):
        evidence = results.read(file)
        record = json.loads(file.read_text(encoding="utf-8"))
        tier = str(record.get("tier", file.parent.name))
        found |= {(tier, file.stem, one.name): one for one in evidence}
    return found


def remarks(old: Result | None, new: Result | None) -> list[str]:
    """What changed: the verdict got worse or better, the ratio fell or rose beyond both intervals."""
    if old is None or new is None:
        return ["new" if old is None else "gone"]
    said = []
    if _RANK[new.verdict] < _RANK[old.verdict]:
        said.append("worse")
    elif _RANK[new.verdict] > _RANK[old.verdict]:
        said.append("better")
    if old.ci and new.ci:
        if new.ci[1] < old.ci[0]:
            said.append("fell")
        elif new.ci[0] > old.ci[1]:
            said.append("rose")
    return said


def got_worse(old: Mapping[Key, Result], new: Mapping[Key, Result]) -> bool:
    """Whether a measurement that is in both has a worse verdict."""
    return any("worse" in remarks(old[key], new[key]) for key in old.keys() & new.keys())


@explained
def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="Folder or file of evidence.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Folder or file of evidence.")],
) -> None:
    """Compare two sets of evidence: ratios, verdicts, intervals that do not overlap.

    Writes nothing. Exit code: 1 if a verdict got worse, 2 if something cannot be read, else 0.
    """
    before, after = read(old), read(new)
    rows = table("measurement", "old", "new", "verdict", "remarks", old=True, new=True)
    for column in rows.columns[3:]:
        column.no_wrap = True
    for key in sorted(before.keys() | after.keys()):
        tier, criterion, name = key
        pair = before.get(key), after.get(key)
        verdicts = list(dict.fromkeys(one.verdict for one in pair if one))
        rows.add_row(
            f"{tier} {criterion} {escape(name)}",
            *(_ratio(one) for one in pair),
            " → ".join(map(coloured, verdicts)),
            ", ".join(remarks(*pair)),
        )
    out().print(rows)
    raise typer.Exit(SHORT if got_worse(before, after) else 0)


def _ratio(one: Result | None) -> str:
    if one is None:
        return "–"
    text = wording.times(one.ratio)
    return f"{text} ({wording.interval(one.ci)})" if one.ci else text
