"""The elemental sets of mlearn (Zuo et al., J. Phys. Chem. A 124, 731, 2020): Cu, Ge, Li, Mo, Ni, Si.

Energies are in eV and forces in eV/Å. What the files call ``virial_stress`` is in kbar (0.1 GPa) and
positive under compression, W / V here. Its six numbers are not in one order. Measured against the
energies of strained cells (trapezoidal rule over 2 % steps, agreement within 0.1 eV a cell of 54–64
atoms where the wrong order misses by 1–6 eV) and against forces of molecular dynamics (correlation of
off-diagonal elements with those of a fitted pair potential, 0.87–1.0 against 0.3 and below):

    Cu, Mo, Ni     xx yy zz xy xz yz
    Li             xx yy zz xy yz xz
    Ge, Si         xx yy zz xy yz xz in the group Elastic, xx yy zz xy xz yz in AIMD-NVT and Vacancy

In the group Surface the data of Ge, Li and Si do not tell; no virial is read there.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from ase.units import GPa

from oarlock.sci_md.data.sources import Place, read_bytes
from oarlock.sci_md.structure import Array, Structure

KBAR = 0.1 * GPa
XZ_YZ = ((0, 1), (0, 2), (1, 2))
YZ_XZ = ((0, 1), (1, 2), (0, 2))


def _order(element: str, group: str) -> Sequence[tuple[int, int]] | None:
    """Where the last three numbers go; None where that is not known."""
    if element in ("Cu", "Mo", "Ni"):
        return XZ_YZ
    if element not in ("Ge", "Li", "Si") or group == "Surface":
        return None
    return YZ_XZ if element == "Li" or group == "Elastic" else XZ_YZ


def read_mlearn(place: Place) -> list[Structure]:
    """All structures of one JSON file, such as ``mlearn.zip/data/Mo/training.json``.

    Raises:
        ValueError: not JSON (cut short), or not the fields that the sets have.
    """
    if not place.is_file():
        raise ValueError(
            f"{place} is no file: name one set of one element, such as data/Mo/training.json"
        )
    try:
        entries = json.loads(read_bytes(place))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{place} is no whole JSON file ({error}): it may be cut short") from error
    if not isinstance(entries, list):
        raise ValueError(f"{place} holds no list of structures")
    return [_structure(entry, f"{place}:{index}") for index, entry in enumerate(entries)]


def _structure(entry: Mapping[str, Any], name: str) -> Structure:
    try:
        sites = entry["structure"]["sites"]
        cell = np.array(entry["structure"]["lattice"]["matrix"], dtype=np.float64)
        symbols = [site["species"][0]["element"] for site in sites]
        positions = np.array([site["xyz"] for site in sites], dtype=np.float64)
        outputs, group = entry["outputs"], entry["group"]
        energy, forces = outputs["energy"], outputs["forces"]
        pressure = outputs["virial_stress"]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{name} is no structure of mlearn ({error!r})") from error
    unknown = sorted(set(symbols) - set(atomic_numbers))
    if unknown:
        raise ValueError(f"{name} holds {', '.join(unknown)}, which are no elements")
    return Structure(
        numbers=np.array([atomic_numbers[symbol] for symbol in symbols]),
        positions=positions,
        cell=cell,
        pbc=np.ones(3, dtype=bool),
        energy=energy,
        forces=forces,
        virial=_virial(pressure, _order(symbols[0], group), cell),
        name=f"{name} ({group}: {entry.get('description') or 'not described'})",
    )


def _virial(
    pressure: Sequence[float], order: Sequence[tuple[int, int]] | None, cell: Array
) -> Array | None:
    if order is None:
        return None
    tensor = np.diag(np.array(pressure[:3], dtype=np.float64))
    for value, (i, j) in zip(pressure[3:], order, strict=True):
        tensor[i, j] = tensor[j, i] = value
    return tensor * (KBAR * abs(np.linalg.det(cell)))
