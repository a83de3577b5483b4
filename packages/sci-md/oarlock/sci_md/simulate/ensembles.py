"""What is held constant in dynamics, and by which of ASE's integrators.

Where the total momentum is conserved and zero, the temperature belongs to 3 N − 3 degrees of freedom:
thermostats are told so (ASE counts 3 N, which is 3 % wrong for 32 atoms).
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.bussi import Bussi as AseBussi
from ase.md.langevin import Langevin as AseLangevin
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT, NoseHooverChainNVT
from ase.md.verlet import VelocityVerlet

from oarlock.sci_md.units import FEMTOSECOND, GIGAPASCAL


@dataclass(frozen=True, kw_only=True, slots=True)
class Ensemble:
    """Base. `state` names the integrator's own variables, which a resumed run needs."""

    kind: ClassVar[str] = ""
    variables: ClassVar[tuple[str, ...]] = ()
    keeps_momentum: ClassVar[bool] = (
        True  #: so that 3 N − 3 degrees of freedom have the temperature
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and field.name != "pressure" and not value > 0:
                raise ValueError(f"{field.name}={value} has to be positive")

    def settings(self) -> dict[str, Any]:
        return {"kind": self.kind, **dataclasses.asdict(self)}

    def degrees(self, atoms: Atoms) -> int:
        """Of freedom, that share the kinetic energy."""
        held = self.keeps_momentum and not atoms.constraints
        return int(atoms.get_number_of_degrees_of_freedom()) - 3 * held

    def dynamics(
        self, atoms: Atoms, timestep: float, random: np.random.Generator
    ) -> MolecularDynamics:
        """ASE's integrator; timestep in fs."""
        raise NotImplementedError

    def conserved(self, dynamics: MolecularDynamics) -> float:
        """The energy-like quantity (eV) that exact integration would hold constant; NaN for none."""
        return float("nan")

    def state(self, dynamics: MolecularDynamics) -> dict[str, np.ndarray]:
        return {name: np.array(_get(dynamics, name)) for name in self.variables}

    def restore(self, dynamics: MolecularDynamics, state: dict[str, np.ndarray]) -> None:
        for name in self.variables:
            owner, last = _owner(dynamics, name)
            values = np.array(state[name])
            setattr(owner, last, values if values.ndim else values.item())


@dataclass(frozen=True, kw_only=True, slots=True)
class NVE(Ensemble):
    """Constant energy: velocity Verlet."""

    kind: ClassVar[str] = "nve"

    def dynamics(
        self, atoms: Atoms, timestep: float, random: np.random.Generator
    ) -> MolecularDynamics:
        return VelocityVerlet(atoms, timestep * FEMTOSECOND)

    def conserved(self, dynamics: MolecularDynamics) -> float:
        return float(dynamics.atoms.get_total_energy())


@dataclass(frozen=True, kw_only=True, slots=True)
class Langevin(Ensemble):
    """Constant temperature by friction and noise on every atom; robust, disturbs dynamics.

    The centre of mass is not held: it diffuses, as the canonical ensemble wants.

    Args:
        temperature: K.
        friction: 1/fs; 0.001 … 0.05.
    """

    kind: ClassVar[str] = "langevin"
    keeps_momentum: ClassVar[bool] = False

    temperature: float
    friction: float = 0.01

    def dynamics(
        self, atoms: Atoms, timestep: float, random: np.random.Generator
    ) -> MolecularDynamics:
        return AseLangevin(
            atoms,
            timestep * FEMTOSECOND,
            temperature_K=self.temperature,
            friction=self.friction / FEMTOSECOND,
            fixcm=False,
            rng=random,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Bussi(Ensemble):
    """Constant temperature by rescaling all velocities at random; hardly disturbs dynamics.

    Args:
        temperature: K.
        time: fs, in which the kinetic energy forgets.

    Source: Bussi, Donadio, Parrinello, 0803.4060.
    """

    kind: ClassVar[str] = "bussi"
    variables: ClassVar[tuple[str, ...]] = ("transferred_energy",)

    temperature: float
    time: float = 100.0

    def dynamics(
        self, atoms: Atoms, timestep: float, random: np.random.Generator
    ) -> MolecularDynamics:
        dynamics = AseBussi(
            atoms,
            timestep * FEMTOSECOND,
            temperature_K=self.temperature,
            taut=self.time * FEMTOSECOND,
            rng=random,
        )
        dynamics.ndof = self.degrees(atoms)
        dynamics.target_kinetic_energy = 0.5 * dynamics.temp * dynamics.ndof
        return dynamics

    def conserved(self, dynamics: MolecularDynamics) -> float:
        return float(dynamics.atoms.get_total_energy() - _get(dynamics, "transferred_energy"))


@dataclass(frozen=True, kw_only=True, slots=True)
class NoseHoover(Ensemble):
    """Constant temperature by a deterministic chain of thermostats.

    Args:
        temperature: K.
        time: fs, the period of the thermostat; about 100 timesteps.
        chain: thermostats.

    Source: Martyna, Tuckerman, Tobias, Klein 1996 (10.1080/00268979600100761).
    """

    kind: ClassVar[str] = "nose_hoover"
    variables: ClassVar[tuple[str, ...]] = ("_thermostat._eta", "_thermostat._p_eta")

    temperature: float
    time: float = 100.0
    chain: int = 3

    def dynamics(
        self, atoms: Atoms, timestep: float, random: np.random.Generator
    ) -> MolecularDynamics:
        _refuse_constraints(atoms, self.kind)
        dynamics = NoseHooverChainNVT(
            atoms,
            timestep * FEMTOSECOND,
            temperature_K=self.temperature,
            tdamp=self.time * FEMTOSECOND,
            tchain=self.chain,
        )
        _without_drift(dynamics)
        return dynamics

    def conserved(self, dynamics: MolecularDynamics) -> float:
        return _conserved(dynamics)


@dataclass(frozen=True, kw_only=True, slots=True)
class NPT(Ensemble):
    """Constant temperature and pressure: chains on the atoms and on the box.

    Args:
        temperature: K.
        pressure: GPa.
        time: fs, the period of the thermostat; about 100 timesteps.
        pressure_time: fs, the period of the barostat; about 1000 timesteps.
        shape: "isotropic" scales the box, "full" lets all six strains move.
        chain: thermostats.

    Source: Martyna, Tobias, Klein 1994 (10.1063/1.467468).
    """

    kind: ClassVar[str] = "npt"

    temperature: float
    pressure: float = 0.0
    time: float = 100.0
    pressure_time: float = 1000.0
    shape: Literal["isotropic", "full"] = "isotropic"
    chain: int = 3

    def __post_init__(self) -> None:
        Ensemble.__post_init__(self)
        if not np.isfinite(self.pressure):
            raise ValueError(f"pressure={self.pressure} has to be a number, in GPa")
        if self.shape not in ("isotropic", "full"):
            raise ValueError(f"shape={self.shape!r} has to be 'isotropic' or 'full'")

    @property
    def variables(self) -> tuple[str, ...]:  # type: ignore[override]
        common = (
            "_thermostat._eta",
            "_thermostat._p_eta",
            "_barostat._xi",
            "_barostat._p_xi",
        )
        if self.shape == "full":
            return (*common, "_p_g")
        return (*common, "_eps", "_p_eps", "_volume0", "_cell0")

    def dynamics(
        self, atoms: Atoms, timestep: float, random: np.random.Generator
    ) -> MolecularDynamics:
        _refuse_constraints(atoms, self.kind)
        if not atoms.pbc.all():
            raise ValueError("ensemble: npt needs a box that repeats along all three directions")
        kind = IsotropicMTKNPT if self.shape == "isotropic" else MTKNPT
        dynamics = kind(
            atoms,
            timestep * FEMTOSECOND,
            temperature_K=self.temperature,
            pressure_au=self.pressure * GIGAPASCAL,
            tdamp=self.time * FEMTOSECOND,
            pdamp=self.pressure_time * FEMTOSECOND,
            tchain=self.chain,
            pchain=self.chain,
        )
        _without_drift(dynamics)
        dynamics._num_atoms_global -= 1
        return dynamics

    def conserved(self, dynamics: MolecularDynamics) -> float:
        return _conserved(dynamics)


def _conserved(dynamics: Any) -> float:
    try:
        return float(dynamics.get_conserved_energy())
    except PropertyNotImplementedError:  # ASE's asks for a free energy, which not every one has
        return float("nan")


def _without_drift(dynamics: Any) -> None:
    """3 (N − 1) degrees of freedom for the chain of a system whose total momentum is zero."""
    thermostat = dynamics._thermostat
    atoms = thermostat._num_atoms_global
    thermostat._num_atoms_global = atoms - 1
    thermostat._Q[0] *= (atoms - 1) / atoms


def _refuse_constraints(atoms: Atoms, kind: str) -> None:
    if atoms.constraints:
        raise ValueError(
            f"atoms have constraints, which {kind} cannot hold: remove them, or use langevin, bussi "
            "or nve"
        )


def _owner(dynamics: Any, name: str) -> tuple[Any, str]:
    *path, last = name.split(".")
    for part in path:
        dynamics = getattr(dynamics, part)
    return dynamics, last


def _get(dynamics: Any, name: str) -> Any:
    owner, last = _owner(dynamics, name)
    return getattr(owner, last)
