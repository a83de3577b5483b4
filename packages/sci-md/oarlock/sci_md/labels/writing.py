"""Labelled structures as an extended XYZ file that other programs read too."""

from collections.abc import Sequence
from pathlib import Path

import ase.io

from oarlock.sci_md.structure import Structure


def write_extxyz(structures: Sequence[Structure], path: str | Path) -> None:
    """Energies in eV, forces in eV/Å, ``virial`` (−∂E/∂ε) in eV; whole or not at all.

    Names go into ``name``.
    """
    if not structures:
        raise ValueError("structures is empty: nothing to write")
    path = Path(path)
    frames = []
    for structure in structures:
        atoms = structure.to_ase()
        if structure.virial is not None:
            atoms.info["virial"] = structure.virial
        if structure.name:
            atoms.info["name"] = structure.name
        frames.append(atoms)
    unfinished = path.with_name(path.name + ".part")
    ase.io.write(unfinished, frames, format="extxyz")
    unfinished.replace(path)
