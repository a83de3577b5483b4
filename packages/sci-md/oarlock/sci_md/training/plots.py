"""Pictures of a training run: predictions against labels, and errors over steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from oarlock.sci_md.training.metrics import Pair, Predictions

#: More points than this are thinned out, evenly.
MOST_POINTS = 5000


def parity(predictions: Predictions, path: Path, *, title: str = "") -> None:
    """Predicted by labelled energies, forces and, where there are some, stresses."""
    panels: list[tuple[str, str, Pair]] = [
        ("energy", "eV/atom", predictions.energy),
        ("forces", "eV/Å", predictions.forces),
        ("stress", "GPa", predictions.stress),
    ]
    panels = [panel for panel in panels if panel[2].label.size]
    figure = Figure(figsize=(4.2 * max(len(panels), 1), 4.2), layout="constrained")
    for index, (name, unit, pair) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), index + 1)
        label, predicted = _thinned(pair)
        low, high = min(label.min(), predicted.min()), max(label.max(), predicted.max())
        axes.plot([low, high], [low, high], color="0.6", linewidth=1)
        axes.plot(label, predicted, ".", markersize=3, alpha=0.5, rasterized=True)
        axes.set_xlabel(f"{name}, label ({unit})")
        axes.set_ylabel(f"{name}, predicted ({unit})")
        axes.set_title(f"MAE {pair.mae:.3g}  RMSE {pair.rmse:.3g}", fontsize=9)
        axes.ticklabel_format(useOffset=False)
    if title:
        figure.suptitle(title, fontsize=10)
    _write(figure, path)


def curves(rows: Sequence[dict[str, float]], path: Path) -> None:
    """Errors of the validation structures, loss and learning rate over steps (`History.rows`)."""
    compare({"": rows}, path)


def compare(runs: Mapping[str, Sequence[dict[str, float]]], path: Path) -> None:
    """The same of several runs by name, in one picture."""
    panels = [
        ("energy (meV/atom)", (("energy_mae", "MAE"), ("energy_rmse", "RMSE")), 1e3),
        ("forces (meV/Å)", (("forces_mae", "MAE"), ("forces_rmse", "RMSE")), 1e3),
        ("loss", (("train_loss", "training"), ("loss", "validation")), 1.0),
        ("learning rate", (("learning_rate", ""),), 1.0),
    ]
    figure = Figure(figsize=(9.0, 6.5), layout="constrained")
    for index, (name, columns, factor) in enumerate(panels):
        axes = figure.add_subplot(2, 2, index + 1)
        for number, (run, rows) in enumerate(runs.items()):
            for style, (column, called) in zip(("-", "--"), columns, strict=False):
                points = [
                    (row["step"], row[column] * factor) for row in rows if row.get(column, 0.0) > 0
                ]
                if points:
                    color = f"C{number}" if len(runs) > 1 else ("C0" if style == "-" else "C1")
                    label = " ".join(part for part in (run, called) if part)
                    axes.plot(*zip(*points, strict=True), style, color=color, label=label or None)
        axes.set_xlabel("step")
        axes.set_ylabel(name)
        if axes.lines:
            axes.set_yscale("log")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    _write(figure, path)


def _thinned(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    label, predicted = pair.label.ravel(), pair.predicted.ravel()
    every = max(1, -(-len(label) // MOST_POINTS))
    return label[::every], predicted[::every]


def _write(figure: Any, path: Path) -> None:
    FigureCanvasAgg(figure)
    unfinished = path.with_name(path.stem + ".part.png")
    figure.savefig(unfinished, dpi=110)
    unfinished.replace(path)
