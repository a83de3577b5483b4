"""`oarlock-md test`: the errors of a potential on labelled structures."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from oarlock.sci_md.cli import options
from oarlock.sci_md.cli.problems import told


def test(
    model: Annotated[Path, typer.Argument(help="A potential (.safetensors).")],
    data: options.Data,
    output: Annotated[
        Optional[Path], typer.Option(help="Folder for test.md, test.json and test.png.")
    ] = None,
    format: options.Format = None,
    energy_unit: options.EnergyUnit = "eV",
    length_unit: options.LengthUnit = "angstrom",
    unchecked: options.Unchecked = False,
    threads: options.Threads = 1,
) -> None:
    """Compare a potential with labels: MAE and RMSE by quantity, component and element."""
    with told():

        from oarlock.native.paddle import accelerate
        from oarlock.sci_md.cli.tables import errors, show
        from oarlock.sci_md.data import Dataset, read
        from oarlock.sci_md.potentials import load
        from oarlock.sci_md.training import predict
        from oarlock.sci_md.training.run import report

        accelerate(threads)
        potential = load(model)
        structures = read(
            data,
            format=format,
            units=options.units(energy_unit, length_unit),
            need=(),
            check=not unchecked,
        )
        dataset = Dataset(structures, elements=potential.elements, cutoff=potential.cutoff)
        found = (
            predict(potential, dataset) if output is None else report(potential, dataset, output)
        )
        show(errors(found, title=f"{model.name} on {len(dataset)} structures"))
