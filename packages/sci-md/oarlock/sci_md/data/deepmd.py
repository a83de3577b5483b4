"""DeePMD-kit's systems: folders of NumPy arrays (``set.*/coord.npy``) or texts (``coord.raw``).

Units are eV and Å unless declared; the virial is −∂E/∂ε, as here.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from oarlock.sci_md.data.scales import Units
from oarlock.sci_md.data.sources import Place, read_bytes
from oarlock.sci_md.structure import Array, Structure, elements_of

LABELS = {"energy": 1, "force": 3, "virial": 9}


def read_deepmd(
    place: Place, *, units: Units, type_map: Sequence[str] | None = None
) -> list[Structure]:
    """All frames of a system, or of all systems below a folder or in an archive.

    Args:
        type_map: the symbol of each type, for systems without ``type_map.raw``.

    Raises:
        ValueError: no system, a file that is missing, cut short or of another length, an unknown type.
    """
    systems = sorted(_systems(place), key=str)
    if not systems:
        other = ", ".join(sorted(map(str, _other(place)))[:4])
        raise ValueError(
            f"{place} holds no DeePMD system: a folder with type.raw"
            + (f"; name one of its files, such as {other}" if other else "")
        )
    return [frame for system in systems for frame in _read_system(system, units, type_map)]


def _systems(place: Place) -> list[Place]:
    if (place / "type.raw").is_file():
        return [place]
    if not place.is_dir():
        return []
    return [found for inner in place.iterdir() if inner.is_dir() for found in _systems(inner)]


def _other(place: Place) -> Iterator[Place]:
    """Files of other formats."""
    for inner in place.iterdir() if place.is_dir() else ():
        if inner.is_dir():
            yield from _other(inner)
        elif inner.name.endswith((".xyz", ".extxyz", ".db", "training.json", "test.json")):
            yield inner


def _read_system(system: Place, units: Units, type_map: Sequence[str] | None) -> list[Structure]:
    symbols = _type_map(system, type_map)
    types = np.array(_words(system / "type.raw"), dtype=np.int64)
    sets = sorted(
        (inner for inner in system.iterdir() if inner.is_dir() and inner.name.startswith("set.")),
        key=lambda inner: inner.name,
    )
    periodic = not (system / "nopbc").exists()
    if sets:
        return [
            frame for one in sets for frame in _frames(one, ".npy", types, symbols, periodic, units)
        ]
    return _frames(system, ".raw", types, symbols, periodic, units)


def _type_map(system: Place, type_map: Sequence[str] | None) -> list[str]:
    if (system / "type_map.raw").is_file():
        symbols = _words(system / "type_map.raw")
    elif type_map is not None:
        symbols = list(type_map)
    else:
        raise ValueError(
            f"{system} has no type_map.raw: give type_map, the symbol of each type in order"
        )
    unknown = [symbol for symbol in symbols if symbol not in atomic_numbers]
    if unknown:
        raise ValueError(
            f"{system}: {', '.join(unknown)} in the type map are no elements: give type_map"
        )
    return symbols


def _frames(
    folder: Place,
    suffix: str,
    types: NDArray[np.int64],
    symbols: Sequence[str],
    periodic: bool,
    units: Units,
) -> list[Structure]:
    atoms = len(types)
    coord = _array(folder / f"coord{suffix}")
    if coord.size % (3 * atoms):
        raise ValueError(f"{folder}/coord{suffix} does not hold frames of {atoms} atoms")
    count = coord.size // (3 * atoms)
    coord = coord.reshape(count, atoms, 3) * units.angstrom
    box = np.zeros((count, 3, 3))
    if periodic:
        box = _fit(_array(folder / f"box{suffix}"), count, 9, folder / f"box{suffix}")
        box = box.reshape(count, 3, 3) * units.angstrom
    labels: dict[str, Array] = {}
    for label, width in LABELS.items():
        file = folder / f"{label}{suffix}"
        if file.is_file():
            labels[label] = _fit(_array(file), count, width * (atoms if width == 3 else 1), file)
    kinds = np.broadcast_to(types, (count, atoms))
    if (folder / f"real_atom_types{suffix}").is_file():  # one system of many compositions
        file = folder / f"real_atom_types{suffix}"
        kinds = _fit(_array(file), count, atoms, file).astype(np.int64)
    if kinds.size and not 0 <= kinds.min() <= kinds.max() < len(symbols):
        raise ValueError(
            f"{folder}: type {kinds.max()} for a type map of {len(symbols)} ({', '.join(symbols)})"
        )
    numbers = np.array([atomic_numbers[symbol] for symbol in symbols])[kinds]
    return [
        Structure(
            numbers=numbers[frame],
            positions=coord[frame],
            cell=box[frame],
            pbc=[periodic] * 3,  # type: ignore[arg-type]
            energy=float(labels["energy"][frame, 0]) * units.eV if "energy" in labels else None,
            forces=(
                labels["force"][frame].reshape(atoms, 3) * (units.eV / units.angstrom)
                if "force" in labels
                else None
            ),
            virial=(
                labels["virial"][frame].reshape(3, 3) * units.eV if "virial" in labels else None
            ),
            name=f"{folder}:{frame}",
        )
        for frame in range(count)
    ]


def write_deepmd(folder: str | Path, structures: Sequence[Structure]) -> None:
    """A system for each sequence of elements, named by its formula, in ``set.000`` (float64).

    Raises:
        ValueError: the folder is there, or structures of a system differ in labels or in what repeats.
    """
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"{folder} is there already: choose another, or delete it")
    if not structures:
        raise ValueError("structures is empty")
    groups: dict[bytes, list[Structure]] = {}
    for one in structures:
        groups.setdefault(one.numbers.tobytes(), []).append(one)
    unfinished = folder.with_name(folder.name + ".part")
    elements = elements_of(structures)
    used: dict[str, int] = {}
    for members in groups.values():
        formula = members[0].to_ase().get_chemical_formula()
        used[formula] = used.get(formula, 0) + 1
        name = formula if used[formula] == 1 else f"{formula}.{used[formula]}"
        _write_system(unfinished / name, members, elements)
    unfinished.rename(folder)


def _write_system(folder: Path, members: list[Structure], elements: Sequence[str]) -> None:
    first = members[0]
    arrays: dict[str, list[Any]] = {
        "coord": [one.positions for one in members],
        "energy": [one.energy for one in members],
        "force": [one.forces for one in members],
        "virial": [one.virial for one in members],
    }
    for one in members:
        if one.pbc.all() != first.pbc.all() or one.pbc.any() != one.pbc.all():
            raise ValueError(
                f"{one.name or 'a structure'} repeats in other directions than DeePMD systems can: "
                "in all or in none, the same for all of one composition"
            )
    for label, values in arrays.items():
        missing = sum(value is None for value in values)
        if 0 < missing < len(values):
            raise ValueError(
                f"{missing} of {len(values)} structures of {folder.name} have no {label}: write "
                "those with and those without into different folders"
            )
    target = folder / "set.000"
    target.mkdir(parents=True)
    for label, values in arrays.items():
        if values[0] is not None:
            np.save(target / f"{label}.npy", np.array(values).reshape(len(members), -1))
    if first.pbc.all():
        np.save(target / "box.npy", np.array([one.cell for one in members]).reshape(-1, 9))
    else:
        (folder / "nopbc").touch()
    types = [elements.index(symbol) for symbol in first.symbols]
    (folder / "type.raw").write_text("\n".join(map(str, types)) + "\n")
    (folder / "type_map.raw").write_text("\n".join(elements) + "\n")


def _array(file: Place) -> Array:
    if not file.is_file():
        raise ValueError(f"{file} is missing")
    try:
        if file.name.endswith(".npy"):
            values = np.load(io.BytesIO(read_bytes(file)), allow_pickle=False)
        else:
            values = np.loadtxt(io.BytesIO(read_bytes(file)), ndmin=2)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{file} is damaged or cut short ({error})") from error
    return np.asarray(values, dtype=np.float64)


def _fit(values: Array, count: int, width: int, file: Place) -> Array:
    if values.size != count * width:
        raise ValueError(
            f"{file} holds {values.size} numbers, not {count} frames of {width}: it belongs to other "
            "coordinates, or one of the two is cut short"
        )
    return values.reshape(count, width)


def _words(file: Place) -> list[str]:
    return read_bytes(file).decode().split()
