"""How good a potential is: its predictions beside the labels, and the errors between them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase.units import GPa

from oarlock.sci_md import keys
from oarlock.sci_md.data.batches import BatchSize, batches
from oarlock.sci_md.data.dataset import Dataset
from oarlock.sci_md.potentials.base import Potential
from oarlock.sci_md.structure import Array


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pair:
    """Labels and predictions of one quantity, where labels are known."""

    label: Array
    predicted: Array

    @property
    def error(self) -> Array:
        return self.predicted - self.label

    @property
    def mae(self) -> float:
        return float(np.abs(self.error).mean()) if self.label.size else float("nan")

    @property
    def rmse(self) -> float:
        return float(np.sqrt(np.square(self.error).mean())) if self.label.size else float("nan")

    @property
    def r2(self) -> float:
        """1 − Σ error² / Σ (label − mean)²."""
        if self.label.size < 2 or not self.label.std() > 0:
            return float("nan")
        return float(1.0 - np.square(self.error).mean() / self.label.var())


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Predictions:
    """Args:
    energy: [structures], eV/atom.
    forces: [atoms, 3], eV/Å.
    virial: [structures, 3, 3], eV/atom.
    stress: [structures, 3, 3], GPa, of structures that repeat in all directions.
    symbols: [atoms], of the forces.
    """

    energy: Pair
    forces: Pair
    virial: Pair
    stress: Pair
    symbols: np.ndarray

    def forces_of(self, symbol: str) -> Pair:
        """The forces on the atoms of one element."""
        rows = self.symbols == symbol
        return Pair(label=self.forces.label[rows], predicted=self.forces.predicted[rows])

    def component(self, axis: int) -> Pair:
        """One Cartesian component of the forces."""
        return Pair(label=self.forces.label[:, axis], predicted=self.forces.predicted[:, axis])

    def rows(self) -> list[tuple[str, str, float, float, float, int]]:
        """Quantity, unit, MAE, RMSE, R² and count, for tables."""
        pairs = [
            ("energy", "meV/atom", 1e3, self.energy),
            ("forces", "meV/Å", 1e3, self.forces),
            *[(f"forces {axis}", "meV/Å", 1e3, self.component(i)) for i, axis in enumerate("xyz")],
            *[
                (f"forces on {symbol}", "meV/Å", 1e3, self.forces_of(symbol))
                for symbol in sorted(set(self.symbols))
            ],
            ("virial", "meV/atom", 1e3, self.virial),
            ("stress", "GPa", 1.0, self.stress),
        ]
        return [
            (name, unit, factor * pair.mae, factor * pair.rmse, pair.r2, pair.label.size)
            for name, unit, factor, pair in pairs
            if pair.label.size
        ]

    def errors(self) -> dict[str, float]:
        """MAE and RMSE by name; units are eV/atom, eV/Å, eV/atom and GPa."""
        return {
            f"{name}_{kind}": getattr(getattr(self, name), kind)
            for name in ("energy", "forces", "virial", "stress")
            for kind in ("mae", "rmse")
        }

    def markdown(self) -> str:
        lines = ["| quantity | unit | MAE | RMSE | R² | n |", "|---|---|---:|---:|---:|---:|"]
        for name, unit, mae, rmse, r2, count in self.rows():
            lines.append(f"| {name} | {unit} | {mae:.4g} | {rmse:.4g} | {r2:.5f} | {count} |")
        return "\n".join(lines) + "\n"


def predict(
    potential: Potential,
    dataset: Dataset,
    *,
    batch: BatchSize = BatchSize(structures=None, atoms=1000),  # noqa: B008
    progress: Callable[[], None] | None = None,
) -> Predictions:
    """What a potential says of each labelled structure of a dataset.

    The potential is in evaluation mode meanwhile. `progress` is called after each batch.
    """
    was_training = potential.training
    potential.eval()
    energy, forces, virial = [], [], []
    try:
        for indices in batches(dataset, batch):
            one = dataset.batch(indices, potential.config.dtype)
            result = potential(one.graph)
            energy.append(result[keys.ENERGY].numpy())
            forces.append(result[keys.FORCES].numpy().astype(np.float64))
            virial.append(result[keys.VIRIAL].numpy().astype(np.float64))
            if progress is not None:
                progress()
    finally:
        if was_training:
            potential.train()
    return _compared(
        dataset, np.concatenate(energy), np.concatenate(forces), np.concatenate(virial)
    )


def _compared(dataset: Dataset, energy: Array, forces: Array, virial: Array) -> Predictions:
    structures = dataset.structures
    starts = np.cumsum([0, *dataset.atoms])
    with_energy = [i for i, one in enumerate(structures) if one.energy is not None]
    with_forces = [i for i, one in enumerate(structures) if one.forces is not None]
    with_virial = [i for i, one in enumerate(structures) if one.virial is not None]
    with_stress = [i for i in with_virial if structures[i].pbc.all()]
    atoms = dataset.atoms.astype(np.float64)
    said = [forces[starts[i] : starts[i + 1]] for i in with_forces]
    symbols = [np.array(structures[i].symbols) for i in with_forces]
    return Predictions(
        energy=Pair(
            label=np.array([structures[i].energy / atoms[i] for i in with_energy]),  # type: ignore[operator]
            predicted=energy[with_energy] / atoms[with_energy],
        ),
        forces=Pair(
            label=_stack([structures[i].forces for i in with_forces], (0, 3)),
            predicted=_stack(said, (0, 3)),
        ),
        virial=Pair(
            label=_stack([structures[i].virial[None] / atoms[i] for i in with_virial], (0, 3, 3)),  # type: ignore[index]
            predicted=_stack([virial[i][None] / atoms[i] for i in with_virial], (0, 3, 3)),
        ),
        stress=Pair(
            label=_stack([structures[i].stress[None] / GPa for i in with_stress], (0, 3, 3)),  # type: ignore[index]
            predicted=_stack(
                [-virial[i][None] / structures[i].volume / GPa for i in with_stress], (0, 3, 3)
            ),
        ),
        symbols=np.concatenate(symbols) if symbols else np.empty(0, dtype="<U2"),
    )


def _stack(parts: list, shape: tuple[int, ...]) -> Array:  # type: ignore[type-arg]
    return np.concatenate(parts) if parts else np.empty(shape)
