"""What a run was like at each validation, as a table on disk."""

import csv
from collections.abc import Sequence
from pathlib import Path

COLUMNS = (
    "step",
    "epoch",
    "seconds",
    "learning_rate",
    "gradient_norm",
    "train_loss",
    "train_energy",
    "train_forces",
    "train_virial",
    "loss",
    "energy_mae",
    "energy_rmse",
    "forces_mae",
    "forces_rmse",
    "virial_mae",
    "virial_rmse",
    "stress_mae",
    "stress_rmse",
    "steps_per_second",
)


class History:
    """Rows of `COLUMNS` (units: eV/atom, eV/Å, eV/atom, GPa; terms of the training loss unweighted).

    Args:
        path: of the CSV file; None to keep the rows in memory only.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []

    def append(self, row: dict[str, float]) -> None:
        self.rows.append(row)
        if self.path is None:
            return
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(COLUMNS)
            writer.writerow([row.get(name, "") for name in COLUMNS])

    def rewind(self, step: int) -> None:
        """Reads the file and drops the rows after this step, which a resumed run makes again."""
        self.rows = [row for row in read(self.path) if row["step"] <= step] if self.path else []
        if self.path is None or not self.path.exists():
            return
        kept, rows = self.rows, self.path.with_name(self.path.name + ".part")
        with rows.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows([row.get(name, "") for name in COLUMNS] for row in kept)
        rows.replace(self.path)


def read(path: Path | None) -> Sequence[dict[str, float]]:
    """The rows of a history; none where there is no file."""
    if path is None or not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]
