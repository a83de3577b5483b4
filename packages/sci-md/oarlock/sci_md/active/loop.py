"""The loop of active learning: train a committee, explore, select, label, and again.

All that is known is in files, each written whole or not at all; a loop that was interrupted goes on
with the first thing that is not there.
"""

import csv
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from oarlock.sci_md.active.explorers import Explorer
from oarlock.sci_md.active.oracles import Oracle
from oarlock.sci_md.active.selection import Band, Selection, select
from oarlock.sci_md.data import Dataset, check_labels, read, split, write
from oarlock.sci_md.potentials import config_from_dict, load
from oarlock.sci_md.structure import Structure, elements_of
from oarlock.sci_md.training import Committee, DataSettings, RunConfig, Silent, TrainingSettings
from oarlock.sci_md.training.config import Prepared
from oarlock.sci_md.training.progress import Reporter
from oarlock.sci_md.training.run import train_member
from oarlock.sci_md.training.settings import Settings
from oarlock.sci_md.training.trainer import BEST

LABELLED = "labelled.extxyz"
VISITED = "visited.extxyz"
DEVIATIONS = "deviations.npy"
REPORT = "round.json"


class ActiveSettings(Settings):
    """Args:
    potential: the model's name and its configuration; without `elements`, those of the first data.
    training: of each member in each round.
    members: of the committee, with seeds from `training.seed` on.
    rounds: at most.
    low, high: of the band of deviations, eV/Å (`Band`).
    most: structures labelled in a round, at most.
    enough: the loop ends when so small a share of what was visited is not below the band.
    validation: the share of each round's labels that is not trained on, only watched.
    continued: members begin with their parameters of the round before.
    """

    potential: dict[str, Any]
    training: TrainingSettings
    members: int = Field(default=4, ge=2)
    rounds: int = Field(default=10, ge=1)
    low: float = Field(default=0.05, gt=0)
    high: float = Field(default=0.25, gt=0)
    most: int = Field(default=50, ge=1)
    enough: float = Field(default=0.01, ge=0, lt=1)
    validation: float = Field(default=0.1, gt=0, lt=1)
    continued: bool = True

    @property
    def band(self) -> Band:
        return Band(low=self.low, high=self.high)


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """What one round was like.

    Args:
        index: from 0.
        structures: that the committee was trained and validated on.
        energy_mae, forces_mae: eV/atom and eV/Å, of the validation structures, mean of the members.
        visited, accurate, candidates, failed: structures, and where they lay by the band.
        deviation: eV/Å, mean over what was visited of the largest deviation of an atom; nan for nothing.
        labelled: structures with new labels.
        seconds: of training, exploring, selecting and labelling.
    """

    index: int
    structures: int
    energy_mae: float
    forces_mae: float
    visited: int
    accurate: int
    candidates: int
    failed: int
    deviation: float
    labelled: int
    seconds: float


class ActiveLearning:
    """Args:
        folder: of all files; an unfinished loop in it goes on.
        settings: have to be those the loop began with, but for `rounds` and `enough`.
        first: labelled structures to begin with.
        explore: visits structures (`Explorer`).
        oracle: labels them (`Oracle`).
        reporter: makes what shows progress, one for each training.

    Raises:
        ValueError: too few structures, labels that are missing, a band that is none, or a folder of
            another loop.
    """

    def __init__(
        self,
        folder: str | Path,
        settings: ActiveSettings,
        *,
        first: Sequence[Structure],
        explore: Explorer,
        oracle: Oracle,
        reporter: Callable[[], Reporter] = Silent,
    ) -> None:
        self.folder, self.settings = Path(folder), settings
        self.explore, self.oracle, self.reporter = explore, oracle, reporter
        self.band = settings.band
        if len(first) < 2:
            raise ValueError(
                f"first: {len(first)} structures; two at least, to train and to validate"
            )
        check_labels(first, ["energy", "forces"])
        values = dict(settings.potential)
        values.setdefault("elements", list(elements_of(first)))
        self.potential = config_from_dict(values)
        self._remember(first)

    def _remember(self, first: Sequence[Structure]) -> None:
        """Keeps settings and first structures, or checks that they are those of before."""
        file = self.folder / "settings.json"
        mine = self.settings.model_dump(mode="json", exclude={"rounds", "enough"})
        if file.exists():
            if json.loads(file.read_text()) != mine:
                raise ValueError(
                    f"folder={str(self.folder)!r} holds a loop of other settings: choose another folder, "
                    "or the settings it began with"
                )
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self.folder / LABELLED, first, format="extxyz")
        _write_json(file, mine)

    def run(self) -> list[Round]:
        """All rounds, until the last, or until little is left to learn; writes report.md and report.csv."""
        rounds = []
        for index in range(self.settings.rounds):
            one = self._round(index)
            rounds.append(one)
            self._report(rounds)
            unsure = one.candidates + one.failed
            if not one.labelled or unsure <= self.settings.enough * one.visited:
                break
        return rounds

    def members(self, index: int) -> list[Path]:
        """The potentials of a round's committee."""
        return [self._place(index) / f"member-{m}" / BEST for m in range(self.settings.members)]

    def data(self, index: int) -> tuple[list[Structure], list[Structure]]:
        """The structures that a round trains on, and those it is validated on."""
        files = [self.folder / LABELLED]
        files += [self._place(earlier) / LABELLED for earlier in range(index)]
        train: list[Structure] = []
        validation: list[Structure] = []
        for number, file in enumerate(files):
            structures = read(file, check=False)
            if len(structures) < 2:
                train += structures
                continue
            parts = split(
                len(structures),
                {"validation": self.settings.validation},
                seed=self.settings.training.seed + number,
            )
            train += [structures[i] for i in parts["train"]]
            validation += [structures[i] for i in parts["validation"]]
        return train, validation

    def _place(self, index: int) -> Path:
        return self.folder / f"round-{index:03d}"

    def _round(self, index: int) -> Round:
        place = self._place(index)
        done = place / REPORT
        if done.exists():
            return Round(**json.loads(done.read_text()))
        began = time.perf_counter()
        place.mkdir(parents=True, exist_ok=True)
        trained = self._train(index)
        visited = self._explore(index)
        deviations = self._deviations(index, visited)
        seed = self.settings.training.seed + index
        selection = select(deviations, self.band, most=self.settings.most, seed=seed)
        labelled = self._label(index, [visited[i] for i in selection.chosen])
        one = _round(index, trained, selection, deviations, labelled, time.perf_counter() - began)
        _write_json(done, asdict(one))
        return one

    def _train(self, index: int) -> dict[str, float]:
        """Trains the members that are not there; the numbers of the table."""
        place = self._place(index)
        file = place / "trained.json"
        if file.exists():
            return dict(json.loads(file.read_text()))
        train, validation = self.data(index)
        make = dict(elements=self.potential.elements, cutoff=self.potential.cutoff)
        prepared = Prepared(
            potential=self.potential,
            train=Dataset(train, **make),  # type: ignore[arg-type]
            validation=Dataset(validation, **make),  # type: ignore[arg-type]
            test=None,
        )
        errors = []
        for number, path in enumerate(self.members(index)):
            start = None
            if index and self.settings.continued:
                start = str(self.members(index - 1)[number])
            config = RunConfig(
                potential=self.potential.to_dict(),
                data=DataSettings.read({"train": str(self.folder / LABELLED)}, where="data"),
                training=self.settings.training,
                start=start,
            )
            member = train_member(
                config, prepared, number, path.parent, resume=True, reporter=self.reporter()
            )
            if member.outcome.reason == "interrupted":
                raise KeyboardInterrupt
            assert member.outcome.predictions is not None
            errors.append(member.outcome.predictions.errors())
        found = {name: float(np.mean([one[name] for one in errors])) for name in errors[0]}
        found["structures"] = len(train) + len(validation)
        _write_json(file, found)
        return found

    def _explore(self, index: int) -> list[Structure]:
        file = self._place(index) / VISITED
        if not file.exists():
            place = self._place(index) / "exploration"
            place.mkdir(exist_ok=True)
            seed = self.settings.training.seed + index
            write(file, list(self.explore(self.members(index), place, seed)), format="extxyz")
        return read(file, need=(), check=False) if file.stat().st_size else []

    def _deviations(self, index: int, visited: Sequence[Structure]) -> np.ndarray:
        file = self._place(index) / DEVIATIONS
        if not file.exists():
            committee = Committee([load(path) for path in self.members(index)])
            found = np.array([_largest(committee, one) for one in visited])
            unfinished = file.with_name("part-" + file.name)
            np.save(unfinished, found)
            unfinished.replace(file)
        return np.load(file)

    def _label(self, index: int, chosen: Sequence[Structure]) -> int:
        file = self._place(index) / LABELLED
        if not file.exists():
            found = list(self.oracle(chosen)) if chosen else []
            check_labels(found, ["energy", "forces"])
            if found:
                write(file, found, format="extxyz")
        return len(read(file, check=False)) if file.exists() else 0

    def _report(self, rounds: Sequence[Round]) -> None:
        rows = [asdict(one) for one in rounds]
        with (self.folder / "report.csv").open("w", newline="") as target:
            writer = csv.DictWriter(target, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        (self.folder / "report.md").write_text(markdown(rounds))


def markdown(rounds: Sequence[Round]) -> str:
    """The rounds as a table."""
    lines = [
        "| round | structures | energy MAE (meV/atom) | forces MAE (meV/Å) | visited | sure | in the band "
        "| above | deviation (eV/Å) | labelled | s |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for one in rounds:
        lines.append(
            f"| {one.index} | {one.structures} | {1e3 * one.energy_mae:.3g} | {1e3 * one.forces_mae:.4g} "
            f"| {one.visited} | {one.accurate} | {one.candidates} | {one.failed} | {one.deviation:.3g} "
            f"| {one.labelled} | {one.seconds:.1f} |"
        )
    return "\n".join(lines) + "\n"


def _round(
    index: int,
    trained: dict[str, float],
    selection: Selection,
    deviations: np.ndarray,
    labelled: int,
    seconds: float,
) -> Round:
    finite = deviations[np.isfinite(deviations)]
    return Round(
        index=index,
        structures=int(trained["structures"]),
        energy_mae=trained["energy_mae"],
        forces_mae=trained["forces_mae"],
        visited=selection.visited,
        accurate=selection.accurate,
        candidates=selection.candidates,
        failed=selection.failed,
        deviation=float(finite.mean()) if len(finite) else float("nan"),
        labelled=labelled,
        seconds=seconds,
    )


def _largest(committee: Committee, structure: Structure) -> float:
    """Infinite where a member cannot say anything: atoms overlap, or its forces are not finite."""
    try:
        return committee.deviation(structure).largest
    except ValueError:
        return float("inf")


def _write_json(path: Path, values: Any) -> None:
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(json.dumps(values, indent=1) + "\n")
    unfinished.replace(path)
