"""The entry point of `oarlock-fleet`."""

from importlib import metadata
from typing import Annotated

import typer

from oarlock.fleet_ext.cli.agent import agent, resize, status
from oarlock.fleet_ext.cli.dashboard import dashboard
from oarlock.fleet_ext.cli.drill import drill
from oarlock.fleet_ext.cli.launch import launch
from oarlock.fleet_ext.cli.serve import rescale, serve
from oarlock.fleet_ext.cli.serve_tables import tables

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


_COMMAND_BEHIND = {"allow_extra_args": True, "allow_interspersed_args": False}
app.command("launch", context_settings=_COMMAND_BEHIND)(launch)
app.command("agent", context_settings=_COMMAND_BEHIND)(agent)
app.command("resize")(resize)
app.command("status")(status)
app.command("drill")(drill)
app.command("tables")(tables)
app.command("serve", context_settings=_COMMAND_BEHIND)(serve)
app.command("rescale")(rescale)
app.command("dashboard")(dashboard)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
