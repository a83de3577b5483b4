"""ASE's databases (.db, .json)."""

from collections.abc import Mapping

import ase.db

from oarlock.sci_md.data.extxyz import from_atoms
from oarlock.sci_md.data.scales import Units
from oarlock.sci_md.data.sources import Place
from oarlock.sci_md.structure import Structure


def read_ase_database(
    place: Place, *, units: Units, names: Mapping[str, str] | None = None
) -> list[Structure]:
    """All rows; labels may also be in a row's key-value pairs or data."""
    try:
        with ase.db.connect(str(place)) as database:
            rows = list(database.select())
    except Exception as error:  # sqlite3, JSON and ASE raise what they like
        raise ValueError(f"{place} is no whole ASE database ({error})") from error
    if not rows:
        raise ValueError(f"{place} holds no rows")
    structures = []
    for row in rows:
        atoms = row.toatoms()
        atoms.info.update(row.key_value_pairs)
        atoms.info.update(row.data)
        structures.append(from_atoms(atoms, units=units, names=names, name=f"{place}:{row.id}"))
    return structures
