"""What is checked and set before the first step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from oarlock.sci_md import keys
from oarlock.sci_md.data import reference_energies, statistics
from oarlock.sci_md.data.dataset import Dataset
from oarlock.sci_md.neighbours import Neighbourhood
from oarlock.sci_md.potentials import Potential
from oarlock.sci_md.structure import Structure
from oarlock.sci_md.training.settings import TrainingSettings

#: Structures that a potential's own statistics are taken from, at most.
STATISTICS = 200


@runtime_checkable
class HasStatistics(Protocol):
    """A potential that normalises its input by what the training structures look like."""

    def fit_statistics(self, neighbourhoods: Sequence[Neighbourhood]) -> None: ...


def check(
    potential: Potential, datasets: Mapping[str, Dataset | None], settings: TrainingSettings
) -> None:
    """Raises ValueError: datasets of other elements or cut-offs, "train" without labels that the loss
    needs, or "validation" without any that decide what is best."""
    for name, dataset in datasets.items():
        if dataset is None:
            continue
        if dataset.elements != potential.elements:
            raise ValueError(
                f"{name} has the elements {', '.join(dataset.elements)}, the potential has "
                f"{', '.join(potential.elements)}: build the dataset with the potential's"
            )
        if dataset.cutoff != potential.cutoff:
            raise ValueError(
                f"{name} has neighbours within {dataset.cutoff} Å, the potential looks "
                f"{potential.cutoff} Å far: build the dataset with the potential's cut-off"
            )
    weighted = [label for label in keys.LABELS if getattr(settings.loss, label).used]
    for label in weighted:
        if not _has(datasets["train"], label):
            raise ValueError(
                f"loss.{label} has a weight, but no training structure has a label for it: give "
                "the labels, or the weight 0"
            )
    watched = weighted if settings.monitor == "loss" else [settings.monitor]
    validation = datasets["validation"]
    if validation is not None and not any(_has(validation, label) for label in watched):
        raise ValueError(
            f"monitor={settings.monitor!r}: no validation structure has a label for "
            f"{' or '.join(watched)}"
        )


def _has(dataset: Dataset | None, label: str) -> bool:
    return dataset is not None and any(
        getattr(one, label) is not None for one in dataset.structures
    )


def prepare_potential(
    potential: Potential, train: Dataset, settings: TrainingSettings, say: Callable[[str], None]
) -> None:
    """Sets reference energies, scale and input statistics as the settings ask."""
    for label in keys.LABELS:
        if not getattr(settings.loss, label).used and _has(train, label):
            say(f"the data have a {label}, which is not trained on: loss.{label} has the weight 0")
    energies = _energies(potential, train.structures, settings, say)
    potential.set_reference(energies, _scale(potential, train.structures, settings, say))
    if settings.statistics and isinstance(potential, HasStatistics):
        potential.fit_statistics(train.neighbourhoods[:STATISTICS])


def _energies(
    potential: Potential,
    structures: Sequence[Structure],
    settings: TrainingSettings,
    say: Callable[[str], None],
) -> list[float]:
    if settings.reference is None:
        return list(potential.reference_energies.numpy().tolist())
    if settings.reference == "fit":
        if all(one.energy is None for one in structures):
            say("reference energies are left as they are: no structure has an energy")
            return list(potential.reference_energies.numpy().tolist())
        fitted = reference_energies(structures, potential.elements)
        if fitted.note:
            say(f"reference energies: {fitted.note}")
        return list(fitted.energies.tolist())
    wrong = set(settings.reference) ^ set(potential.elements)
    if wrong:
        raise ValueError(
            f"reference has to give an energy for each of {', '.join(potential.elements)} "
            f"and no other; differs in {', '.join(sorted(wrong))}"
        )
    return [settings.reference[symbol] for symbol in potential.elements]


def _scale(
    potential: Potential,
    structures: Sequence[Structure],
    settings: TrainingSettings,
    say: Callable[[str], None],
) -> float:
    if settings.scale is None:
        return float(potential.scale)
    if not isinstance(settings.scale, str):
        return float(settings.scale)
    found = statistics(structures)
    scale = found.force_rms if settings.scale == "forces" else found.energy_spread
    if not scale > 0:
        say(f"scale: the {settings.scale} do not tell one; 1 eV is used")
        return 1.0
    return scale
