"""Tables on the terminal."""

import rich
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from oarlock.sci_md.training.metrics import Predictions


def errors(found: Predictions, *, title: str) -> Table:
    """MAE, RMSE and R² of each quantity."""
    table = Table(title=title)
    for name, side in (
        ("quantity", "left"),
        ("unit", "left"),
        ("MAE", "right"),
        ("RMSE", "right"),
        ("R²", "right"),
        ("n", "right"),
    ):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    for name, unit, mae, rmse, r2, count in found.rows():
        table.add_row(name, unit, f"{mae:.4g}", f"{rmse:.4g}", f"{r2:.5f}", str(count))
    return table


def pairs(rows: dict[str, str]) -> Table:
    """Names and what they are."""
    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def show(table: Table) -> None:
    """Prints a table; where no terminal limits the width, no value is broken over lines."""
    console = rich.get_console()
    if not console.is_terminal:
        widest = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
        console = Console(width=max(console.width, widest))
    console.print(table)
