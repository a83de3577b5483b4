"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class WriteFailed(OSError):
    """A file could not be written, for example because the disk is full; nothing was left behind."""


def target(path: str | os.PathLike) -> Path:
    """The path as given; ValueError if nothing can be written there by its place alone."""
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(
            f"path {str(path)!r}: there is no folder {str(path.parent)!r}; make it first."
        )
    if path.is_dir():
        raise ValueError(f"path {str(path)!r} is a folder; name a file in it.")
    return path


@contextmanager
def whole(*paths: str | os.PathLike) -> Iterator[list[Path]]:
    """Names to write to instead of ``paths``; the files get their own names when all are complete.

    What is written lies beside its place until then. An exception removes it, and what was at
    ``paths`` before is still there.

    Raises:
        ValueError: a path lies in no folder, or is one.
        WriteFailed: the operating system refused; its reason is in ``errno``.
    """
    final = [target(path) for path in paths]
    parts = [path.with_name(f".{path.name}.{os.getpid()}.part") for path in final]
    try:
        yield parts
        for part in parts:
            with part.open("rb") as file:
                os.fsync(file.fileno())
        for part, path in zip(parts, final):
            part.replace(path)
    except OSError as error:
        names = ", ".join(map(str, final))
        # NumPy counts the bytes that a full disk took, and names no reason
        reason = error.strerror or f"is the disk full? {error}"
        raise WriteFailed(
            error.errno, f"could not write {names}: {reason}; nothing was left there"
        ) from error
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
