"""Records in JSON, plain or compressed, and members of archives."""

import gzip
import json
import lzma
import zipfile
from pathlib import Path
from typing import Any


def text(path: Path, member: str | None = None) -> str:
    """Content of a file: ``.gz`` and ``.xz`` are unpacked, ``member`` is one of a ``.zip``."""
    if member is not None:
        with zipfile.ZipFile(path) as archive:
            return archive.read(member).decode("utf-8")
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes()).decode("utf-8")
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes()).decode("utf-8")
    return path.read_text(encoding="utf-8")


def lines(path: Path, member: str | None = None) -> list[dict[str, Any]]:
    """One JSON record a line."""
    return [json.loads(line) for line in text(path, member).split("\n") if line.strip()]
