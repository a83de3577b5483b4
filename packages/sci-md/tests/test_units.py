"""Conversions at the border."""

import pytest
from ase import units as ase_units

from oarlock.sci_md.units import UNITS, WAVENUMBER, factor, parse


@pytest.mark.parametrize(
    ("unit", "into", "value"),
    [
        ("kcal/mol", "eV", 0.0433641),
        ("kJ/mol", "meV", 10.36427),
        ("Hartree", "eV", 27.211386),
        ("Hartree/Bohr", "eV/Å", 51.42207),
        ("Ry", "Hartree", 0.5),
        ("GPa", "eV/angstrom^3", 0.006241509),
        ("bar", "GPa", 1e-4),
        ("atm", "bar", 1.01325),
        ("g/cm^3", "u/Å^3", 0.602214),
        ("Å^2/ps", "cm^2/s", 1e-4),
        ("N", "eV/Å", 1 / 1.602177e-9),
        ("eV", "J", 1.602177e-19),
        ("nm * nm", "Å^2", 100.0),
        ("ps^-1", "1/fs", 1e-3),
    ],
)
def test_known_values(unit, into, value):
    assert factor(unit, into) == pytest.approx(value, rel=2e-6)


@pytest.mark.parametrize("unit", UNITS)
def test_there_and_back(unit):
    assert factor(unit, unit) == pytest.approx(1.0)
    if unit != "1":
        assert parse(f"{unit}/{unit}").dimension == (0, 0, 0, 0, 0)


def test_wavenumbers():
    assert 3000.0 * WAVENUMBER == pytest.approx(3000.0 * ase_units.invcm / ase_units._hplanck
                                                / ase_units.J * 1e-15, rel=1e-6)  # fmt: skip


@pytest.mark.parametrize("unit", ["", "electronvolt", "eV//Å", "eV/", "eV^x", "kcal/mole"])
def test_what_is_no_unit_is_refused(unit):
    with pytest.raises(ValueError, match="unit="):
        factor(unit, "eV")


def test_different_things_are_refused():
    with pytest.raises(ValueError, match="different things"):
        factor("kcal/mol", "eV/Å")
