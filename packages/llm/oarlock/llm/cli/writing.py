"""What commands that write models show."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from oarlock.llm.writing import Written


@contextmanager
def bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar of bytes on stderr, told of each tensor."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=None)

        def update(name: str, done: int, total: int) -> None:
            shown.update(task, description=name, completed=done, total=total)

        yield update


def report(written: "Written") -> None:
    """Say what was written, and what was left out."""
    sizes = ", ".join(f"{size / 1e6:.1f} MB {kind}" for kind, size in written.kinds.items())
    typer.echo(f"wrote {written.path}: {sizes}")
    if written.floats:
        typer.echo(
            f"kept as floats, as their rows are no multiple of 32: {', '.join(written.floats)}"
        )
    for format, count in written.rounded_anew.items():
        typer.echo(f"rounded anew, as their codes have no place: {count} matrices of {format}")
    for note in written.notes:
        typer.echo(f"left out: {note}")
