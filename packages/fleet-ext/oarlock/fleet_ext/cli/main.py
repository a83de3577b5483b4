"""The entry point of `oarlock-fleet`."""

from importlib import metadata
from typing import Annotated

import typer

from oarlock.fleet_ext.cli.drill import drill
from oarlock.fleet_ext.cli.launch import launch

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"oarlock-fleet {metadata.version('oarlock-fleet-ext')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Distributed training on commodity networks and unreliable machines."""


app.command(
    "launch", context_settings={"allow_extra_args": True, "allow_interspersed_args": False}
)(launch)
app.command("drill")(drill)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
