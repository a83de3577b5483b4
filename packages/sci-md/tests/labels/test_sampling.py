"""What is labelled: displacements, strains, scans, pairs, dynamics, packed molecules."""

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from oarlock.sci_md.labels import (
    closeness,
    deformed,
    dimers,
    packed,
    rattled,
    strained,
    visited,
    volume_scan,
)
from oarlock.sci_md.structure import Structure


@pytest.fixture
def copper():
    return Structure.from_ase(bulk("Cu", cubic=True) * 2, name="Cu")


def test_displacements_have_the_deviation_asked_for(copper):
    drawn = rattled(copper, count=40, deviation=0.05, seed=3)
    shifts = np.array([one.positions - copper.positions for one in drawn])
    assert shifts.std() == pytest.approx(0.05, rel=0.05)
    assert abs(shifts.mean()) < 0.003
    assert [one.name for one in drawn[:2]] == ["Cu rattled 0", "Cu rattled 1"]
    again = rattled(copper, count=40, deviation=0.05, seed=3)
    assert np.array_equal(drawn[-1].positions, again[-1].positions)
    assert min(closeness(one) for one in drawn) > 0.6
    with pytest.raises(ValueError, match="deviation=1.5 moves atoms closer"):
        rattled(copper, count=1, deviation=1.5, seed=0)


def test_strains_are_symmetric_and_bounded(copper):
    for one in strained(copper, count=20, magnitude=0.04, seed=1):
        strain = np.linalg.solve(copper.cell, one.cell) - np.eye(3)
        assert np.allclose(strain, strain.T)
        assert np.abs(strain).max() <= 0.04
        assert np.allclose(
            one.positions @ np.linalg.inv(one.cell), copper.positions @ np.linalg.inv(copper.cell)
        )


def test_scaled_volumes(copper):
    scales = [0.95, 1.0, 1.05]
    volumes = [one.volume for one in volume_scan(copper, scales=scales)]
    assert np.allclose(volumes, copper.volume * np.array(scales) ** 3)
    assert deformed(copper, np.zeros((3, 3))).energy is None
    with pytest.raises(ValueError, match="needs a structure with a box"):
        volume_scan(Structure.from_ase(molecule("H2O")), scales=scales)


def test_pairs():
    drawn = dimers(["O", "H"], distances=[0.8, 1.2])
    assert len(drawn) == 6
    assert len(dimers(["O", "H"], distances=[0.8, 1.2], same=False)) == 2
    for one in drawn:
        length = np.linalg.norm(one.positions[1] - one.positions[0])
        assert one.name == f"{one.symbols[0]}-{one.symbols[1]} {length:g} Å"


def test_dynamics_reach_the_temperature():
    copper = Structure.from_ase(bulk("Cu") * 2, name="Cu")
    drawn = visited(
        copper,
        EMT(),
        temperatures=[300.0, 1200.0],
        frames=20,
        every=10,
        equilibration=100,
        timestep=4.0,
        friction=0.02,
        seed=2,
    )
    assert len(drawn) == 40
    shifts = np.array([one.positions - one.positions.mean(axis=0) for one in drawn])
    shifts -= copper.positions - copper.positions.mean(axis=0)
    cold, hot = np.square(shifts[:20]).mean(), np.square(shifts[20:]).mean()
    assert 2.0 < hot / cold < 8.0  # harmonic: 4
    assert drawn[0].energy is None
    again = visited(
        copper, EMT(), temperatures=[300.0], frames=1, every=10, equilibration=100, timestep=4.0,
        seed=2,
    )  # fmt: skip
    assert np.allclose(again[0].positions, drawn[0].positions, atol=1e-9)


@pytest.mark.parametrize("places", ["random", "lattice"])
@pytest.mark.parametrize("box", [True, False])
def test_packed_molecules_keep_their_distance(box, places):
    water = molecule("H2O")
    drawn = packed(water, count=27, density=0.03, box=box, places=places, seed=4)
    assert len(drawn) == 81
    first, second = np.triu_indices(81, 1)
    between = drawn.positions[first] - drawn.positions[second]
    if box:
        assert drawn.volume == pytest.approx(27 / 0.03)
        edge = drawn.cell[0, 0]
        between -= edge * np.round(between / edge)
    lengths = np.linalg.norm(between, axis=1)
    inside = first // 3 == second // 3
    assert lengths[~inside].min() >= 1.7
    assert np.allclose(np.sort(lengths[inside])[:54], water.get_distance(0, 1), atol=1e-6)
    with pytest.raises(ValueError, match="found room"):
        packed(water, count=27, density=0.3, box=box, places=places, seed=4, attempts=500)


def test_a_lattice_in_a_box_is_whole():
    with pytest.raises(ValueError, match="count=16 is no cube"):
        packed(molecule("H2O"), count=16, density=0.03, box=True, places="lattice", seed=0)
    with pytest.raises(ValueError, match="places='grid'"):
        packed(molecule("H2O"), count=8, density=0.03, box=True, places="grid", seed=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda one: rattled(one, count=0, deviation=0.1, seed=0), "count=0"),
        (lambda one: rattled(one, count=1, deviation=-0.1, seed=0), "deviation=-0.1"),
        (lambda one: strained(one, count=1, magnitude=0.0, seed=0), "magnitude=0.0"),
        (lambda one: volume_scan(one, scales=[1.0, 0.0]), r"scales\[1\]=0.0"),
        (lambda one: dimers(["O"], distances=[0.0]), r"distances\[0\]=0.0"),
        (
            lambda one: visited(one, EMT(), temperatures=[-1.0], frames=1, seed=0),
            r"temperatures\[0\]=-1.0",
        ),
        (lambda one: packed(one.to_ase(), count=0, density=1.0, box=True, seed=0), "count=0"),
    ],
)
def test_bad_numbers_are_refused(copper, call, message):
    with pytest.raises(ValueError, match=message):
        call(copper)
