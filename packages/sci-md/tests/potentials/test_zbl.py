"""The repulsion of nuclei, against LAMMPS and against its formula."""

from pathlib import Path

import numpy as np
import paddle
import pytest

from oarlock.sci_md.graph import to_graph
from oarlock.sci_md.neighbours import find_neighbours
from oarlock.sci_md.potentials import PotentialConfig
from oarlock.sci_md.potentials.zbl import NuclearRepulsion
from oarlock.sci_md.structure import Structure

RECORDED = Path(__file__).parents[1] / "parity" / "zbl.npz"


def pair(first, second, distance):
    return Structure(
        numbers=np.array([first, second]),
        positions=np.array([[0.0, 0.0, 0.0], [0.0, distance, 0.0]]),
        cell=np.zeros((3, 3)),
        pbc=np.zeros(3, dtype=bool),
    )


def energy_and_slopes(repulsion, config, *structures, dtype="float64"):
    graph = to_graph(
        [find_neighbours(one, config.elements, config.cutoff) for one in structures], dtype
    )
    graph.vectors.stop_gradient = False
    energies = repulsion(graph)
    (slopes,) = paddle.grad([energies.sum()], [graph.vectors])
    return energies.numpy(), slopes.numpy(), graph


def test_energy_and_forces_are_those_of_lammps():
    with np.load(RECORDED) as recorded:
        record = {name: recorded[name] for name in recorded.files}
    config = PotentialConfig(elements=("O", "Cu", "H"), cutoff=2.5)
    ones = np.ones((3, 3))
    repulsion = NuclearRepulsion(config, inner=record["inner"] * ones, outer=record["outer"] * ones)
    structure = Structure(
        numbers=record["numbers"],
        positions=record["positions"],
        cell=np.zeros((3, 3)),
        pbc=np.zeros(3, dtype=bool),
    )
    energies, slopes, graph = energy_and_slopes(repulsion, config, structure)
    forces = np.zeros_like(record["forces"])
    np.add.at(forces, graph.centers.numpy(), slopes)
    np.add.at(forces, graph.neighbours.numpy(), -slopes)
    # LAMMPS has e²/(4πε₀) to seven digits.
    assert energies.sum() == pytest.approx(record["energy"], rel=1e-7)
    assert np.abs(forces - record["forces"]).max() < 2e-7 * np.abs(record["forces"]).max()


def test_far_inside_it_is_the_formula_and_a_constant():
    config = PotentialConfig(elements=("H", "Cu"), cutoff=4.0)
    repulsion = NuclearRepulsion(config)

    def formula(r):
        x = r / (0.46850 / (1.0 + 29.0**0.23))
        weights, decays = (0.02817, 0.28022, 0.50986, 0.18175), (0.20162, 0.40290, 0.94229, 3.19980)
        screening = sum(c * np.exp(-d * x) for c, d in zip(weights, decays, strict=True))
        return 14.399645 * 29.0 / r * screening

    near, nearer = (
        energy_and_slopes(repulsion, config, pair(1, 29, r))[0].sum() for r in (0.5, 0.2)
    )
    assert nearer - near == pytest.approx(formula(0.2) - formula(0.5), rel=1e-7)


@pytest.mark.parametrize("first, second", [(1, 1), (1, 29), (29, 29)])
def test_it_ends_smoothly_where_covalent_radii_meet(first, second):
    config = PotentialConfig(elements=("H", "Cu"), cutoff=2.5)
    radii = {1: 0.31, 29: 1.32}  # Cordero 2008
    outer = min(radii[first] + radii[second], config.cutoff)
    repulsion = NuclearRepulsion(config)

    def energy(distance):
        return energy_and_slopes(repulsion, config, pair(first, second, distance))[0].sum()

    assert energy(outer + 1e-9) == 0.0
    assert energy(0.5 * outer) > 0.1
    # E, E′ and E″ vanish: what is left grows with the third power.
    step = 0.01 * outer
    assert 0.0 < energy(outer - step) < 1e-3 * energy(0.5 * outer)
    assert energy(outer - 2 * step) / energy(outer - step) == pytest.approx(8.0, rel=0.1)
    # The inner radius does not show.
    inner, small = 0.5 * outer, 1e-4
    curves = [
        (energy(at + small) - 2.0 * energy(at) + energy(at - small)) / small**2
        for at in (inner - 2 * small, inner + 2 * small)
    ]
    assert curves[0] == pytest.approx(curves[1], rel=0.01)


def test_each_atom_has_half_and_only_close_pairs_count():
    config = PotentialConfig(elements=("H", "O"), cutoff=4.0)
    repulsion = NuclearRepulsion(config)
    energies, _, _ = energy_and_slopes(repulsion, config, pair(1, 8, 0.7), pair(8, 8, 3.0))
    assert energies[0] == energies[1] > 0.0 and not energies[2:].any()


def test_second_derivatives_in_both_precisions():
    config = PotentialConfig(elements=("H", "O"), cutoff=3.0)
    repulsion = NuclearRepulsion(config)
    for dtype, tolerance in (("float64", 1e-6), ("float32", 1e-3)):
        curves = []
        for distance in (0.6, 0.8):
            graph = to_graph([find_neighbours(pair(1, 8, distance), ("H", "O"), 3.0)], dtype)
            graph.vectors.stop_gradient = False
            (slope,) = paddle.grad([repulsion(graph).sum()], [graph.vectors], create_graph=True)
            (curve,) = paddle.grad([slope[0, 1]], [graph.vectors])
            step = 1e-4
            ahead, behind = (
                energy_and_slopes(repulsion, config, pair(1, 8, distance + shift))[1][0, 1]
                for shift in (step, -step)
            )
            curves.append((curve.numpy()[0, 1], (ahead - behind) / (2 * step)))
        for exact, by_differences in curves:
            assert exact == pytest.approx(by_differences, rel=tolerance)


@pytest.mark.parametrize(
    "inner, outer, message",
    [
        (0.5, 3.5, "0 < inner < outer ≤ cutoff=3.0"),
        (1.0, 0.5, "0 < inner < outer"),
        ([[0.1, 0.2], [0.3, 0.1]], 1.0, "inner has to be a symmetric"),
        (np.full((3, 3), 0.1), 1.0, r"inner has to be a symmetric \[2, 2\]"),
    ],
)
def test_radii_that_cannot_be_are_refused(inner, outer, message):
    config = PotentialConfig(elements=("H", "O"), cutoff=3.0)
    inner = np.full((2, 2), inner) if np.isscalar(inner) else np.array(inner)
    with pytest.raises(ValueError, match=message):
        NuclearRepulsion(config, inner=inner, outer=np.full((2, 2), outer))
