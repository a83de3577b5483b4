"""What is read off trajectories, on those whose answers are known."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from oarlock.sci_md.simulate import (
    Estimate,
    Trajectory,
    block_mean,
    block_slope,
    diffusion_coefficient,
    energy_drift,
    mean_squared_displacement,
    radial_distribution,
    velocity_autocorrelation,
    vibrations,
)
from oarlock.sci_md.units import WAVENUMBER


def course(positions, *, interval=1.0, velocities=None, numbers=None, cell=None):
    positions = np.asarray(positions, dtype=float)
    frames, atoms = positions.shape[:2]
    cell = np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=float)
    return Trajectory(
        numbers=np.full(atoms, 18) if numbers is None else np.asarray(numbers),
        positions=positions,
        velocities=velocities,
        cells=np.broadcast_to(cell, (frames, 3, 3)),
        pbc=np.full(3, bool(cell.any())),
        times=interval * np.arange(frames),
    )


def test_independent_places_have_a_distribution_of_one():
    random = np.random.default_rng(0)
    cell = np.array([[12.0, 0, 0], [3.0, 11.0, 0], [0, -2.0, 10.0]])
    places = random.uniform(size=(20, 150, 3)) @ cell
    numbers = np.repeat([8, 1], [50, 100])
    gas = course(places, cell=cell, numbers=numbers)
    for pair, count in ((None, 149), (("O", "O"), 49), (("O", "H"), 100), (("H", "O"), 50)):
        measured = radial_distribution(gas, pair=pair, cutoff=4.5, bins=9)
        assert np.all(np.abs(measured.values[2:] - 1.0) < 5 * measured.errors[2:] + 0.02)
        assert measured.values[3:].mean() == pytest.approx(1.0, abs=0.03)
        ball = 4 / 3 * np.pi * 4.5**3 / np.linalg.det(cell)
        assert measured.coordination[-1] == pytest.approx(count * ball, rel=0.04)


def test_shells_of_a_crystal():
    atoms = bulk("Cu", "fcc", 3.6, cubic=True) * 3
    frames = np.repeat(atoms.positions[None], 5, axis=0)
    measured = radial_distribution(course(frames, cell=atoms.cell.array), cutoff=5.2, bins=52)
    near = measured.distances < 3.0
    assert measured.coordination[near][-1] == pytest.approx(12)
    assert measured.coordination[measured.distances < 4.0][-1] == pytest.approx(18)
    assert measured.coordination[-1] == pytest.approx(12 + 6 + 24 + 12)
    assert np.all(measured.values[measured.distances < 2.5] == 0.0)
    assert np.all(measured.errors < 1e-12)


def test_free_flight():
    random = np.random.default_rng(1)
    speeds = random.normal(size=(20, 3)) * 0.01
    flight = np.arange(50)[:, None, None] * speeds
    measured = mean_squared_displacement(course(flight), without_drift=False)
    expected = np.square(speeds).sum(axis=1).mean() * measured.times**2
    assert np.allclose(measured.values, expected, atol=1e-10)
    drifting = mean_squared_displacement(course(flight + np.arange(50)[:, None, None]))
    relative = speeds - speeds.mean(axis=0)
    expected = np.square(relative).sum(axis=1).mean() * measured.times**2
    assert np.allclose(drifting.values, expected, atol=1e-8)


def test_the_displacement_is_the_plain_sum():
    random = np.random.default_rng(2)
    walk = random.normal(size=(30, 4, 3)).cumsum(axis=0)
    measured = mean_squared_displacement(course(walk), without_drift=False)
    for lag in range(16):
        plain = np.square(walk[lag:] - walk[: 30 - lag]).sum(axis=-1).mean()
        assert measured.values[lag] == pytest.approx(plain, abs=1e-9)


def brownian(frames=4000, atoms=60, friction=0.02, heat=1e-4, interval=4.0, seed=3):
    """Free particles with friction, sampled exactly: D = ⟨v²⟩₁ / γ."""
    random = np.random.default_rng(seed)
    decay = np.exp(-friction * interval)
    gain = (1 - decay) / friction
    noise = heat * np.array(
        [
            [1 - decay**2, (1 - decay) ** 2 / friction],
            [(1 - decay) ** 2 / friction, (2 * interval - gain * (3 - decay)) / friction],
        ]
    )
    kicks = random.normal(size=(frames, atoms, 3, 2)) @ np.linalg.cholesky(noise).T
    velocities, positions = np.zeros((2, frames, atoms, 3))
    velocities[0] = random.normal(size=(atoms, 3)) * np.sqrt(heat)
    for step in range(1, frames):
        velocities[step] = decay * velocities[step - 1] + kicks[step, ..., 0]
        positions[step] = positions[step - 1] + gain * velocities[step - 1] + kicks[step, ..., 1]
    return course(positions, velocities=velocities, interval=interval), heat / friction


def test_the_diffusion_of_brownian_particles():
    free, expected = brownian()
    measured = diffusion_coefficient(free, fit=(200.0, 1000.0), without_drift=False)
    assert 0 < measured.coefficient.error < 0.1 * expected
    assert abs(measured.coefficient.value - expected) < 4 * measured.coefficient.error
    assert measured.in_cm2_per_s.value == pytest.approx(0.1 * measured.coefficient.value)
    decay = velocity_autocorrelation(free, longest=400.0)
    assert np.allclose(decay.values, 3e-4 * np.exp(-0.02 * decay.times), atol=1.5e-5)
    assert decay.diffusion == pytest.approx(expected, rel=0.06)


def test_the_spectrum_of_oscillators():
    times = np.arange(2000) * 1.0
    waves = np.array([1600.0, 3400.0])
    angular = 2 * np.pi * waves * WAVENUMBER
    numbers, masses = [8, 1], np.array([15.999, 1.008])
    heights = 0.01 / np.sqrt(masses)  # the same kinetic energy
    velocities = np.zeros((2000, 2, 3))
    velocities[..., 0] = heights * np.cos(angular * times[:, None] + 0.3)
    both = course(np.zeros((2000, 2, 3)), velocities=velocities, numbers=numbers)
    spectrum = vibrations(both, longest=800.0)
    width = spectrum.wavenumbers[1]
    assert spectrum.density.sum() * width == pytest.approx(1.0)
    for wave in waves:
        near = np.abs(spectrum.wavenumbers - wave) < 150
        peak = spectrum.wavenumbers[near][spectrum.density[near].argmax()]
        assert peak == pytest.approx(wave, abs=10)
        assert spectrum.density[near].sum() * width == pytest.approx(0.5, abs=0.03)
    only = vibrations(both, element="H", longest=800.0)
    assert only.wavenumbers[only.density.argmax()] == pytest.approx(3400.0, abs=10)


def test_the_drift_of_a_noisy_line():
    random = np.random.default_rng(4)
    times = np.arange(4000) * 0.5
    noise = np.convolve(random.normal(size=4100), np.ones(100), "valid")[:4000] * 1e-4
    measured = energy_drift(times, -100.0 + 8 * 3e-3 * 1e-3 * times + 8 * noise, atoms=8)
    assert abs(measured.slope.value - 3e-3) < 4 * measured.slope.error
    assert 1e-5 < measured.slope.error < 1.5e-3
    assert measured.fluctuation == pytest.approx(noise.std(), rel=0.1)
    exact = energy_drift(times, 1.0 + 0.002 * times, atoms=1)
    assert exact.slope.value == pytest.approx(2.0)
    assert exact.slope.error < 1e-9


def test_errors_of_correlated_series_are_honest():
    """The error of 200 series covers the truth as often as it says."""
    random = np.random.default_rng(5)
    kicks = random.normal(size=(200, 3000))
    series = np.zeros((200, 3000))
    for step in range(1, 3000):
        series[:, step] = 0.9 * series[:, step - 1] + kicks[:, step]
    estimates = [block_mean(one, blocks=10) for one in series]
    inside = np.mean([abs(one.value) < 2 * one.error for one in estimates])
    assert 0.85 < inside < 0.99
    slopes = [block_slope(np.arange(3000.0), one) for one in series]
    assert 0.85 < np.mean([abs(one.value) < 2 * one.error for one in slopes]) < 0.99
    assert str(Estimate(value=1.23456, error=0.0123)) == "1.235 ± 0.012"


def test_wrapping_is_undone():
    random = np.random.default_rng(6)
    cell = np.array([[5.0, 0, 0], [1.0, 6.0, 0], [0, 0.5, 7.0]])
    steps = random.normal(size=(100, 3, 3)) * 0.4
    walk = steps.cumsum(axis=0)
    wrapped = walk - np.floor(walk @ np.linalg.inv(cell)) @ cell
    mended = course(wrapped, cell=cell).unwrapped().positions
    assert np.allclose(mended - mended[0], walk - walk[0], atol=1e-9)
    free = course(walk)
    assert free.unwrapped() is free


def test_every_result_can_be_drawn(tmp_path):
    atoms = bulk("Cu", "fcc", 3.6, cubic=True) * 2
    random = np.random.default_rng(0)
    shake = atoms.positions + 0.05 * random.normal(size=(40, 32, 3))
    shaken = course(shake, cell=atoms.cell.array, velocities=random.normal(size=(40, 32, 3)))
    results = {
        "g": radial_distribution(shaken, cutoff=3.5),
        "d": diffusion_coefficient(shaken, blocks=2),
        "m": mean_squared_displacement(shaken),
        "v": velocity_autocorrelation(shaken),
        "s": vibrations(shaken),
        "e": energy_drift(shaken.times, np.arange(40.0), atoms=32),
    }
    for name, result in results.items():
        figure = result.plot(tmp_path / f"{name}.png")
        assert figure.axes[0].get_xlabel() and figure.axes[0].lines
        assert (tmp_path / f"{name}.png").stat().st_size > 3000


def test_what_cannot_be_analysed_is_said():
    frames = course(np.zeros((10, 2, 3)) + [[0, 0, 0], [2, 0, 0]], cell=np.eye(3) * 6)
    for call, message in (
        (lambda: radial_distribution(frames, cutoff=3.5), "half of the box"),
        (lambda: radial_distribution(frames, cutoff=2.5, pair=("Ar", "O")), "element='O'"),
        (lambda: radial_distribution(frames, cutoff=2.5, blocks=11), "blocks=11"),
        (lambda: radial_distribution(course(np.zeros((9, 2, 3))), cutoff=2.0), "needs a density"),
        (lambda: diffusion_coefficient(frames), "blocks=4 of 10 frames"),
        (lambda: diffusion_coefficient(course(np.zeros((40, 1, 3))), fit=(5.0, 90.0)), "fit="),
        (lambda: velocity_autocorrelation(frames), "no velocities"),
        (lambda: energy_drift(np.arange(9), np.arange(9), atoms=1), "equally long"),
        (lambda: energy_drift(np.arange(30), np.full(30, np.nan), atoms=1), "finite"),
        (lambda: frames[3], "has to be a slice"),
        (lambda: Trajectory.from_frames([], 1.0), "frames is empty"),
        (lambda: Trajectory.from_frames([Atoms("H"), Atoms("O")], 1.0), "different atoms"),
        (lambda: Trajectory.read("nowhere.xyz", 1.0), "is no file"),
        (lambda: block_slope(np.arange(9), np.arange(9), blocks=2), "blocks=2"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
