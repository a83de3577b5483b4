"""Frozen programs against the potentials that they were made from."""

import json
from dataclasses import replace

import numpy as np
import paddle
import pytest
from oarlock.sci_md.evaluate import EagerEvaluator, FrozenEvaluator, freeze
from oarlock.sci_md.neighbours import Neighbourhood, find_neighbours
from oarlock.sci_md.potentials import Potential, SchNetConfig, build
from oarlock.sci_md.potentials.base import default_dtype
from oarlock.sci_md.structure import Structure


def small_potential(dtype: str = "float64") -> Potential:
    paddle.seed(3)
    config = SchNetConfig(
        elements=("O", "H"), cutoff=4.0, dtype=dtype, features=8, layers=2, radial=6
    )
    potential = build(config)
    potential.set_reference([-3.0, 1.1], 1.7)
    return potential


def atoms(count: int, edge: float = 7.0) -> Neighbourhood:
    generator = np.random.default_rng(count)
    structure = Structure(
        numbers=generator.choice([1, 8], count),
        positions=generator.uniform(0, edge, (count, 3)),
        cell=np.eye(3) * edge,
        pbc=np.array([True] * 3),
    )
    return find_neighbours(structure, ("O", "H"), 4.0)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    path = tmp_path_factory.mktemp("frozen") / "water"
    potential = small_potential()
    freeze(potential, path)
    return potential, path


@pytest.mark.parametrize("count", [1, 2, 31])
def test_the_program_says_what_the_potential_says(frozen, count):
    potential, path = frozen
    program, eager = FrozenEvaluator(path), EagerEvaluator(potential)
    assert (program.elements, program.cutoff, program.reach) == (("O", "H"), 4.0, 2)
    for given in (atoms(count), replace(atoms(count), owned=(count + 1) // 2)):
        said, meant = program.evaluate(given), eager.evaluate(given)
        for name in ("energy", "atomic_energies", "forces", "virial"):
            np.testing.assert_allclose(getattr(said, name), getattr(meant, name), atol=1e-10)


def test_an_atom_without_neighbours_keeps_its_reference(frozen):
    _, path = frozen
    alone = atoms(1, edge=30.0)
    assert len(alone.neighbours) == 0
    evaluation = FrozenEvaluator(path).evaluate(alone)
    assert np.isfinite(evaluation.energy)
    assert not evaluation.forces.any()


def test_evaluating_twice_gives_the_same(frozen):
    _, path = frozen
    program, given = FrozenEvaluator(path), atoms(20)
    first, second = program.evaluate(given), program.evaluate(given)
    np.testing.assert_array_equal(first.forces, second.forces)
    assert first.energy == second.energy


def test_freezing_leaves_the_potential_as_it_was(frozen):
    potential, _ = frozen
    assert not any(parameter.stop_gradient for parameter in potential.parameters())
    x = paddle.to_tensor([1.0], dtype="float64")
    assert (x * 0.1 + 0.1).item() == 0.2


def test_float32(tmp_path):
    potential = small_potential("float32")
    freeze(potential, tmp_path / "water")
    said = FrozenEvaluator(tmp_path / "water").evaluate(atoms(31))
    meant = EagerEvaluator(potential).evaluate(atoms(31))
    np.testing.assert_allclose(said.forces, meant.forces, atol=1e-4 * np.abs(meant.forces).max())


def test_a_number_that_the_tracer_rounds_is_kept(tmp_path):
    class Scaled(type(small_potential())):
        def interaction_energies(self, graph):
            energies = super().interaction_energies(graph)
            return paddle.clip(1.0 - paddle.scale(energies * 0.1 + 0.1, 0.7, 0.3), -1e3, 0.1)

    with default_dtype("float64"):
        potential = Scaled(small_potential().config)
    freeze(potential, tmp_path / "scaled")


def test_an_existing_path_is_left_alone(frozen, tmp_path):
    potential, path = frozen
    before = sorted(file.name for file in path.iterdir())
    with pytest.raises(ValueError, match="exists"):
        freeze(potential, path)
    assert sorted(file.name for file in path.iterdir()) == before


def test_a_program_that_differs_is_not_kept(tmp_path):
    class Restless(type(small_potential())):
        """Says something else when it is traced."""

        def interaction_energies(self, graph):
            energies = super().interaction_energies(graph)
            return energies if paddle.in_dynamic_mode() else energies * 1.001

    with default_dtype("float64"):
        potential = Restless(small_potential().config)
    with pytest.raises(ValueError, match="is off by"):
        freeze(potential, tmp_path / "restless")
    assert not any(tmp_path.iterdir())


def damage(path, copy, name, change):
    copy.mkdir()
    for file in path.iterdir():
        (copy / file.name).write_bytes(
            change(file.read_bytes()) if file.name == name else file.read_bytes()
        )
    return copy


@pytest.mark.parametrize("name", ["program.json", "program.pdiparams", "frozen.json"])
def test_a_file_cut_short_is_refused(frozen, tmp_path, name):
    copy = damage(frozen[1], tmp_path / "copy", name, lambda content: content[: len(content) // 2])
    with pytest.raises(ValueError, match="damaged or cut short"):
        FrozenEvaluator(copy)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("version", 99, "version 99"), ("paddle", "2.6.0", "Paddle 2.6.0"), ("format", "x", "format")],
)
def test_another_version_is_refused(frozen, tmp_path, field, value, message):
    def change(content: bytes) -> bytes:
        return json.dumps({**json.loads(content), field: value}).encode()

    with pytest.raises(ValueError, match=message):
        FrozenEvaluator(damage(frozen[1], tmp_path / "copy", "frozen.json", change))


def test_no_frozen_potential(tmp_path):
    with pytest.raises(ValueError, match="no frozen potential"):
        FrozenEvaluator(tmp_path)
