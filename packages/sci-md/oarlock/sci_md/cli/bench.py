"""`oarlock-md bench`: how fast a potential is here."""

from typing import Annotated

import typer

from oarlock.sci_md.cli import options
from oarlock.sci_md.cli.problems import told


def bench(
    model: options.Model,
    atoms: Annotated[
        str, typer.Option(help="Least numbers of atoms, separated by commas.")
    ] = "256,864",
    element: Annotated[
        str, typer.Option(help="Of an fcc, bcc or diamond crystal; empty: the first.")
    ] = "",
    repeat: Annotated[
        int, typer.Option(help="Evaluations that are timed, after one that is not.")
    ] = 5,
    threads: options.Threads = 1,
) -> None:
    """Measure energy, forces and virial of rattled crystals: µs an atom, neighbour search apart."""
    with told():
        from rich.table import Table

        from oarlock.native.paddle import accelerate
        from oarlock.sci_md.cli import speed
        from oarlock.sci_md.cli.tables import show

        accelerate(threads)

        table = Table(title=f"{model.name}, {threads} thread(s)")
        for column in (
            "atoms",
            "neighbours/atom",
            "µs/atom (median)",
            "µs/atom (least)",
            "µs/atom, lists",
        ):
            table.add_column(column, justify="right")
        for measured in speed.measure(
            model, speed.numbers(atoms), element=element, repeat=repeat, threads=threads
        ):
            table.add_row(
                str(measured.atoms),
                f"{measured.neighbours:.1f}",
                f"{1e6 * measured.median / measured.atoms:.1f}",
                f"{1e6 * measured.least / measured.atoms:.1f}",
                f"{1e6 * measured.lists / measured.atoms:.1f}",
            )
        show(table)
