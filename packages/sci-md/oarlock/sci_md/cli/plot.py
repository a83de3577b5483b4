"""`oarlock-md plot`: learning curves of runs."""

from pathlib import Path
from typing import Annotated

import typer

from oarlock.sci_md.cli.problems import told


def plot(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or their history.csv.")],
    output: Annotated[Path, typer.Option(help="PNG to write.")] = Path("curves.png"),
) -> None:
    """Draw errors, loss and learning rate over steps, of one run or several together."""
    with told():
        from oarlock.sci_md.training import history, plots

        found = {}
        for one in [member for given in runs for member in _members(given)]:
            path = one / "history.csv" if one.is_dir() else one
            rows = history.read(path) if path.suffix == ".csv" else []
            if not rows:
                raise ValueError(f"{path} is no history of a run: name the run's folder")
            found[one.name if one.is_dir() else one.parent.name or str(one)] = rows
        plots.compare(found, output)
        typer.echo(str(output))


def _members(run: Path) -> list[Path]:
    """The folders of a committee, or what was given."""
    members = sorted(path.parent for path in run.glob("member-*/history.csv"))
    return members or [run]
