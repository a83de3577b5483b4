"""The commands of `oarlock-md lammps`."""

from pathlib import Path
from typing import Annotated

import typer

from oarlock.sci_md.cli.problems import told
from oarlock.sci_md.lammps.building import PluginUnavailable, build
from oarlock.sci_md.lammps.launch import input_lines, run_here

app = typer.Typer(
    name="lammps", help="Potentials in LAMMPS: pair_style oarlock.", no_args_is_help=True
)


@app.command("build")
def build_command(
    folder: Annotated[Path | None, typer.Option(help="Where to keep it, not in the cache.")] = None,
) -> None:
    """Compile the pair style (once) and say where it is."""
    try:
        typer.echo(build(folder))
    except PluginUnavailable as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


@app.command("input")
def input_command(
    model: Annotated[Path, typer.Argument(help="A potential's file or folder.")],
    elements: Annotated[list[str], typer.Argument(help="One for each atom type; NULL for none.")],
) -> None:
    """Print the lines that an input needs."""
    with told():
        from oarlock.sci_md.evaluate import open_evaluator

        names = [None if name == "NULL" else name for name in elements]
        known = open_evaluator(model).elements
        unknown = [name for name in names if name is not None and name not in known]
        if unknown:
            raise ValueError(
                f"{model} knows {', '.join(known)}, not {', '.join(unknown)}: give one of those for each "
                "atom type, or NULL"
            )
        typer.echo(input_lines(model, names), nl=False)


@app.command("run", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def run_command(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="An input of LAMMPS.")],
    plugin: Annotated[Path | None, typer.Option(help="What build gave, not in the cache.")] = None,
) -> None:
    """Run an input; further words go to LAMMPS. Under mpiexec, each rank runs this."""
    try:
        run_here(file, context.args, plugin=plugin)
    except (PluginUnavailable, RuntimeError) as error:
        # The other ranks are ended by this one's end.
        typer.echo(f"LAMMPS ended: {error}", err=True)
        raise typer.Exit(1) from error
