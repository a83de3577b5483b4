"""`oarlock-md train`: a potential from a configuration file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from oarlock.sci_md.cli import options
from oarlock.sci_md.cli.problems import told

if TYPE_CHECKING:
    from oarlock.sci_md.training import RunConfig


def train(
    config: Annotated[
        Path, typer.Argument(help="YAML of this package, or DeePMD-kit's input.json (se_e2_a).")
    ],
    output: Annotated[
        Optional[Path], typer.Option(help="Folder of the results, instead of the file's.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder.")
    ] = False,
    steps: Annotated[Optional[int], typer.Option(help="Instead of the file's steps.")] = None,
    seed: Annotated[Optional[int], typer.Option(help="Instead of the file's seed.")] = None,
    threads: options.Threads = 1,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Train a potential, or a committee of them.

    Ctrl-C ends after the step and leaves all on disk; --resume goes on as if nothing had been.
    """
    with told():
        import rich

        from oarlock.native.paddle import accelerate
        from oarlock.sci_md.cli.tables import errors, show
        from oarlock.sci_md.training import Silent, Terminal, run

        accelerate(threads)
        asked = _read(config)
        update: dict[str, object] = {}
        if steps is not None:
            update |= {"steps": steps, "epochs": None}
        if seed is not None:
            update["seed"] = seed
        settings = asked.training.model_copy(update=update)
        place = str(output) if output is not None else asked.output
        asked = asked.model_copy(update={"training": settings, "output": place})
        members = run(asked, resume=resume, reporter=Silent if quiet else Terminal)
        for member in members:
            outcome = member.outcome
            rich.print(
                f"{member.folder}: {outcome.reason} after {outcome.step} steps, "
                f"{outcome.seconds:.1f} s"
            )
            for name, found in (("validation", outcome.predictions), ("test", member.test)):
                if found is not None:
                    show(errors(found, title=name))
        if members[-1].outcome.reason == "interrupted":
            raise typer.Exit(130)


def _read(path: Path) -> "RunConfig":
    import json

    from oarlock.sci_md.training import RunConfig
    from oarlock.sci_md.training.deepmd_input import is_deepmd, read_deepmd_input

    if path.suffix == ".json" and path.is_file():
        try:
            values = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is no JSON ({error})") from error
        if is_deepmd(values):
            found, notes = read_deepmd_input(path)
            for note in notes:
                typer.echo(f"{path.name}: {note}", err=True)
            return found
    return RunConfig.from_file(path)
