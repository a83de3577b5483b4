"""A training run as a YAML file: potential, data, training, and where the results go."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from ase.data import chemical_symbols
from pydantic import Field, field_validator

from oarlock.sci_md import keys
from oarlock.sci_md.data import Dataset, Units, read, split
from oarlock.sci_md.potentials import Potential, PotentialConfig, build, config_from_dict
from oarlock.sci_md.structure import Structure, elements_of
from oarlock.sci_md.training.settings import Settings, TrainingSettings


class Source(Settings):
    """A file or folder of structures; see `data.read`."""

    source: str
    format: str | None = None
    units: Units = Units()
    names: dict[str, str] | None = None
    type_map: list[str] | None = None
    check: bool = True


class DataSettings(Settings):
    """Args:
    train: sources; one may be given as its path.
    validation, test: likewise, or a fraction (0.1) or a count (100) of the training structures.
    seed: of the split.
    """

    train: list[Source] = Field(min_length=1)
    validation: float | int | list[Source] | None = 0.1
    test: float | int | list[Source] | None = None
    seed: int = 0

    @field_validator("train", "validation", "test", mode="before")
    @classmethod
    def _paths(cls, value: Any) -> Any:
        if isinstance(value, str | dict):
            value = [value]
        if isinstance(value, list):
            return [{"source": one} if isinstance(one, str) else one for one in value]
        return value


class RunConfig(Settings):
    """Args:
    potential: the model's name and its configuration; `elements` may be left out, the data have them.
    data: where structures come from.
    training: how.
    output: folder of the results, below that of the configuration file if relative.
    committee: how many potentials are trained, with seeds from `training.seed` on.
    start: a potential file whose parameters to begin with, instead of random ones.
    """

    potential: dict[str, Any]
    data: DataSettings
    training: TrainingSettings
    output: str = "run"
    committee: int = Field(default=1, ge=1)
    start: str | None = None

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Reads YAML (JSON is YAML). Relative sources that are there below the file's folder are that.

        Raises:
            ValueError: no file, no YAML, or fields that are wrong, each named.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"path={str(path)!r} is no file")
        try:
            values = yaml.safe_load(path.read_text())
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is no YAML: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{path} has to hold potential, data and training")
        return cls.read(values, where=str(path)).within(path.parent)

    def within(self, folder: Path) -> Self:
        """With paths from that folder."""

        def placed(part: Any) -> Any:
            if not isinstance(part, list):
                return part
            return [one.model_copy(update={"source": _below(folder, one.source)}) for one in part]

        data = self.data.model_copy(
            update={
                name: placed(getattr(self.data, name)) for name in ("train", "validation", "test")
            }
        )
        update = {"data": data, "output": str(folder / self.output)}
        if self.start is not None:
            update["start"] = _below(folder, self.start)
        return self.model_copy(update=update)

    @property
    def need(self) -> list[str]:
        """Labels whose weights are above 0."""
        return [label for label in keys.LABELS if getattr(self.training.loss, label).used]


def _below(folder: Path, source: str) -> str:
    first = folder / Path(source).parts[0] if source else folder
    return str(folder / source) if first.exists() else source


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prepared:
    """What a run needs, before potentials: configuration with elements, datasets."""

    potential: PotentialConfig
    train: Dataset
    validation: Dataset | None
    test: Dataset | None

    def build(self, seed: int) -> Potential:
        """A potential with parameters of this seed."""
        import paddle

        paddle.seed(seed)
        return build(self.potential)


def prepare(config: RunConfig, *, progress: Callable[[str], None] | None = None) -> Prepared:
    """Reads and splits the data and finds all neighbours.

    Args:
        progress: is called with what is done next.

    Raises:
        ValueError: as `read`, `split` and `Dataset` do; or the data hold elements that `elements` lacks.
    """
    say = progress or (lambda text: None)
    values = dict(config.potential)
    _check_options(values)
    say("reading structures")
    parts = _structures(config)
    if "elements" not in values:
        values["elements"] = list(elements_of([one for part in parts.values() for one in part]))
    potential = config_from_dict(values)
    sets: dict[str, Dataset | None] = {"validation": None, "test": None}
    for name, structures in parts.items():
        if structures:
            say(f"finding neighbours of {len(structures)} structures ({name})")
            sets[name] = Dataset(structures, elements=potential.elements, cutoff=potential.cutoff)
    train = sets["train"]
    assert train is not None
    return Prepared(
        potential=potential, train=train, validation=sets["validation"], test=sets["test"]
    )


def _check_options(values: Mapping[str, Any]) -> None:
    """Raises ValueError for what no data could mend, before they are read."""
    if "elements" in values:
        config_from_dict(values)
    elif isinstance(values.get("sel", []), list):  # as many as there will be elements
        config_from_dict(
            {**values, "elements": chemical_symbols[1:][: len(values.get("sel", [0]))]}
        )


def _structures(config: RunConfig) -> dict[str, list[Structure]]:
    data = config.data

    def read_all(sources: Sequence[Source]) -> list[Structure]:
        return [
            one
            for source in sources
            for one in read(
                source.source,
                format=source.format,
                units=source.units,
                names=source.names,
                type_map=source.type_map,
                need=config.need,
                check=source.check,
            )
        ]

    everything = read_all(data.train)
    parts: dict[str, list[Structure]] = {}
    shares: dict[str, float | int | Sequence[int]] = {}
    for name in ("validation", "test"):
        part = getattr(data, name)
        if isinstance(part, list):
            parts[name] = read_all(part)
        elif part:
            shares[name] = part
    for name, indices in split(len(everything), shares, seed=data.seed).items():
        parts[name] = [everything[index] for index in indices]
    return {name: parts[name] for name in ("train", "validation", "test") if name in parts}
