"""What is known of each data set: where it comes from, how it is built, what it must hash to.

The entries are TOML files, one a family, in `sets/`. A file is either an archive that is
already built (its `sha256`), or is built from upstream files at a fixed commit by one of the
functions of `build.py`. Compressors differ between versions, so what is built by us is accepted
by `content_sha256`, the hash of what is inside (see `verify.content_sha256`).
"""

import difflib
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Annotated, Literal, Self
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, model_validator

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Text = Annotated[str, Field(min_length=1)]

#: Where GitHub serves a file of a repository at a commit.
GITHUB = "https://raw.githubusercontent.com"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Upstream(_Entry):
    """A file of a public repository."""

    path: Text
    sha256: Sha256 | None = None
    member: str | None = None  #: its name inside the archive that is built, if another
    repository: str | None = None  #: "owner/name", where not the data set's own
    commit: Commit | None = None


class DataFile(_Entry):
    """A file of a data set, and how it comes about."""

    name: Text
    bytes: Annotated[int, Field(gt=0)]
    sha256: Sha256
    content_sha256: Sha256 | None = None
    holds: str = ""  #: what is inside: shapes, records, members
    build: Literal["copy", "gzip", "zip", "poems", "none"]
    reason: str = ""  #: why it cannot be built ("none")
    upstream: tuple[Upstream, ...] = ()

    @model_validator(mode="after")
    def _build_fits(self) -> Self:
        if self.build == "none" and (self.upstream or not self.reason):
            raise ValueError(f"{self.name}: build 'none' needs a reason and no upstream")
        if self.build in ("copy", "gzip") and len(self.upstream) != 1:
            raise ValueError(f"{self.name}: build {self.build!r} takes one upstream file")
        if self.build in ("zip", "poems") and not self.upstream:
            raise ValueError(f"{self.name}: build {self.build!r} needs upstream files")
        if self.build in ("gzip", "zip", "poems") and self.content_sha256 is None:
            raise ValueError(f"{self.name}: build {self.build!r} needs content_sha256")
        return self


class Dataset(_Entry):
    """A folder of files: an archive's name is "family/name"."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+/[A-Za-z0-9_]+$")]
    aliases: tuple[str, ...] = ()
    repository: Annotated[str, Field(pattern=r"^[^/]+/[^/]+$")]
    commit: Commit
    licence: Text
    content: Text
    files: Annotated[tuple[DataFile, ...], Field(alias="file", min_length=1)]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def source(self) -> str:
        return f"https://github.com/{self.repository}/tree/{self.commit}"

    def file(self, name: str) -> DataFile:
        """The file of this name; ValueError names the files there are."""
        for file in self.files:
            if file.name == name:
                return file
        known = ", ".join(file.name for file in self.files)
        raise ValueError(f"data set {self.name} has no file {name!r}; it has: {known}")

    def url(self, upstream: Upstream, base: str = GITHUB) -> str:
        repository = upstream.repository or self.repository
        commit = upstream.commit or self.commit
        return f"{base}/{repository}/{commit}/{quote(upstream.path)}"


class Registry:
    """The data sets by name and by alias."""

    def __init__(self, datasets: Iterable[Dataset]):
        self.datasets = {dataset.name: dataset for dataset in datasets}
        self._by_name = dict(self.datasets)
        for dataset in self.datasets.values():
            for alias in dataset.aliases:
                if alias in self._by_name:
                    other = self._by_name[alias].name
                    raise ValueError(f"alias {alias!r} names both {other} and {dataset.name}")
                self._by_name[alias] = dataset

    def names(self) -> list[str]:
        return sorted(self.datasets)

    def get(self, name: str) -> Dataset:
        """The data set of a name or alias; ValueError proposes near names."""
        if name in self._by_name:
            return self._by_name[name]
        near = difflib.get_close_matches(name, self._by_name, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(self.names())}"
        raise ValueError(f"no data set {name!r}; {hint}")


@cache
def load() -> Registry:
    """The registry of this package."""
    folder = files("oarlock.accept.data") / "sets"
    datasets = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            table = tomllib.loads(entry.read_text(encoding="utf-8"))
            datasets += [Dataset.model_validate(one) for one in table["dataset"]]
    return Registry(datasets)
