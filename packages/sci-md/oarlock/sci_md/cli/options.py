"""Arguments and options that several commands have."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from oarlock.sci_md.data import Units

Model = Annotated[Path, typer.Argument(help="A potential (.safetensors) or a frozen folder.")]
Data = Annotated[
    str,
    typer.Argument(
        help="Structures: extxyz, DeePMD folder, ASE database, mlearn JSON; also in a zip."
    ),
]
Format = Annotated[
    Optional[str], typer.Option(help="extxyz, deepmd, ase or mlearn; by the name if not given.")
]
EnergyUnit = Annotated[str, typer.Option(help="Of the data: eV, kcal/mol, Hartree, …")]
LengthUnit = Annotated[str, typer.Option(help="Of the data: angstrom, Bohr, nm.")]
Unchecked = Annotated[
    bool,
    typer.Option("--unchecked", help="Believe the units even where the numbers speak against."),
]

Threads = Annotated[int, typer.Option(help="Of Paddle's operators.")]


def units(energy: str, length: str) -> "Units":
    from oarlock.sci_md.data import Units

    return Units(energy=energy, length=length)
