"""Extended XYZ files, through ASE, with labels under the names that programs give them."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import ase
import ase.io
import numpy as np

from oarlock.sci_md import keys
from oarlock.sci_md.data.scales import Units
from oarlock.sci_md.data.sources import Place, read_bytes
from oarlock.sci_md.structure import Array, Structure

#: Where labels are looked for, in this order, if no names are given.
NAMES: Mapping[str, tuple[str, ...]] = {
    keys.ENERGY: (
        "REF_energy",
        "ref_energy",
        "dft_energy",
        "DFT_energy",
        "energy",
        "Energy",
        "total_energy",
        "free_energy",
    ),
    keys.FORCES: (
        "REF_forces",
        "ref_forces",
        "dft_forces",
        "DFT_forces",
        "forces",
        "force",
        "Forces",
    ),
    keys.VIRIAL: ("REF_virial", "ref_virial", "dft_virial", "DFT_virial", "virial", "virials"),
    keys.STRESS: ("REF_stress", "ref_stress", "dft_stress", "DFT_stress", "stress"),
}


def read_extxyz(
    place: Place, *, units: Units, names: Mapping[str, str] | None = None
) -> list[Structure]:
    """All frames.

    Args:
        names: which entry of the file is which label ("energy", "forces", "virial", "stress").

    Raises:
        ValueError: the file is cut short or not extended XYZ, or has no entry of a given name.
    """
    try:
        text = read_bytes(place).decode()
        if text and not text.endswith("\n"):
            raise ValueError("its last line has no end")
        frames = ase.io.read(io.StringIO(text), index=":", format="extxyz")
    except (OSError, ValueError, KeyError, IndexError, StopIteration, UnicodeDecodeError) as error:
        raise ValueError(
            f"{place} is no whole extended XYZ file ({error}): it may be cut short"
        ) from error
    if not frames:
        raise ValueError(f"{place} holds no frames")
    return [
        from_atoms(atoms, units=units, names=names, name=f"{place}:{index}")
        for index, atoms in enumerate(frames)
    ]


def from_atoms(
    atoms: ase.Atoms, *, units: Units, names: Mapping[str, str] | None = None, name: str = ""
) -> Structure:
    """A structure from ASE's atoms, labels from the results of their calculator, info or arrays."""
    found = {key: _find(atoms, key, names, name) for key in NAMES}
    energy, virial, stress = found[keys.ENERGY], found[keys.VIRIAL], found[keys.STRESS]
    box = np.abs(np.linalg.det(atoms.cell.array))
    tensor: Array | None = None
    if virial is not None:
        tensor = square(virial, name)
    elif stress is not None and atoms.pbc.all():
        tensor = -square(stress, name) * box
    forces = found[keys.FORCES]
    return Structure(
        numbers=atoms.numbers,
        positions=atoms.positions * units.angstrom,
        cell=atoms.cell.array * units.angstrom,
        pbc=atoms.pbc,
        energy=None if energy is None else float(energy) * units.eV,
        forces=None if forces is None else forces * (units.eV / units.angstrom),
        virial=None if tensor is None else tensor * units.eV,
        name=name,
    )


def write_extxyz(path: str | Path, structures: Sequence[Structure]) -> None:
    """One file, whole or not at all; positions and forces with eight decimals, as ASE writes them."""
    path = Path(path)
    unfinished = path.with_name(path.name + ".part")
    ase.io.write(unfinished, list(_to_atoms(structures)), format="extxyz")
    unfinished.replace(path)


def _to_atoms(structures: Sequence[Structure]) -> Iterable[ase.Atoms]:
    for one in structures:
        atoms = one.to_ase()
        if one.name:
            atoms.info["name"] = one.name
        yield atoms


def _find(atoms: ase.Atoms, key: str, names: Mapping[str, str] | None, name: str):  # type: ignore[no-untyped-def]
    results = {} if atoms.calc is None else atoms.calc.results
    holders: tuple[Mapping[str, object], ...] = (atoms.info, atoms.arrays, results)
    if names is not None and key in names:
        for holder in holders:
            if names[key] in holder:
                return holder[names[key]]
        there = sorted({entry for holder in holders for entry in holder})
        raise ValueError(f"{name} has no {names[key]!r} for {key}: it has {', '.join(there)}")
    for entry in NAMES[key]:
        for holder in holders:
            if holder.get(entry) is not None:
                return holder[entry]
    return None


def square(values: object, name: str) -> Array:
    """A tensor [3, 3] from nine numbers or ASE's six (xx yy zz yz xz xy)."""
    array = np.asarray(values, dtype=np.float64)
    if array.shape == (6,):
        xx, yy, zz, yz, xz, xy = array
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    if array.size != 9:
        raise ValueError(f"{name}: a virial or stress of {array.size} numbers; give nine or six")
    return array.reshape(3, 3)
