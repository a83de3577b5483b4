"""Builds the files of a data set from downloaded upstream files. Same input, same contents."""

import gzip
import json
import lzma
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from oarlock.accept.data.registry import DataFile

#: Upstream files as (name, downloaded path), in the order of the registry -> the file at `target`.
Build = Callable[[list[tuple[str, Path]], Path], None]


def copy(sources: list[tuple[str, Path]], target: Path) -> None:
    """The upstream file as it is."""
    [(_, source)] = sources
    shutil.copyfile(source, target)


def gzip_file(sources: list[tuple[str, Path]], target: Path) -> None:
    """The upstream file, compressed, without name or time."""
    [(_, source)] = sources
    with target.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as out:
        with source.open("rb") as file:
            shutil.copyfileobj(file, out)


def zip_files(sources: list[tuple[str, Path]], target: Path) -> None:
    """The upstream files as members of one archive, all of one date."""
    with zipfile.ZipFile(target, "w") as archive:
        for member, source in sources:
            info = zipfile.ZipInfo(member, date_time=(2020, 1, 1, 0, 0, 0))
            archive.writestr(info, source.read_bytes(), zipfile.ZIP_DEFLATED, 9)


def poems(sources: list[tuple[str, Path]], target: Path) -> None:
    """One JSON record a poem: k(ind), a(uthor), t(itle or tune), p(aragraphs, joined)."""
    records = []
    for name, source in sources:
        kind, title = ("tang", "title") if "poet.tang" in name else ("songci", "rhythmic")
        for poem in json.loads(source.read_text(encoding="utf-8")):
            record = {
                "k": kind,
                "a": poem["author"],
                "t": poem[title],
                "p": "".join(poem["paragraphs"]),
            }
            records.append(json.dumps(record, ensure_ascii=False))
    data = "\n".join(records).encode()
    target.write_bytes(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))


BUILDS: dict[str, Build] = {"copy": copy, "gzip": gzip_file, "zip": zip_files, "poems": poems}


def build(file: DataFile, downloaded: list[Path], target: Path) -> None:
    """Writes `file` to `target` from its upstream files, given in the registry's order."""
    names = [upstream.member or upstream.path for upstream in file.upstream]
    BUILDS[file.build](list(zip(names, downloaded, strict=True)), target)
