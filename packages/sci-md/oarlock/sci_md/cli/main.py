"""`oarlock-md` and its commands."""

import os
import warnings
from importlib import metadata
from typing import Annotated

import typer

from oarlock.sci_md.cli import bench, freeze, info, label, md, plot, test, train
from oarlock.sci_md.lammps.commands import app as lammps

BROKEN_PIPE = 141  # what a shell says of a program that SIGPIPE has ended

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"oarlock-md {metadata.version('oarlock-sci-md')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Molecular dynamics on PaddlePaddle."""


app.command("train")(train.train)
app.command("test")(test.test)
app.command("freeze")(freeze.freeze)
app.command("plot")(plot.plot)
app.command("label")(label.label)
app.command("md")(md.md)
app.command("bench")(bench.bench)
app.command("info")(info.info)
app.add_typer(lammps)


def main() -> None:
    """The entry point; leaves quietly if whoever reads the output goes away, as `head` does."""
    os.environ.setdefault("GLOG_minloglevel", "2")  # Paddle's notes on how it runs programs
    warnings.filterwarnings("ignore", message="No ccache found")
    try:
        app()
    except SystemExit as leaving:  # which Rich and Typer make of a broken pipe, with code 1
        if not isinstance(leaving.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what Python still flushes at its end
        raise SystemExit(BROKEN_PIPE) from None


if __name__ == "__main__":
    main()
