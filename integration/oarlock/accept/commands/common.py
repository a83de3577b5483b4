"""What the commands share: consoles, errors, tables, exit codes."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from oarlock.accept import stamp
from oarlock.accept.data import DataCorrupt, DataMissing
from oarlock.accept.peers import InstallFailed, PeerMissing

#: Exit codes: all met, something fell short or failed, wrong usage or something missing.
OK, SHORT, USAGE = 0, 1, 2
STYLES = {"met": "green", "short": "red", "info": "cyan", "not yet": "dim"}

Tier = Literal["quick", "full", "gpu"]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

F = TypeVar("F", bound=Callable[..., Any])


def out() -> Console:
    """Standard output: 80 columns and no colours where it is not a terminal."""
    return Console(highlight=False)


def err() -> Console:
    """Standard error."""
    return Console(stderr=True, highlight=False)


def fail(message: str) -> typer.Exit:
    """Says what is wrong; to be raised."""
    err().print(f"error: {message}", markup=False, soft_wrap=True)
    return typer.Exit(USAGE)


def explained(command: F) -> F:
    """Turns errors that name a remedy into a message and exit code 2."""

    @functools.wraps(command)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except (DataCorrupt, DataMissing, InstallFailed, PeerMissing, ValueError) as error:
            raise fail(str(error)) from error

    return wrapped  # type: ignore[return-value]


def table(*columns: str, **right: bool) -> Table:
    """An empty table without frames; `name=True` aligns that column to the right."""
    made = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        header_style="bold",
    )
    for column in columns:
        made.add_column(
            column,
            justify="right" if right.get(column) else "left",
            overflow="fold",
            no_wrap=bool(right.get(column)),
        )
    return made


def coloured(verdict: str) -> str:
    """A verdict with its colour."""
    style = STYLES.get(verdict)
    return f"[{style}]{verdict}[/]" if style else verdict


def print_json(value: Any) -> None:
    """JSON on standard output, one value."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))


def results_root(given: Path | None) -> Path:
    """The folder of evidence: what was given, or that of the checkout."""
    return stamp.results_root() if given is None else given
