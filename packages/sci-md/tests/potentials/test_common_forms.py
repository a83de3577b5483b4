"""Of every potential: the same answer from ghosts, files, single precision and exported programs."""

from dataclasses import replace

import numpy as np
import pytest

from oarlock.sci_md import keys
from oarlock.sci_md.evaluate import EagerEvaluator, FrozenEvaluator, freeze
from oarlock.sci_md.neighbours import Neighbourhood, find_neighbours, species_of
from oarlock.sci_md.potentials import load, names, save
from oarlock.sci_md.structure import Structure


def test_every_kind_is_tested(cases):
    known = {name for name in names() if not name.startswith("test_")}  # other tests add some
    assert {case.model for case in cases.values()} == known
    assert {case.model for case in cases.values() if case.frozen} == known


def with_ghosts(structure, potential, *, spare=0):
    """The periodic structure as a program with ghosts has it, and which atom each of them is.

    Ghosts lie up to reach × cut-off away, those with lists of their own first.

    Args:
        spare: how many of the outermost rows to add beyond what the reach needs.
    """
    cutoff, reach = potential.cutoff, potential.reach
    counts = np.ceil(reach * cutoff / np.linalg.norm(structure.cell, axis=1)).astype(int) + 2
    shifts = np.stack(
        np.meshgrid(*[np.arange(-count, count + 1) for count in counts], indexing="ij"), axis=-1
    ).reshape(-1, 3)
    shifts = shifts[np.abs(shifts).sum(axis=1) > 0]
    places = (structure.positions[None] + (shifts @ structure.cell)[:, None]).reshape(-1, 3)
    owners = np.tile(np.arange(len(structure)), len(shifts))
    far = np.linalg.norm(places[:, None] - structure.positions, axis=-1).min(axis=1)
    order = np.argsort(far)
    order = order[: np.searchsorted(far[order], reach * cutoff)]
    owners = np.concatenate([np.arange(len(structure)), owners[order]])
    everything = Structure(
        numbers=structure.numbers[owners],
        positions=np.concatenate([structure.positions, places[order]]),
        cell=np.zeros((3, 3)),
        pbc=np.zeros(3, dtype=bool),
    )
    lists = find_neighbours(everything, potential.elements, cutoff)
    inner = int(np.searchsorted(far[order], (reach - 1) * cutoff))
    rows = min(len(structure) + inner + spare, len(owners))
    return (
        Neighbourhood(
            positions=everything.positions,
            species=species_of(everything, potential.elements),
            offsets=lists.offsets[: rows + 1],
            neighbours=lists.neighbours[: lists.offsets[rows]],
            owned=len(structure),
        ),
        owners,
    )


@pytest.mark.parametrize("spare", [0, 10**6])
@pytest.mark.on("crystal", "tight")
def test_ghosts_are_images(case, kind, structure, spare, potential_of):
    potential = potential_of(case)
    evaluator = EagerEvaluator(potential)
    lists, owners = with_ghosts(structure, potential, spare=spare)
    assert lists.rows < len(owners) or spare
    ghosts = evaluator.evaluate(lists)
    periodic = evaluator.evaluate(find_neighbours(structure, potential.elements, potential.cutoff))
    forces = np.zeros_like(periodic.forces)
    np.add.at(forces, owners, ghosts.forces)
    assert ghosts.energy == pytest.approx(periodic.energy, rel=1e-10)
    assert np.allclose(ghosts.atomic_energies, periodic.atomic_energies, rtol=1e-10)
    assert np.allclose(forces, periodic.forces, rtol=1e-9, atol=1e-9)
    assert np.allclose(ghosts.virial, periodic.virial, rtol=1e-9, atol=1e-9)


def test_edges_longer_than_the_cutoff_do_nothing(case, potential_of, crystal):
    potential = potential_of(case)
    evaluator = EagerEvaluator(potential)
    tightly, loosely = (
        evaluator.evaluate(find_neighbours(crystal, potential.elements, potential.cutoff + skin))
        for skin in (0.0, 0.7)
    )
    assert loosely.energy == pytest.approx(tightly.energy, rel=1e-12)
    assert np.allclose(loosely.forces, tightly.forces, atol=1e-10)


def test_a_file_holds_all_of_it(case, potential_of, predict, crystal, tmp_path):
    potential = potential_of(case)
    save(potential, tmp_path / "potential.safetensors")
    again = load(tmp_path / "potential.safetensors")
    assert again.config == potential.config and not again.training
    before, after = predict(potential, crystal), predict(again, crystal)
    for key in before:
        assert np.array_equal(after[key], before[key]), key


def test_single_precision_is_near_double(case, potential_of, predict, crystal):
    double, single = potential_of(case), potential_of(case, dtype="float32")
    for name, value in single.state_dict().items():
        value.set_value(double.state_dict()[name].astype(value.dtype))
    exact, rounded = predict(double, crystal), predict(single, crystal)
    assert rounded[keys.ENERGY].dtype == np.float64
    assert rounded[keys.FORCES].dtype == rounded[keys.VIRIAL].dtype == np.float32
    assert np.allclose(
        rounded[keys.ATOMIC_ENERGIES], exact[keys.ATOMIC_ENERGIES], rtol=1e-5, atol=1e-5
    )
    scale = np.abs(exact[keys.FORCES]).max()
    assert np.allclose(rounded[keys.FORCES], exact[keys.FORCES], atol=2e-5 * scale)


def test_forces_are_the_same_in_training_mode(case, potential_of, predict, crystal):
    evaluated = predict(potential_of(case), crystal)
    trained = predict(potential_of(case, training=True), crystal)
    for key in evaluated:
        assert np.allclose(trained[key], evaluated[key], rtol=1e-12, atol=1e-12), key


def test_a_seed_decides_the_parameters(case, potential_of):
    once, twice = potential_of(case), potential_of(case)
    for name, value in once.state_dict().items():
        assert np.array_equal(value.numpy(), twice.state_dict()[name].numpy()), name


@pytest.mark.on(frozen=True)
def test_a_frozen_program_gives_the_same(case, potential_of, cluster, crystal, tmp_path):
    potential = potential_of(case)
    freeze(potential, tmp_path / "frozen")
    frozen = FrozenEvaluator(tmp_path / "frozen")
    eager = EagerEvaluator(potential)
    apart = replace(cluster, positions=20.0 * cluster.positions)  # without edges
    for structure in (cluster, crystal, apart):
        lists = find_neighbours(structure, potential.elements, potential.cutoff)
        program, once = frozen.evaluate(lists), eager.evaluate(lists)
        assert np.allclose(program.atomic_energies, once.atomic_energies, rtol=1e-11)
        assert np.allclose(program.forces, once.forces, rtol=1e-9, atol=1e-11)
        assert np.allclose(program.virial, once.virial, rtol=1e-9, atol=1e-11)
