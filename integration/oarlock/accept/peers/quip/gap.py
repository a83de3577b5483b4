"""Gaussian approximation potentials fitted to one element by QUIP's gap_fit, served to an experiment.

Runs in the peer's own environment, which has quippy and ASE and nothing of ours.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write
from quippy.potential import Potential


def _atoms(path):
    with np.load(path) as arrays:
        first = np.concatenate([[0], np.cumsum(arrays["atoms"])])
        for index, (begin, end) in enumerate(zip(first[:-1], first[1:])):
            part = slice(begin, end)
            atoms = Atoms(
                numbers=arrays["numbers"][part],
                positions=arrays["positions"][part],
                cell=arrays["cells"][index],
                pbc=True,
            )
            yield atoms, float(arrays["energies"][index]), arrays["forces"][part]


def train(*, train, test, folder, sparse, zeta, force_sigma, threads):
    """SOAP with l = n = 8 within 5 Å, as Zuo et al. (2020) have it.

    Args:
        train, test: .npz files.
        sparse: representative atoms.
        zeta: power of the kernel.
        force_sigma: how uncertain the forces are, eV/Å; energies are 1 meV/atom.
    """
    labelled = []
    for atoms, energy, forces in _atoms(train):
        atoms.info["energy"], atoms.arrays["force"] = energy, forces
        labelled.append(atoms)
    file = Path(folder) / "train.xyz"
    write(file, labelled, format="extxyz")
    soap = (
        f"soap l_max=8 n_max=8 atom_sigma=0.5 zeta={zeta} cutoff=5.0 cutoff_transition_width=1.0 n_sparse={sparse}"
        " delta=1.0 covariance_type=dot_product sparse_method=cur_points"
    )
    command = [
        Path(sys.executable).with_name("gap_fit"),
        f"at_file={file}",
        "energy_parameter_name=energy",
    ]
    command += ["force_parameter_name=force", "virial_parameter_name=NONE", "e0_method=average"]
    command += [
        f"default_sigma={{0.001 {force_sigma} 0.05 0.0}}",
        "do_copy_at_file=F",
        "sparse_separate_file=F",
    ]
    command += [f"gp_file={folder}/gap.xml", f"gap={{{soap}}}"]
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": str(threads)})  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    seconds = time.perf_counter() - begin
    potential = Potential(param_filename=f"{folder}/gap.xml")
    energies, components = [], []
    for atoms, energy, forces in _atoms(test):
        atoms.calc = potential
        energies.append(abs(atoms.get_potential_energy() - energy) / len(atoms))
        components.append(np.abs(atoms.get_forces() - forces).ravel())
    return {
        "seconds": seconds,
        "energy": 1e3 * float(np.mean(energies)),
        "forces": 1e3 * float(np.concatenate(components).mean()),
    }
