"""The command line: `oarlock-accept`, or `./pants accept`, which runs this file."""

import os
from typing import Annotated

import typer

from oarlock.accept import stamp
from oarlock.accept.commands import compare, doctor, environment, listing, report, run

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
        typer.echo(f"oarlock-accept {stamp.version('oarlock-accept') or 'unknown'}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Reproduces the acceptance criteria of Oarlock, one command each."""


app.command("list")(listing.list_)
app.command("show")(listing.show)
app.command("run")(run.run)
app.command("prepare")(environment.prepare_)
app.add_typer(environment.peers_app, name="peers")
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """The entry point; leaves quietly if whoever reads the output goes away, as `head` does."""
    try:
        app()
    except SystemExit as leaving:  # which Rich and Typer make of a broken pipe, with code 1
        if not isinstance(leaving.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what Python still flushes at its end
        raise SystemExit(BROKEN_PIPE) from None


if __name__ == "__main__":
    main()
