"""`oarlock-md label`: energies and forces of structures by a quantum-mechanical method."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from oarlock.sci_md.cli.problems import told

if TYPE_CHECKING:
    from oarlock.sci_md.labels import LabelMethod


def label(
    structures: Annotated[
        Path, typer.Argument(help="Structures in any format that ASE or `info` reads.")
    ],
    output: Annotated[Path, typer.Argument(help="extxyz to write.")],
    method: Annotated[
        str,
        typer.Option(help="GFN2-xTB, GFN1-xTB, IPEA1-xTB, or a functional of PySCF (PBE, HF, …)."),
    ] = "GFN2-xTB",
    basis: Annotated[str, typer.Option(help="Of PySCF.")] = "def2-svp",
    charge: Annotated[int, typer.Option(help="Of each structure, e.")] = 0,
    unpaired: Annotated[int, typer.Option(help="Unpaired electrons.")] = 0,
    rattle: Annotated[
        int, typer.Option(help="Label so many rattled copies of each structure, instead of itself.")
    ] = 0,
    deviation: Annotated[float, typer.Option(help="Of rattled coordinates, Å.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Of rattling.")] = 0,
    cache: Annotated[
        Optional[Path],
        typer.Option(help="Folder of what was computed; beside the output if not given."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
) -> None:
    """Compute labels; what was computed is kept, and a second call goes on."""
    with told():
        from oarlock.sci_md import labels
        from oarlock.sci_md.data import write

        given = _read(structures)
        if rattle:
            given = [
                copy
                for one in given
                for copy in labels.rattled(one, count=rattle, deviation=deviation, seed=seed)
            ]
        found = labels.generate(
            given,
            _method(method, basis, charge, unpaired),
            cache=cache or output.with_name(output.name + ".cache"),
            workers=workers,
        )
        if found.structures:
            write(output, found.structures, format="extxyz")
        typer.echo(str(found))
        if found.failures:
            raise typer.Exit(1)


def _read(path: Path):  # type: ignore[no-untyped-def]
    import ase.io

    from oarlock.sci_md.data import read
    from oarlock.sci_md.structure import Structure

    if path.is_dir() or not path.exists() or path.suffix == ".zip":
        return read(path, need=(), check=False)
    try:
        frames = ase.io.read(path, index=":")
    except Exception as error:  # ASE's readers raise what they like
        raise ValueError(f"{path} cannot be read by ASE ({error})") from error
    return [
        Structure(
            numbers=one.numbers,
            positions=one.positions,
            cell=one.cell.array,
            pbc=one.pbc,
            name=f"{path.name}:{index}",
        )
        for index, one in enumerate(frames)
    ]


def _method(name: str, basis: str, charge: int, unpaired: int) -> "LabelMethod":
    from oarlock.sci_md.labels import QuantumChemistry, TightBinding

    if name.endswith("-xTB"):
        return TightBinding(method=name, charge=charge, unpaired=unpaired)
    return QuantumChemistry(functional=name, basis=basis, charge=charge, unpaired=unpaired)
