"""The generator: order, cache, resuming, failures, processes."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from ase.build import molecule

from oarlock.sci_md.data import read, write
from oarlock.sci_md.labels import (
    LabelMethod,
    TightBinding,
    content_hash,
    generate,
    rattled,
)
from oarlock.sci_md.structure import Structure


@dataclass(frozen=True, kw_only=True, slots=True)
class Springs(LabelMethod):
    """A quadratic energy; refuses what lies to the left of a plane. Counts its calls in a list."""

    kind: ClassVar[str] = "springs"
    calls: ClassVar[list[str]] = []
    stiffness: float = 1.0

    def version(self):
        return "1"

    def label(self, structure):
        self.calls.append(structure.name)
        if structure.positions[0, 0] < -0.5:
            raise ValueError("too far to the left")
        energy = 0.5 * self.stiffness * np.square(structure.positions).sum()
        return replace(structure, energy=energy, forces=-self.stiffness * structure.positions)


@pytest.fixture
def structures():
    atoms = Structure.from_ase(molecule("H2O"), name="water")
    return rattled(atoms, count=6, deviation=0.05, seed=1)


@pytest.fixture(autouse=True)
def forget():
    Springs.calls.clear()


def test_nothing_is_computed_twice(structures, tmp_path):
    first = generate(structures[:4], Springs(), cache=tmp_path, progress=False)
    again = generate([*structures, structures[0]], Springs(), cache=tmp_path, progress=False)
    assert (first.computed, first.cached) == (4, 0)
    assert (again.computed, again.cached) == (2, 5)
    assert Springs.calls == [one.name for one in structures]
    assert [one.name for one in again.structures] == [
        one.name for one in [*structures, structures[0]]
    ]
    for one in again.structures:
        assert one.energy == Springs().label(one).energy
        assert np.array_equal(one.forces, -one.positions)
        assert one.virial is None


def test_the_hash_is_of_what_is_computed(structures):
    one = structures[0]
    known = content_hash(one, Springs())
    assert content_hash(replace(one, name="other", energy=1.0), Springs()) == known
    assert content_hash(replace(one, positions=one.positions + 1e-12), Springs()) != known
    assert content_hash(replace(one, cell=np.eye(3)), Springs()) != known
    assert content_hash(one, Springs(stiffness=2.0)) != known


def test_an_interruption_loses_nothing(structures, tmp_path, monkeypatch):
    label = Springs.label

    def interrupted(self, structure):
        if len(self.calls) == 3:
            raise KeyboardInterrupt
        return label(self, structure)

    monkeypatch.setattr(Springs, "label", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(structures, Springs(), cache=tmp_path, progress=False)
    monkeypatch.setattr(Springs, "label", label)
    assert generate(structures, Springs(), cache=tmp_path, progress=False).computed == 3


def test_failures_are_kept_and_said(structures, tmp_path):
    bad = replace(structures[2], positions=structures[2].positions - 1.0, name="left")
    given = [structures[0], bad, structures[1]]
    for computed in (3, 0):
        labelled = generate(given, Springs(), cache=tmp_path, progress=False)
        assert labelled.computed == computed
        assert len(labelled.structures) == 2
        (failure,) = labelled.failures
        assert (failure.index, failure.name, failure.message) == (1, "left", "too far to the left")
        assert "left: too far to the left" in str(labelled)
    again = generate(given, Springs(), cache=tmp_path, retry_failures=True, progress=False)
    assert again.computed == 1


def test_processes_give_the_same(structures, tmp_path):
    charged = replace(structures[0], numbers=[9, 1, 1], name="radical")
    given = [*structures[:3], charged]
    alone = generate(given, TightBinding(), cache=tmp_path / "1", progress=False)
    together = generate(given, TightBinding(), cache=tmp_path / "2", workers=2, progress=False)
    assert together.failures == alone.failures
    assert "11 electrons" in together.failures[0].message
    for one, other in zip(alone.structures, together.structures, strict=True):
        assert one.name == other.name
        assert one.energy == pytest.approx(other.energy, abs=1e-9)
        assert np.allclose(one.virial, other.virial, atol=1e-7)


def test_damaged_files_and_bad_arguments_are_refused(structures, tmp_path):
    generate(structures[:1], Springs(), cache=tmp_path, progress=False)
    (path,) = tmp_path.glob("*/*.npz")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged"):
        generate(structures[:1], Springs(), cache=tmp_path, progress=False)
    with pytest.raises(ValueError, match="is a file"):
        generate(structures[:1], Springs(), cache=path, progress=False)
    with pytest.raises(ValueError, match="structures is empty"):
        generate([], Springs(), cache=tmp_path)
    with pytest.raises(ValueError, match="workers=0"):
        generate(structures, Springs(), cache=tmp_path, workers=0)


def test_labels_go_through_a_file(structures, tmp_path):
    labelled = generate(structures[:2], TightBinding(), cache=tmp_path, progress=False).structures
    write(tmp_path / "labels.xyz", labelled)
    for one, back in zip(labelled, read(tmp_path / "labels.xyz"), strict=True):
        assert back.energy == pytest.approx(one.energy, abs=1e-7)
        assert np.allclose(back.forces, one.forces, atol=1e-7)
