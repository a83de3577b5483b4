"""A file is what the registry says it is, or it is refused."""

import gzip
import hashlib
import lzma
import zipfile
import zlib
from pathlib import Path

from oarlock.accept.data.registry import DataFile

_checked: dict[tuple[str, int, int, str], str] = {}  # (path, size, mtime, entry) -> complaint or ""


class DataCorrupt(ValueError):
    """A file of a data set has other contents than the registry says."""


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_sha256(path: Path) -> str | None:
    """The hash of what a compressed file holds, whatever compressor wrote it.

    `.gz`, `.xz`: of the bytes inside. `.zip`: of the lines "member sha256", sorted by member.
    None where the file cannot be decompressed or has another ending.
    """
    try:
        if path.suffix in (".gz", ".xz"):
            opened = gzip.open(path) if path.suffix == ".gz" else lzma.open(path)
            with opened as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                members = sorted(n for n in archive.namelist() if not n.endswith("/"))
                lines = [
                    f"{name} {hashlib.sha256(archive.read(name)).hexdigest()}\n" for name in members
                ]
            return hashlib.sha256("".join(lines).encode()).hexdigest()
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile, zlib.error):
        return None
    return None


def complaint(path: Path, file: DataFile) -> str:
    """What is wrong with the file at `path`; "" if it is the one the registry describes.

    Hashed once a process: again only when its size or time of change is another.
    """
    stat = path.stat()
    key = (str(path), stat.st_size, stat.st_mtime_ns, file.sha256)
    if key not in _checked:
        _checked[key] = _complaint(path, file, stat.st_size)
    return _checked[key]


def _complaint(path: Path, file: DataFile, size: int) -> str:
    found = file_sha256(path)
    if found == file.sha256:
        return ""
    if file.content_sha256 is not None and content_sha256(path) == file.content_sha256:
        return ""
    shorter = f", {size} bytes instead of {file.bytes}" if size != file.bytes else ""
    return f"{path}: expected sha256 {file.sha256}, found {found}{shorter}"


def check(path: Path, file: DataFile) -> None:
    """Raises DataCorrupt, naming file, both hashes and the remedy, unless the file is right."""
    wrong = complaint(path, file)
    if wrong:
        raise DataCorrupt(f"{wrong}\nremedy: delete this file, or put the right one in its place")
