"""Units at the border: everything inside is eV, Å, atomic mass units and K (see `keys`), as in ASE.

What a file or a user gives in other units is multiplied by `factor`:

>>> factor("Hartree/Bohr", "eV/Å")
51.422...
>>> factor("kcal/mol")  # into eV
0.0433...

The values are ASE's (CODATA 2014).
"""

import re
from dataclasses import dataclass

from ase import units as _ase

# What a unit is made of: powers of mass, length, time, temperature and charge.
Dimension = tuple[int, int, int, int, int]

_NONE: Dimension = (0, 0, 0, 0, 0)
_MASS: Dimension = (1, 0, 0, 0, 0)
_LENGTH: Dimension = (0, 1, 0, 0, 0)
_TIME: Dimension = (0, 0, 1, 0, 0)
_TEMPERATURE: Dimension = (0, 0, 0, 1, 0)
_CHARGE: Dimension = (0, 0, 0, 0, 1)
_ENERGY: Dimension = (1, 2, -2, 0, 0)
_PRESSURE: Dimension = (1, -1, -2, 0, 0)
_FORCE: Dimension = (1, 1, -2, 0, 0)

#: Each unit's value in ASE's units, and its dimension.
UNITS: dict[str, tuple[float, Dimension]] = {
    "1": (1.0, _NONE),
    "mol": (float(_ase.mol), _NONE),
    "eV": (_ase.eV, _ENERGY),
    "meV": (1e-3 * _ase.eV, _ENERGY),
    "J": (_ase.J, _ENERGY),
    "kJ": (_ase.kJ, _ENERGY),
    "kcal": (_ase.kcal, _ENERGY),
    "Hartree": (_ase.Hartree, _ENERGY),
    "Rydberg": (_ase.Rydberg, _ENERGY),
    "angstrom": (_ase.Angstrom, _LENGTH),
    "nm": (_ase.nm, _LENGTH),
    "cm": (1e-2 * _ase.m, _LENGTH),
    "m": (_ase.m, _LENGTH),
    "Bohr": (_ase.Bohr, _LENGTH),
    "fs": (_ase.fs, _TIME),
    "ps": (1e3 * _ase.fs, _TIME),
    "s": (_ase.s, _TIME),
    "GPa": (_ase.GPa, _PRESSURE),
    "Pa": (_ase.Pascal, _PRESSURE),
    "bar": (_ase.bar, _PRESSURE),
    "atm": (101325.0 * _ase.Pascal, _PRESSURE),
    "N": (_ase.J / _ase.m, _FORCE),
    "u": (1.0, _MASS),
    "kg": (_ase.kg, _MASS),
    "g": (1e-3 * _ase.kg, _MASS),
    "K": (1.0, _TEMPERATURE),
    "e": (1.0, _CHARGE),
}
_OTHER_NAMES = {
    "Å": "angstrom",
    "A": "angstrom",
    "Angstrom": "angstrom",
    "bohr": "Bohr",
    "ev": "eV",
    "hartree": "Hartree",
    "Ha": "Hartree",
    "Ry": "Rydberg",
    "amu": "u",
    "Da": "u",
}

# Lengths of time, in ASE's unit of it, and pressures, in eV/Å³: for calls into ASE.
FEMTOSECOND: float = _ase.fs
GIGAPASCAL: float = _ase.GPa
BAR: float = _ase.bar
#: eV/K.
BOLTZMANN: float = _ase.kB
#: The square of a velocity in Å/fs times a mass in u, in eV.
MASS_VELOCITY_SQUARED: float = 1.0 / _ase.fs**2
#: The speed of light in cm/fs: what a wavenumber in cm⁻¹ is multiplied by to be in cycles per fs.
WAVENUMBER: float = _ase._c * 100.0 * 1e-15


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """Args:
    value: in ASE's units.
    dimension: powers of mass, length, time, temperature and charge.
    """

    value: float
    dimension: Dimension


def parse(expression: str) -> Unit:
    """A product such as ``kcal/mol/Å``, ``eV/Å^3`` or ``g/cm^3``: what follows a ``/`` divides.

    Raises:
        ValueError: a name that is no unit, or an expression that cannot be read.
    """
    parts = re.findall(r"([*/]?)\s*([^\s*/^]+)(?:\^(-?\d+))?\s*", expression)
    if not parts or "".join(f"{o}{n}{'^' + p if p else ''}" for o, n, p in parts) != "".join(
        expression.split()
    ):
        raise ValueError(f"unit={expression!r} cannot be read: write it like 'kcal/mol/angstrom'")
    value, dimension = 1.0, _NONE
    for operator, name, power in parts:
        name = _OTHER_NAMES.get(name, name)
        if name not in UNITS:
            raise ValueError(
                f"unit={expression!r}: {name!r} is not known, there are "
                f"{', '.join(sorted(UNITS))}, with * / ^ between them"
            )
        times = int(power or 1) * (-1 if operator == "/" else 1)
        one, its = UNITS[name]
        value *= one**times
        dimension = tuple(a + times * b for a, b in zip(dimension, its, strict=True))  # type: ignore[assignment]
    return Unit(value=value, dimension=dimension)


def factor(unit: str, into: str | None = None) -> float:
    """What a number in `unit` is multiplied by to be in `into` (None: ASE's units, eV, Å, u, K).

    Raises:
        ValueError: an unknown unit, or two that measure different things.
    """
    given = parse(unit)
    if into is None:
        return given.value
    wanted = parse(into)
    if given.dimension != wanted.dimension:
        raise ValueError(
            f"unit={unit!r} cannot be converted into {into!r}: they measure different things"
        )
    return given.value / wanted.value
