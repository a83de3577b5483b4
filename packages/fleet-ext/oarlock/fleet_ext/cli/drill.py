"""`oarlock-fleet drill`."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from oarlock.fleet_ext.drill import CPUS, KINDS, WITHOUT_LAB, Drill, run, schedule
from oarlock.fleet_ext.lab import LabUnavailable


def drill(
    nodes: Annotated[int, typer.Option(min=2, help="That train.")] = 3,
    spares: Annotated[int, typer.Option(min=0, help="That are ready.")] = 1,
    minutes: Annotated[
        float, typer.Option(help="Of training, once without faults and once with them.")
    ] = 1.0,
    every: Annotated[
        float, typer.Option(help="Seconds between two faults; the last interval has none.")
    ] = 20.0,
    faults: Annotated[
        str,
        typer.Option(help=f"Of {', '.join(KINDS)}, in turn; all that are possible if not given."),
    ] = "",
    rate: Annotated[float | None, typer.Option(help="Mbit/s of each node's link.")] = None,
    loopback: Annotated[
        bool,
        typer.Option(
            "--loopback",
            help=f"On this machine's own address, without root: {', '.join(WITHOUT_LAB)}.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the times of faults.")] = 0,
    logs: Annotated[
        Path | None, typer.Option(help="Folder for what nodes write; must not exist.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="File for what was found, as JSON: `oarlock-fleet dashboard --report` shows it.",
            dir_okay=False,
        ),
    ] = None,
) -> None:
    """Trains in network namespaces, undisturbed and then with faults, and says what was kept. Needs root.

    Every node has an agent, which starts what dies again. Faults are: kill and stop (of a training process), link (the
    cable is pulled), slow (the link has a fiftieth of its rate), disk (no room for checkpoints), store (killed, and
    begins again from its journal), power (all training processes are killed, and go on from their checkpoints).
    """
    try:
        if report is not None and not report.absolute().parent.is_dir():
            raise ValueError(f"--report {report} has to be in a folder that exists")
        kinds = faults.split(",") if faults else list(WITHOUT_LAB if loopback else KINDS)
        planned = schedule(kinds, every, 60 * minutes, seed)
        wanted = Drill(nodes=nodes, spares=spares, seconds=60 * minutes, faults=planned, loopback=loopback,
                       cpus=None if loopback else CPUS, rate=1e6 * rate if rate is not None else None)  # fmt: skip
        with TemporaryDirectory() as folder:
            found = run(wanted, logs or Path(folder) / "drill", typer.echo)
    except (ValueError, LabUnavailable, FileExistsError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(str(found))
    if report is not None:
        report.write_text(json.dumps(found.plain(), indent=1) + "\n", encoding="utf-8")
