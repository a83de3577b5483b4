"""`oarlock-md md`: dynamics by a potential, through ASE."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from oarlock.sci_md.cli.problems import told

if TYPE_CHECKING:
    from oarlock.sci_md.simulate import Ensemble


def md(
    models: Annotated[
        list[Path],
        typer.Argument(help="A potential; several are a committee, whose mean moves atoms."),
    ],
    structure: Annotated[Path, typer.Option(help="Atoms to begin with, in any format ASE reads.")],
    ensemble: Annotated[
        str, typer.Option(help="nve, langevin, bussi, nose-hoover or npt.")
    ] = "bussi",
    temperature: Annotated[float, typer.Option(help="K.")] = 300.0,
    pressure: Annotated[float, typer.Option(help="GPa, of npt.")] = 0.0,
    steps: Annotated[int, typer.Option(help="In all, those of an earlier part included.")] = 1000,
    timestep: Annotated[float, typer.Option(help="fs.")] = 0.5,
    every: Annotated[int, typer.Option(help="Steps between frames.")] = 10,
    output: Annotated[Path, typer.Option(help="Folder; an unfinished run in it goes on.")] = Path(
        "md"
    ),
    seed: Annotated[int, typer.Option(help="Of velocities and thermostats.")] = 0,
    threads: Annotated[Optional[int], typer.Option(help="Of Paddle's operators.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Run molecular dynamics; Ctrl-C ends after the step, and the same command goes on."""
    with told():
        import ase.io
        from ase.io.formats import UnknownFileTypeError

        from oarlock.sci_md.calculator import OarlockCalculator
        from oarlock.sci_md.evaluate import open_evaluator
        from oarlock.sci_md.simulate import run

        if not structure.is_file():
            raise ValueError(f"structure={str(structure)!r} is no file")
        try:
            atoms: Any = ase.io.read(structure, index=-1)
        except (UnknownFileTypeError, StopIteration, IndexError) as error:
            raise ValueError(
                f"structure={str(structure)!r} holds no atoms that ASE reads"
            ) from error
        atoms.calc = OarlockCalculator([open_evaluator(one, threads=threads) for one in models])
        done = run(
            atoms,
            _ensemble(ensemble, temperature, pressure),
            steps=steps,
            timestep=timestep,
            temperature=temperature,
            frames_every=every,
            log_every=every,
            folder=output,
            seed=seed,
            progress=not quiet,
        )
        said = f"{len(done.trajectory)} frames"
        if not done.steps:
            said += "; all steps were done before: give more, or another folder"
        typer.echo(f"{output}: {said}")


def _ensemble(name: str, temperature: float, pressure: float) -> "Ensemble":
    from oarlock.sci_md import simulate

    if name == "nve":
        return simulate.NVE()
    if name == "npt":
        return simulate.NPT(temperature=temperature, pressure=pressure)
    kinds: dict[str, Any] = {
        "langevin": simulate.Langevin,
        "bussi": simulate.Bussi,
        "nose-hoover": simulate.NoseHoover,
    }
    if name not in kinds:
        raise ValueError(f"ensemble={name!r} is not known: nve, {', '.join(kinds)} or npt")
    return kinds[name](temperature=temperature)
