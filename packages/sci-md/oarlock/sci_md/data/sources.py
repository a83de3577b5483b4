"""Where data lie: files, folders, inside zip archives, or below the folder of data sets."""

import os
import zipfile
from pathlib import Path

import platformdirs

#: A file or a folder, on disk or in a zip archive; the two have the same methods.
Place = Path | zipfile.Path


def locate(source: str | os.PathLike[str]) -> Place:
    """The place that a source names.

    A path may go on inside an archive, as in ``mlearn.zip/data/Mo/training.json``. A relative path
    that is not below the working folder is looked for below ``$OARLOCK_DATA`` and then in the user's
    cache.

    Raises:
        ValueError: there is nothing, or the archive is damaged.
    """
    given = Path(source).expanduser()
    roots = [Path()]
    if not given.is_absolute():
        if archive := os.environ.get("OARLOCK_DATA"):
            roots.append(Path(archive).expanduser())
        roots.append(platformdirs.user_cache_path("oarlock") / "data")
    for root in roots:
        if (place := _open(root / given)) is not None:
            return place
    looked = ", ".join(str(root / given) for root in roots)
    hint = "" if given.is_absolute() else "; OARLOCK_DATA can name the folder of data sets"
    raise ValueError(
        f"source={str(source)!r} is no file, folder or archive: looked for {looked}{hint}"
    )


def _open(path: Path) -> Place | None:
    for outer in (path, *path.parents):
        if outer.suffix == ".zip" and outer.is_file():
            inner = path.relative_to(outer).as_posix()
            place = _archive(outer)
            if inner == ".":
                return place
            for candidate in (place / inner, place / (inner + "/")):
                if candidate.exists():
                    return candidate
            raise ValueError(f"{outer} has no member {inner}")
    return path if path.exists() else None


def _archive(path: Path) -> zipfile.Path:
    try:
        return zipfile.Path(zipfile.ZipFile(path))
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is no whole zip archive ({error}): fetch it again") from error


def read_bytes(place: Place) -> bytes:
    """All of a file; a damaged member of an archive is a ValueError."""
    try:
        return place.read_bytes()
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{place} is damaged ({error}): fetch the archive again") from error
