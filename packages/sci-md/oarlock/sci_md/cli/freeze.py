"""`oarlock-md freeze`: a potential as a Paddle program."""

from pathlib import Path
from typing import Annotated

import typer

from oarlock.sci_md.cli.problems import told


def freeze(
    model: Annotated[Path, typer.Argument(help="A potential (.safetensors).")],
    output: Annotated[Path, typer.Argument(help="Folder to write; must not be there.")],
) -> None:
    """Write a program that runs without the code that made it, checked against the potential."""
    with told():
        from oarlock.sci_md import evaluate
        from oarlock.sci_md.potentials import load

        evaluate.freeze(load(model), output)
        typer.echo(f"{output}: a frozen potential")
