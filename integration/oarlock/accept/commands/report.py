"""`report`: one HTML page about the evidence."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from oarlock.accept.commands.common import Tier, explained, fail, out, results_root


@explained
def report(
    out_file: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The page to write.")
    ] = Path("oarlock-report.html"),
    tier: Annotated[
        Tier | None, typer.Option(help="Whose evidence [the first of full, quick, gpu with any].")
    ] = None,
    results_dir: Annotated[
        Path | None,
        typer.Option("--results", metavar="DIR", help="Folder of evidence [integration/results]."),
    ] = None,
) -> None:
    """Write one self-contained HTML page: scoreboard, ratios, curves, commands.

    Writes FILE (oarlock-report.html in the working folder by default), which loads nothing else.
    """
    from oarlock.accept.report import write

    root = results_root(results_dir)
    if results_dir is not None and not root.is_dir():
        raise fail(f"--results {root}: no such folder")
    if tier is not None and not any((root / tier).glob("*.json")):
        where = "" if results_dir is None else f" --out {shlex.quote(str(root))}"
        command = f"`oarlock-accept run --tier {tier}{where}`"
        raise fail(f"no evidence in the {tier} tier of {root}; {command} would make some")
    try:
        written = write(root, out_file, tier=tier)
    except OSError as error:
        raise fail(f"--out {out_file}: {error.strerror}") from error
    out().print(str(written), markup=False, soft_wrap=True)
