"""Inputs that ours and the peers of molecular dynamics read alike."""

import json

import numpy as np
import pytest
from oarlock.accept.dynamics import chain, deepmd_input, elements, molecules
from oarlock.sci_md.data import read
from oarlock.sci_md.neighbours import find_neighbours
from oarlock.sci_md.structure import Structure
from oarlock.sci_md.training.deepmd_input import read_deepmd_input


@pytest.fixture
def dimers():
    """Two structures without a box, and one in a box, all with labels."""
    rng = np.random.default_rng(0)
    found = []
    for count, pbc in ((2, False), (3, False), (4, True)):
        found.append(
            Structure(
                numbers=np.full(count, 42),
                positions=2.0 * np.arange(count)[:, None] + rng.random((count, 3)),
                cell=12.0 * np.eye(3),
                pbc=np.full(3, pbc),
                energy=float(count),
                forces=rng.random((count, 3)),
            )
        )
    return found


def test_a_file_for_peers_has_every_structures_own_neighbours(dimers, tmp_path):
    with np.load(elements.for_peers(dimers, 5.0, tmp_path / "a.npz")) as arrays:
        first_atom = np.cumsum(arrays["atoms"]) - arrays["atoms"]
        first_edge = np.cumsum(arrays["edges"]) - arrays["edges"]
        for one, atom, edge, edges in zip(dimers, first_atom, first_edge, arrays["edges"]):
            part = slice(edge, edge + edges)
            where = arrays["positions"][atom : atom + len(one)]
            vectors = where[arrays["neighbours"][part]] - where[arrays["centers"][part]]
            vectors = vectors + arrays["shifts"][part]
            expected = find_neighbours(one, ("Mo",), 5.0).vectors()
            np.testing.assert_allclose(vectors, expected, atol=1e-12)
            assert edges > 0


def test_both_train_what_one_input_of_deepmd_says(tmp_path):
    given = deepmd_input.values(
        ["system"],
        elements=["Mo"],
        sel=[40],
        cutoff=5.0,
        network={"embedding": [4, 8], "axis": 2, "fitting": [8, 8]},
        rate=(1e-3, 1e-5),
        seed=3,
    )
    file = tmp_path / "input.json"
    file.write_text(json.dumps(deepmd_input.with_steps(given, 200)))
    config, _ = read_deepmd_input(file)
    assert config.training.steps == 200 and config.potential["sel"] == [40]
    rate = config.training.learning_rate
    assert (rate.start, rate.stop, rate.every) == (1e-3, 1e-5, 4)
    assert "numb_steps" not in given["training"]


def test_a_labelled_molecule_is_the_same_for_peers_and_for_us(monkeypatch, tmp_path):
    pytest.importorskip("tblite", reason="tblite, which makes labels, is not installed")
    monkeypatch.setattr(molecules, "TEMPERATURES", (300.0,))
    files = molecules.ethanol(tmp_path, 5.0, 4, 0)
    for name, count in (("training", 2), ("test", 2)):
        structures = read(tmp_path / f"ethanol-{name}.extxyz")
        assert len(structures) == count
        with np.load(files[name]) as arrays:
            np.testing.assert_allclose(arrays["energies"], [one.energy for one in structures])
            forces = np.concatenate([one.forces for one in structures])
            np.testing.assert_allclose(arrays["forces"], forces, atol=1e-7)


def test_the_metal_begins_with_a_frame_of_its_temperature():
    try:
        found = chain.molybdenum()
    except LookupError as missing:
        pytest.skip(str(missing))
    same = [found[index] for index in chain.of_reference(chain.MOLYBDENUM, found)]
    assert same[0] is found[0] and len(same) > 20
    assert all(len(one) == 54 and np.allclose(one.cell, found[0].cell) for one in same)
