"""Runs: temperatures, conserved quantities, resuming, interruptions, refusals."""

import os
import signal

import numpy as np
import pytest
from ase.constraints import FixAtoms

from oarlock.sci_md.simulate import NPT, NVE, Bussi, Langevin, Log, NoseHoover, Trajectory, run
from oarlock.sci_md.units import BOLTZMANN, FEMTOSECOND

ENSEMBLES = {
    "nve": NVE(),
    "langevin": Langevin(temperature=60.0, friction=0.01),
    "bussi": Bussi(temperature=60.0, time=50.0),
    "nose_hoover": NoseHoover(temperature=60.0, time=200.0),
    "npt": NPT(temperature=60.0, pressure=0.1, time=200.0, pressure_time=500.0),
    "npt_full": NPT(temperature=60.0, pressure=0.1, time=200.0, pressure_time=500.0, shape="full"),
}


def go(atoms, ensemble, **options):
    options = {"timestep": 5.0, "temperature": 60.0, "progress": False, "seed": 5, **options}
    return run(atoms, ensemble, **options)


@pytest.mark.parametrize("name", ["langevin", "bussi", "nose_hoover"])
def test_the_temperature_of_four_atoms(crystal, name):
    """Four atoms: a thermostat that counts 12 degrees of freedom and not 9 is 33 % wrong."""
    log = go(crystal(), ENSEMBLES[name], steps=1200, timestep=10.0, log_every=1).log
    hot = log["temperature_K"][150:]
    assert hot.mean() == pytest.approx(60.0, rel=0.15)
    degrees = 12 if name == "langevin" else 9
    if name != "nose_hoover":  # a chain alone takes long to visit all of so small a system
        assert hot.std() / 60.0 == pytest.approx(np.sqrt(2 / degrees), rel=0.4)  # canonical
    kinetic = log["kinetic_eV"][150:].mean()
    assert kinetic == pytest.approx(0.5 * degrees * BOLTZMANN * 60.0, rel=0.15)


@pytest.mark.parametrize("name", ["nve", "nose_hoover", "npt", "npt_full", "bussi"])
def test_the_conserved_quantity(crystal, name):
    errors = []
    for timestep in (10.0, 5.0):
        log = go(
            crystal(), ENSEMBLES[name], steps=int(800 / timestep), timestep=timestep, log_every=1
        ).log
        conserved = log["conserved_eV"]
        assert np.ptp(conserved) < 0.05 * np.ptp(log["kinetic_eV"])
        errors.append(conserved.std())
    assert errors[0] / errors[1] > 2.5  # second order: 4


def test_the_pressure_that_was_asked_for(crystal):
    ensemble = NPT(temperature=60.0, pressure=0.5, time=200.0, pressure_time=300.0)
    log = go(crystal(), ensemble, steps=1000, log_every=1).log
    assert log["pressure_GPa"][200:].mean() == pytest.approx(0.5, abs=0.07)
    assert log["temperature_K"][200:].mean() == pytest.approx(60.0, rel=0.15)
    assert log["volume_A3"][200:].std() > 0.5


@pytest.mark.parametrize("name", ENSEMBLES)
def test_a_resumed_run_is_the_unbroken_one(crystal, tmp_path, name):
    options = {"frames_every": 5, "log_every": 2, "save_every": 25}
    whole = go(crystal(), ENSEMBLES[name], steps=60, **options)

    class Stop(Exception):
        pass

    def stop(step, atoms):
        if step == 37:
            raise Stop

    atoms = crystal()
    with pytest.raises(Stop):
        go(atoms, ENSEMBLES[name], steps=60, folder=tmp_path / "run", watch=stop, **options)
    for steps in (60, 60):  # the second has nothing to do
        atoms = crystal()
        resumed = go(atoms, ENSEMBLES[name], steps=steps, folder=tmp_path / "run", **options)
        for field in ("positions", "velocities", "cells", "energies"):
            ours, theirs = (getattr(one.trajectory, field) for one in (resumed, whole))
            assert np.allclose(ours, theirs, atol=1e-9, rtol=1e-8)
        assert np.allclose(resumed.log.rows, whole.log.rows, rtol=1e-8, equal_nan=True)
    assert np.allclose(atoms.positions, whole.trajectory.positions[-1], atol=1e-9)
    assert len(Log.read(tmp_path / "run" / "log.csv").rows) == 31
    read = Trajectory.read(tmp_path / "run" / "frames.traj", interval=25.0)
    assert np.allclose(read.velocities, whole.trajectory.velocities, atol=1e-9)
    assert read.times[-1] == 300.0


def test_longer_than_before(crystal, tmp_path):
    go(crystal(), NVE(), steps=20, folder=tmp_path)
    longer = go(crystal(), NVE(), steps=40, folder=tmp_path)
    whole = go(crystal(), NVE(), steps=40)
    assert np.allclose(longer.trajectory.positions, whole.trajectory.positions, atol=1e-9)


def test_an_interruption_ends_after_the_step_and_is_saved(crystal, tmp_path):
    def interrupt(step, atoms):
        if step == 13:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        go(crystal(), NVE(), steps=40, folder=tmp_path, watch=interrupt, save_every=1000)
    assert signal.getsignal(signal.SIGINT) is before
    with np.load(tmp_path / "checkpoint.npz") as file:
        assert file["step"] == 13
    resumed = go(crystal(), NVE(), steps=40, folder=tmp_path)
    whole = go(crystal(), NVE(), steps=40)
    assert np.allclose(resumed.trajectory.positions, whole.trajectory.positions, atol=1e-9)


def test_atoms_that_fly_apart_end_the_run(crystal, tmp_path):
    with pytest.raises(ValueError, match=r"step \d+: .*failed.extxyz"):
        go(crystal(), NVE(), steps=40, timestep=500.0, hottest=1e4, folder=tmp_path)
    assert (tmp_path / "failed.extxyz").is_file()


def test_velocities_are_kept_unless_a_temperature_is_given(crystal):
    atoms = crystal()
    atoms.set_velocities(np.full((4, 3), 1e-3) / FEMTOSECOND)
    course = go(atoms, NVE(), steps=10, temperature=None).trajectory
    assert np.allclose(course.velocities, 1e-3, atol=1e-7)
    assert np.allclose(course.positions[1] - course.positions[0], 0.05, atol=1e-5)


def test_atoms_that_are_held(crystal):
    atoms = crystal()
    atoms.set_constraint(FixAtoms([0]))
    done = go(atoms, Langevin(temperature=60.0), steps=20, log_every=1)
    assert np.all(done.trajectory.positions[:, 0] == done.trajectory.positions[0, 0])
    assert done.log["temperature_K"][0] == pytest.approx(60.0)
    assert done.log["kinetic_eV"][0] == pytest.approx(0.5 * 9 * BOLTZMANN * 60.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps=0"),
        ({"timestep": -1.0}, "timestep=-1.0"),
        ({"frames_every": 0}, "frames_every=0"),
        ({"temperature": -5.0}, "temperature=-5.0"),
    ],
)
def test_bad_numbers_are_refused(crystal, options, message):
    with pytest.raises(ValueError, match=message):
        go(crystal(), NVE(), **{"steps": 10, **options})


def test_what_cannot_run_is_refused(crystal, tmp_path):
    atoms = crystal()
    atoms.calc = None
    with pytest.raises(ValueError, match="no calculator"):
        go(atoms, NVE(), steps=1)
    atoms = crystal()
    atoms.pbc[2] = False
    with pytest.raises(ValueError, match="npt needs a box"):
        go(atoms, ENSEMBLES["npt"], steps=1, folder=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    atoms = crystal()
    atoms.set_constraint(FixAtoms([0]))
    with pytest.raises(ValueError, match="constraints"):
        go(atoms, ENSEMBLES["nose_hoover"], steps=1)
    go(crystal(), NVE(), steps=10, folder=tmp_path / "run")
    with pytest.raises(ValueError, match="timestep 5.0, not 4.0"):
        go(crystal(), NVE(), steps=20, timestep=4.0, folder=tmp_path / "run")
    frames = tmp_path / "run" / "frames.traj"
    whole = frames.read_bytes()
    frames.write_bytes(b"")
    with pytest.raises(ValueError, match="frames.traj is damaged"):
        go(crystal(), NVE(), steps=20, folder=tmp_path / "run")
    frames.write_bytes(whole)
    path = tmp_path / "run" / "checkpoint.npz"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match="damaged"):
        go(crystal(), NVE(), steps=20, folder=tmp_path / "run")
    with pytest.raises(ValueError, match="holds other files"):
        go(crystal(), NVE(), steps=20, folder=tmp_path)
    with pytest.raises(ValueError, match="friction=0.0"):
        Langevin(temperature=300.0, friction=0.0)
    with pytest.raises(ValueError, match="shape='cubic'"):
        NPT(temperature=300.0, shape="cubic")
    with pytest.raises(ValueError, match="pressure=nan"):
        NPT(temperature=300.0, pressure=float("nan"))
