"""Public data sets by name, checked by hash: from $OARLOCK_DATA, the user's cache or the network.

>>> from oarlock.accept import data
>>> data.path("tinyshakespeare")              # folder llm/tinyshakespeare
>>> data.path("gsm8k", "test.jsonl.gz")       # one file
>>> data.load_text("wikitext2", part="valid")
>>> text, origin = data.text_or_fallback("tinyshakespeare")
"""

from functools import cache
from pathlib import Path

from oarlock.accept.data import corpora, fallback
from oarlock.accept.data.registry import Dataset, Registry, load
from oarlock.accept.data.store import DataMissing, Status, Store, archive_root
from oarlock.accept.data.verify import DataCorrupt

__all__ = [
    "DataCorrupt",
    "DataMissing",
    "Dataset",
    "Registry",
    "Status",
    "Store",
    "describe",
    "documents",
    "load_text",
    "names",
    "origin",
    "path",
    "status",
    "text_or_fallback",
]


@cache
def _store(archive: Path | None) -> Store:
    return Store(archive=archive)


def _default() -> Store:
    return _store(archive_root())


def names() -> list[str]:
    """The names of all data sets, as "family/name"."""
    return load().names()


def describe(name: str) -> Dataset:
    """The registry's entry: source, commit, licence, contents, files with hashes."""
    return load().get(name)


def path(name: str, file: str | None = None, *, download: bool = True) -> Path:
    """The verified folder of a data set, or one file of it; see `Store.path`."""
    return _default().path(name, file, download=download)


def status(name: str) -> Status:
    """What of a data set is here, without any download; see `Status`."""
    return _default().status(name)


def documents(name: str, *, part: str | None = None, download: bool = True) -> list[str]:
    """The documents of a corpus, in a fixed order; see `corpora.PARTS` for the parts."""
    return corpora.documents(_default(), name, part=part, download=download)


def load_text(name: str, *, part: str | None = None, download: bool = True) -> str:
    """A corpus as one text, its documents apart by an empty line."""
    return "\n\n".join(documents(name, part=part, download=download))


def origin(name: str, *, part: str | None = None) -> str:
    """Where a corpus comes from, for the notes of the evidence: data set, repository, commit."""
    dataset = describe(name)
    chosen = f" ({part})" if part else ""
    return f"{dataset.name}{chosen}, {dataset.repository}@{dataset.commit[:12]}"


def text_or_fallback(name: str, *, part: str | None = None) -> tuple[str, str]:
    """A corpus, or text from installed libraries where it cannot be had, and which of the two.

    Returns:
        (text, origin): the origin names data set and commit, or the libraries and versions that
        the substitute comes from and why; it belongs into the notes of the evidence.
    Raises:
        ValueError: no such corpus. DataCorrupt: it is here, with the wrong contents.
    """
    try:
        return load_text(name, part=part), origin(name, part=part)
    except DataMissing as error:
        text, substitute = fallback.library_text()
        first_line = str(error).splitlines()[0]
        return text, f"{substitute}; substitute, because {first_line}"
