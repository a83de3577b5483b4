"""Wrong units are found where the data can tell."""

import dataclasses

import numpy as np
import pytest

from oarlock.sci_md.data import check_scales
from oarlock.sci_md.data.scales import energy_slope


@pytest.fixture(scope="module")
def trajectory(emt):
    """Frames along a straight line, as neighbouring frames of a trajectory are."""
    import ase.calculators.emt

    from oarlock.sci_md.structure import Structure

    atoms = emt(1)[0].to_ase()
    step = np.random.default_rng(1).normal(scale=0.01, size=(len(atoms), 3))
    frames = []
    for _ in range(12):
        atoms.positions += step
        atoms.calc = ase.calculators.emt.EMT()
        atoms.get_forces()
        frames.append(Structure.from_ase(atoms, name="line"))
    return frames


def scaled(frames, *, energy=1.0, forces=1.0, length=1.0):
    return [
        dataclasses.replace(
            one,
            energy=one.energy * energy,
            forces=one.forces * forces,
            positions=one.positions * length,
            cell=one.cell * length,
            virial=None,
        )
        for one in frames
    ]


def test_right_units_pass(trajectory, emt):
    assert abs(energy_slope(trajectory) - 1.0) < 0.02
    check_scales(trajectory)
    check_scales(emt(5))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"energy": 1 / 27.2}, "not in units that belong together"),
        ({"energy": 23.06}, "not in units that belong together"),
        ({"forces": -1.0}, "wrong sign"),
        ({"length": 1 / 0.529, "forces": 0.529}, "declare length='Bohr'"),
        ({"length": 0.1}, "declare length='nm'"),
        ({"energy": 1e4, "forces": 1e4}, "forces are"),
    ],
)
def test_wrong_units_are_refused(trajectory, change, message):
    with pytest.raises(ValueError, match=message):
        check_scales(scaled(trajectory, **change))


def test_frames_without_relation_say_nothing(emt):
    assert energy_slope(emt(10)) is None
