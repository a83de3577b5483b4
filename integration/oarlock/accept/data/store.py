"""Where the files of a data set are looked for: the archive, the user's cache, the network."""

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs
import pooch
import requests
from rich.console import Console
from rich.progress import Progress

from oarlock.accept.data import verify
from oarlock.accept.data.build import build
from oarlock.accept.data.registry import GITHUB, DataFile, Dataset, Registry, Upstream, load

TIMEOUT_S = (5, 30)  # to connect, between two packets

pooch.get_logger().setLevel("WARNING")  # our own progress bar says it


class DataMissing(LookupError):
    """A data set is neither in the archive nor in the cache, and cannot be downloaded."""


class DownloadFailed(Exception):
    """Why a download did not come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Whether a data set can be had here, without any download.

    `present`: all files are here and have the right hash. `where`: their folder (the first one's,
    where the archive holds some and the cache others). `reason`: what is missing, or wrong.
    """

    name: str
    present: bool
    where: Path | None
    bytes: int
    licence: str
    reason: str


def archive_root() -> Path | None:
    """The folder of data sets that $OARLOCK_DATA names."""
    value = os.environ.get("OARLOCK_DATA", "")
    return Path(value).expanduser() if value else None


@dataclass(kw_only=True)
class Store:
    """Looks data sets up in `archive`, then in `cache`, then below the address `base`."""

    registry: Registry = field(default_factory=load)
    archive: Path | None = field(default_factory=archive_root)
    cache: Path = field(default_factory=lambda: platformdirs.user_cache_path("oarlock") / "data")
    base: str = GITHUB
    _unreachable: dict[str, str] = field(default_factory=dict)  # host -> why, asked once

    def path(self, name: str, file: str | None = None, *, download: bool = True) -> Path:
        """The folder of a data set with all its files, or one file of it, verified.

        Args:
            name: "family/name" or an alias.
            file: the name of one file; None for the folder.
            download: fetch what is not here.
        Raises:
            ValueError: no such data set or file.
            DataCorrupt: a file is here, with the wrong contents.
            DataMissing: a file is not here and cannot be fetched; says what to do.
        """
        dataset = self.registry.get(name)
        if file is not None:
            return self._file(dataset, dataset.file(file), download)
        found = [self._file(dataset, one, download) for one in dataset.files]
        folders = {path.parent for path in found}
        if len(folders) > 1:  # some in the archive, the others in the cache: make the cache whole
            whole = self.cache / dataset.name
            for path in found:
                if path.parent != whole:
                    part = whole / f".{path.name}.{os.getpid()}"
                    shutil.copyfile(path, part)
                    os.replace(part, whole / path.name)
            return whole
        return folders.pop()

    def status(self, name: str) -> Status:
        """What of a data set is here. Nothing is downloaded."""
        dataset = self.registry.get(name)
        missing, wrong, where = [], [], None
        for file in dataset.files:
            path = self._find(dataset, file)
            if path is None:
                missing.append(file)
            elif complaint := verify.complaint(path, file):
                wrong.append(complaint)
            else:
                where = where or path.parent
        reason = "; ".join(wrong)
        if missing and not wrong:
            names = ", ".join(file.name for file in missing)
            closed = [file for file in missing if file.build == "none"]
            how = f"only as archive: {closed[0].reason}" if closed else "can be downloaded"
            reason = f"not here: {names} ({how})"
        return Status(
            name=dataset.name,
            present=not reason,
            where=where,
            bytes=dataset.bytes,
            licence=dataset.licence,
            reason=reason,
        )

    def _places(self, dataset: Dataset, file: DataFile) -> list[Path]:
        roots = [self.archive] if self.archive is not None else []
        return [root / dataset.name / file.name for root in [*roots, self.cache]]

    def _find(self, dataset: Dataset, file: DataFile) -> Path | None:
        return next((path for path in self._places(dataset, file) if path.is_file()), None)

    def _file(self, dataset: Dataset, file: DataFile, download: bool) -> Path:
        path = self._find(dataset, file)
        if path is not None:
            verify.check(path, file)
            return path
        if file.build == "none":
            raise self._missing(dataset, file, f"cannot be built from upstream: {file.reason}")
        if not download:
            raise self._missing(dataset, file, "not downloaded, as asked")
        target = self.cache / dataset.name / file.name
        try:
            self._fetch(dataset, file, target)
        except DownloadFailed as error:
            raise self._missing(dataset, file, str(error)) from error
        return target

    def _missing(self, dataset: Dataset, file: DataFile, why: str) -> DataMissing:
        archive = "OARLOCK_DATA is not set" if self.archive is None else f"no {self.archive}"
        if self.archive is not None and self.archive.is_dir():
            archive = f"not in {self.archive}"
        lines = [
            f"data set {dataset.name}: {file.name} is not here ({archive}; not in {self.cache}; {why})",
            f"remedy: set OARLOCK_DATA to a folder that holds {dataset.name}/{file.name}"
            f" ({file.bytes} bytes, sha256 {file.sha256})",
        ]
        if file.upstream:
            more = f" and {len(file.upstream) - 1} more" if len(file.upstream) > 1 else ""
            address = dataset.url(file.upstream[0], self.base)
            lines.append(f"or run again where {address}{more} can be reached")
        else:
            lines.append(f"its source is {dataset.source}")
        return DataMissing("\n".join(lines))

    def _fetch(self, dataset: Dataset, file: DataFile, target: Path) -> None:
        self.cache.mkdir(parents=True, exist_ok=True)
        progress = Progress(console=Console(stderr=True), transient=True)
        with tempfile.TemporaryDirectory(dir=self.cache, prefix=".fetch-") as folder, progress:
            task = progress.add_task(f"{dataset.name}/{file.name}", total=len(file.upstream))
            downloaded = []
            for number, upstream in enumerate(file.upstream):
                downloaded.append(self._download(dataset, upstream, Path(folder), f"{number}"))
                progress.advance(task)
            part = Path(folder) / f"built-{file.name}"
            try:
                build(file, downloaded, part)
            except (ValueError, KeyError) as error:
                raise DownloadFailed(f"what was downloaded is no {file.name}: {error!r}") from error
            if wrong := verify.complaint(part, file):
                raise DownloadFailed(f"what was built from the download is another file: {wrong}")
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, target)

    def _download(self, dataset: Dataset, upstream: Upstream, folder: Path, name: str) -> Path:
        url = dataset.url(upstream, self.base)
        host = urlsplit(url).netloc
        if host in self._unreachable:
            raise DownloadFailed(f"{host} cannot be reached: {self._unreachable[host]}")
        downloader = pooch.HTTPDownloader(timeout=TIMEOUT_S)
        try:
            got = pooch.retrieve(url, upstream.sha256, name, folder, downloader=downloader)
        except (requests.ConnectionError, requests.Timeout) as error:
            self._unreachable[host] = type(error).__name__
            raise DownloadFailed(f"{host} cannot be reached: {type(error).__name__}") from error
        except requests.RequestException as error:
            raise DownloadFailed(f"{url}: {error}") from error
        except ValueError as error:  # pooch: the hash is another
            raise DownloadFailed(f"{url}: {error}") from error
        return Path(got)
