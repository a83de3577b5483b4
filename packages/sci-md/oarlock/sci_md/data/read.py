"""One way in and out for data of all formats."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from oarlock.sci_md import keys
from oarlock.sci_md.data.ase_database import read_ase_database
from oarlock.sci_md.data.deepmd import read_deepmd, write_deepmd
from oarlock.sci_md.data.extxyz import read_extxyz, write_extxyz
from oarlock.sci_md.data.mlearn import read_mlearn
from oarlock.sci_md.data.scales import Units, check_scales
from oarlock.sci_md.data.sources import Place, locate
from oarlock.sci_md.structure import Structure

FORMATS = ("extxyz", "deepmd", "ase", "mlearn")


def read(
    source: str | os.PathLike[str],
    *,
    format: str | None = None,
    units: Units = Units(),  # noqa: B008
    names: Mapping[str, str] | None = None,
    type_map: Sequence[str] | None = None,
    need: Sequence[str] = (keys.ENERGY, keys.FORCES),
    check: bool = True,
) -> list[Structure]:
    """Structures with their labels, in eV and Å.

    Args:
        source: a file or folder, also inside a zip archive (see `sources.locate`).
        format: "extxyz", "deepmd" (npy, raw, mixed types), "ase" (databases) or "mlearn"; by the name
            of the source if not given.
        units: what the source is in; mlearn's files are always in eV and Å.
        names: of extxyz files and ASE databases, which entry is which label.
        type_map: of DeePMD systems without ``type_map.raw``, the symbol of each type.
        need: labels that every structure has to have.
        check: refuse numbers that cannot be in the declared units (`scales.check_scales`).

    Raises:
        ValueError: nothing there, a damaged file, numbers that are not finite, labels that are
            missing, units that cannot be.
    """
    if format is not None and format not in FORMATS:
        raise ValueError(f"format={format!r} is not known: there are {', '.join(FORMATS)}")
    unknown = sorted(set(need) - set(keys.LABELS))
    if unknown:
        raise ValueError(f"need={tuple(need)}: labels are {', '.join(keys.LABELS)}")
    place = locate(source)
    chosen = format or _guess(place)
    if chosen == "extxyz":
        structures = read_extxyz(place, units=units, names=names)
    elif chosen == "ase":
        structures = read_ase_database(place, units=units, names=names)
    elif chosen == "deepmd":
        structures = read_deepmd(place, units=units, type_map=type_map)
    else:
        structures = read_mlearn(place)
    check_labels(structures, need)
    if check:
        check_scales(structures)
    return structures


def write(path: str | Path, structures: Sequence[Structure], *, format: str | None = None) -> None:
    """Writes the file or folder whole or not at all.

    Args:
        format: "extxyz" or "deepmd" (a folder that is not there yet); by the name if not given.
    """
    if format is None:
        format = "extxyz" if Path(path).suffix in (".xyz", ".extxyz") else "deepmd"
    if format == "extxyz":
        write_extxyz(path, structures)
    elif format == "deepmd":
        write_deepmd(path, structures)
    else:
        raise ValueError(f"format={format!r} cannot be written: use 'extxyz' or 'deepmd'")


def check_labels(structures: Sequence[Structure], need: Sequence[str]) -> None:
    """Raises ValueError, naming the first structure without one of the labels."""
    for label in need:
        without = [one for one in structures if getattr(one, label) is None]
        if without:
            raise ValueError(
                f"{len(without)} of {len(structures)} structures have no {label}, first "
                f"{without[0].name or 'the first'}: name the entry it is in, or leave the label out "
                "of what is needed"
            )


def _guess(place: Place) -> str:
    if place.is_dir():
        return "deepmd"
    suffix = Path(place.name).suffix
    if suffix in (".xyz", ".extxyz"):
        return "extxyz"
    if suffix == ".db":
        return "ase"
    if suffix == ".json" and Path(place.name).stem in ("training", "test"):
        return "mlearn"
    raise ValueError(f"{place}: give format, one of {', '.join(FORMATS)}")
