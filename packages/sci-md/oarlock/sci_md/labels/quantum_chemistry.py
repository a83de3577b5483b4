"""Hartree–Fock and density functionals through PySCF: molecules."""

from dataclasses import dataclass, replace
from importlib import metadata
from typing import ClassVar

import numpy as np
from ase.units import Bohr, Hartree

from oarlock.sci_md.labels.method import LabelMethod, molecular_virial
from oarlock.sci_md.structure import Structure


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantumChemistry(LabelMethod):
    """Args:
    functional: of PySCF, such as "PBE", "B3LYP", "wB97X"; "HF" for Hartree–Fock.
    basis: of PySCF, such as "def2-svp".
    charge: e.
    unpaired: unpaired electrons; any makes the calculation unrestricted.
    density_fitting: fit Coulomb integrals (faster, differences of some 0.1 meV an atom).
    grid: PySCF's level, 0 to 9, of the functional's grid.
    convergence: Hartree, of the energy.
    iterations: at most.

    Raises:
        ValueError: a value that cannot be.

    Source: Sun et al. 2020 (10.1063/5.0006074).
    """

    kind: ClassVar[str] = "quantum_chemistry"

    functional: str = "PBE"
    basis: str = "def2-svp"
    charge: int = 0
    unpaired: int = 0
    density_fitting: bool = True
    grid: int = 3
    convergence: float = 1e-9
    iterations: int = 100

    def __post_init__(self) -> None:
        if not self.convergence > 0 or not self.iterations > 0:
            raise ValueError(
                f"convergence={self.convergence} and iterations={self.iterations} have to be positive"
            )
        if not 0 <= self.grid <= 9:
            raise ValueError(f"grid={self.grid} has to be from 0 to 9")
        if self.unpaired < 0:
            raise ValueError(f"unpaired={self.unpaired} has to be 0 or more")

    def version(self) -> str:
        try:
            return f"pyscf {metadata.version('pyscf')}"
        except metadata.PackageNotFoundError as error:
            raise ValueError(
                "pyscf is not installed: pip install 'oarlock-sci-md[labels]'"
            ) from error

    def label(self, structure: Structure) -> Structure:
        self.version()
        where = structure.name or "the structure"
        if structure.pbc.any():
            raise ValueError(
                f"{where} repeats: quantum_chemistry does molecules; cut a cluster (pbc=False) or "
                "use tight_binding"
            )
        field = self._field(structure, where)
        energy = field.kernel()
        if not field.converged:
            raise ValueError(
                f"{self.functional}/{self.basis} of {where} did not converge in "
                f"{self.iterations} iterations"
            )
        gradient = field.nuc_grad_method()
        if self.functional.upper() != "HF":
            gradient.grid_response = True  # or forces are not the energy's slope to 1e-4 eV/Å
        forces = -np.asarray(gradient.kernel()) * (Hartree / Bohr)
        return replace(
            structure,
            energy=float(energy) * Hartree,
            forces=forces,
            virial=molecular_virial(structure, forces),
        )

    def _field(self, structure: Structure, where: str):  # type: ignore[no-untyped-def]
        from pyscf import dft, gto, scf

        try:
            molecule = gto.M(
                atom=list(zip(structure.symbols, structure.positions.tolist(), strict=True)),
                unit="Angstrom",
                basis=self.basis,
                charge=self.charge,
                spin=self.unpaired,
                verbose=0,
            )
        except (RuntimeError, KeyError) as error:
            raise ValueError(f"{self.basis} for {where}: {error}") from error
        if self.functional.upper() == "HF":
            field = scf.UHF(molecule) if self.unpaired else scf.RHF(molecule)
        else:
            field = dft.UKS(molecule) if self.unpaired else dft.RKS(molecule)
            try:
                dft.libxc.parse_xc(self.functional)
            except KeyError as error:
                raise ValueError(f"functional={self.functional!r} is not known to PySCF") from error
            field.xc = self.functional
            field.grids.level = self.grid
        if self.density_fitting:
            field = field.density_fit()
        field.conv_tol = self.convergence
        field.max_cycle = self.iterations
        return field
