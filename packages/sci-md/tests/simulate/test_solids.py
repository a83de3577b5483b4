"""Crystals at rest, strained, with a vacancy; paths over barriers: on models with known answers."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes

from oarlock.sci_md.calculator import OarlockCalculator
from oarlock.sci_md.simulate import (
    ElasticConstants,
    elastic_constants,
    equation_of_state,
    minimum_energy_path,
    relaxed,
    vacancy_formation,
)


@pytest.fixture(scope="module")
def argon(lennard_jones):
    atoms = bulk("Ar", "fcc", 5.3, cubic=True)
    atoms.calc = OarlockCalculator(lennard_jones(cutoff=9.0))
    return relaxed(atoms, box=True, force=1e-5)


def test_a_box_at_rest(argon):
    assert np.abs(argon.get_stress()).max() < 1e-6
    assert argon.cell.lengths() == pytest.approx([argon.cell[0, 0]] * 3, rel=1e-6)
    # Sums over fcc to infinity: a = √2 (2 · 12.13188 / 14.45392)^⅙ σ; the cut-off takes attraction away.
    full = 3.4 * np.sqrt(2) * (2 * 12.13188 / 14.45392) ** (1 / 6)
    assert 1.0 < argon.cell[0, 0] / full < 1.01


def test_central_forces_obey_cauchy(argon):
    measured = elastic_constants(argon, relax=False, strain=2e-3)
    c = measured.matrix
    assert c[0, 1] == pytest.approx(c[3, 3], rel=2e-3)  # Cauchy
    cubic = np.diag([c[0, 0]] * 3 + [c[3, 3]] * 3)
    cubic[:3, :3] += c[0, 1] * (1 - np.eye(3))
    assert np.allclose(c, cubic, atol=2e-3)
    assert measured.asymmetry < 2e-3
    assert np.abs(measured.residual_stress).max() < 1e-3
    assert measured.stable
    reuss, voigt = measured.bounds("bulk")
    assert reuss == pytest.approx(voigt, rel=1e-3) == (c[0, 0] + 2 * c[0, 1]) / 3
    low, high = measured.bounds("shear")
    assert low < measured.shear_modulus < high
    state = equation_of_state(argon, volumes=np.linspace(0.97, 1.03, 7))
    assert state.bulk_modulus == pytest.approx(measured.bulk_modulus, rel=5e-3)
    assert state.volume == pytest.approx(argon.get_volume() / 4, rel=1e-4)
    assert state.energy == pytest.approx(argon.get_potential_energy() / 4, abs=1e-6)
    assert state.residual < 1e-5
    assert state.at(state.volumes) == pytest.approx(state.energies, abs=1e-5)


def test_isotropic_matter():
    """λ and μ in, K = λ + ⅔ μ, G = μ, and E, ν from them."""
    lame, shear = 50.0, 30.0
    matrix = np.diag([2 * shear] * 3 + [shear] * 3)
    matrix[:3, :3] += lame
    matter = ElasticConstants(
        matrix=matrix, asymmetry=0.0, residual_stress=np.zeros(6), strain=1e-3
    )
    assert matter.bounds("bulk") == pytest.approx((70.0, 70.0))
    assert matter.bounds("shear") == pytest.approx((30.0, 30.0))
    assert matter.young_modulus == pytest.approx(shear * (3 * lame + 2 * shear) / (lame + shear))
    assert matter.poisson_ratio == pytest.approx(lame / (2 * (lame + shear)))
    assert "± 0" in str(matter)
    matrix = matrix.copy()
    matrix[3, 3] = -1.0
    with pytest.raises(ValueError, match="not stable"):
        ElasticConstants(
            matrix=matrix, asymmetry=0.0, residual_stress=np.zeros(6), strain=1e-3
        ).bounds("bulk")


def test_atoms_inside_relax(argon):
    """hcp: shears move its two atoms against each other, which makes it softer."""
    atoms = bulk("Ar", "hcp", a=argon.cell[0, 0] / np.sqrt(2), c=argon.cell[0, 0] * 2 / np.sqrt(3))
    atoms.calc = argon.calc
    atoms = relaxed(atoms, box=True, force=1e-4)
    clamped = elastic_constants(atoms, relax=False).matrix
    at_rest = elastic_constants(atoms, relax=True, force=1e-5).matrix
    assert at_rest[5, 5] < clamped[5, 5] - 0.02
    assert at_rest[5, 5] == pytest.approx((at_rest[0, 0] - at_rest[0, 1]) / 2, rel=0.02)


def test_a_vacancy_among_pair_forces_costs_the_energy_of_an_atom(argon):
    atoms = argon * 2
    atoms.calc = argon.calc
    vacancy = vacancy_formation(atoms, index=5, force=5e-3)
    assert vacancy.unrelaxed == pytest.approx(-atoms.get_potential_energy() / 32, abs=1e-6)
    assert 0.9 * vacancy.unrelaxed < vacancy.energy < vacancy.unrelaxed
    assert len(vacancy.atoms) == 31
    atoms.symbols[3] = "Kr"
    with pytest.raises(ValueError):
        vacancy_formation(atoms)


class DoubleWell(Calculator):
    """E = h ((x/a)² − 1)² + ½ k (y − x²/4)²: minima at ± a, a saddle of height h at 0."""

    implemented_properties = ["energy", "forces"]
    height, width, stiffness = 0.7, 1.5, 4.0

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x, y, z = self.atoms.positions[0]
        well, bend = (x / self.width) ** 2 - 1, y - x**2 / 4
        energy = self.height * well**2 + 0.5 * self.stiffness * (bend**2 + z**2)
        slope_x = 4 * self.height * well * x / self.width**2 - self.stiffness * bend * x / 2
        slope = [slope_x, self.stiffness * bend, self.stiffness * z]
        self.results = {"energy": energy, "forces": -np.array([slope])}


def well(x):
    atoms = Atoms("H", [[x, x**2 / 4, 0.0]])
    atoms.calc = DoubleWell()
    return atoms


def test_the_barrier_of_a_double_well(tmp_path):
    path = minimum_energy_path(well(-1.5), well(1.5), images=7, force=1e-3)
    assert path.barrier == pytest.approx(0.7, abs=1e-4)
    assert path.reverse_barrier == pytest.approx(0.7, abs=1e-4)
    assert path.images[3].positions[0] == pytest.approx([0.0, 0.0, 0.0], abs=1e-2)
    assert path.force < 1e-3
    assert path.distances[-1] > 3.0
    path.plot(tmp_path / "path.png")
    assert (tmp_path / "path.png").stat().st_size > 3000


def test_results_can_be_drawn(argon, tmp_path):
    elastic_constants(argon, relax=False).plot(tmp_path / "c.png")
    equation_of_state(argon).plot(tmp_path / "e.svg")
    assert (tmp_path / "c.png").stat().st_size > 3000
    assert "Å³ per atom" in (tmp_path / "e.svg").read_text() or (tmp_path / "e.svg").exists()


def test_what_cannot_be_computed_is_said(argon):
    bare, free = argon.copy(), argon.copy()
    free.pbc, free.calc = False, argon.calc
    for call, message in (
        (lambda: relaxed(bare), "no calculator"),
        (lambda: relaxed(argon, force=0.0), "force=0.0"),
        (lambda: relaxed(well(1.0), steps=1, force=1e-6), "after steps=1"),
        (lambda: elastic_constants(bare), "no calculator"),
        (lambda: elastic_constants(free), "need a box"),
        (lambda: elastic_constants(argon, strain=0.2), "strain=0.2"),
        (lambda: equation_of_state(bare), "no calculator"),
        (lambda: equation_of_state(free), "needs a box"),
        (lambda: equation_of_state(argon, volumes=[1.0, 1.1]), "five or more"),
        (
            lambda: equation_of_state(argon, volumes=[1.1, 1.11, 1.12, 1.13, 1.14]),
            "at an end",
        ),
        (lambda: vacancy_formation(bare), "no calculator"),
        (lambda: vacancy_formation(argon, index=4), "index=4"),
        (lambda: minimum_energy_path(bare, bare), "no calculator"),
        (lambda: minimum_energy_path(well(-1.5), Atoms("O")), "same atoms"),
        (lambda: minimum_energy_path(well(-1.5), well(1.5), images=2), "images=2"),
        (lambda: minimum_energy_path(well(-1.5), well(1.5), steps=1), "across the path"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
