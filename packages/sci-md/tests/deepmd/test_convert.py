"""DeePMD-kit and we compute the same from the same parameters."""

import numpy as np
import paddle
import pytest
from ase.build import bulk
from deepmd.dpmodel.model.ener_model import EnergyModel

from oarlock.sci_md.deepmd import load_deepmd, save_deepmd
from oarlock.sci_md.deepmd.convert import from_dict, to_dict
from oarlock.sci_md.graph import to_graph
from oarlock.sci_md.neighbours import find_neighbours
from oarlock.sci_md.potentials import DeepPotential, DeepPotentialConfig, build
from oarlock.sci_md.structure import Structure


def crystal() -> Structure:
    atoms = bulk("Cu", cubic=True).repeat((2, 2, 2))
    atoms.rattle(0.1, seed=1)
    atoms.numbers[::3] = 8
    return Structure.from_ase(atoms)


@pytest.fixture(scope="module", params=[True, False], ids=["one side", "both sides"])
def potential(request) -> DeepPotential:
    paddle.seed(3)
    config = DeepPotentialConfig(
        elements=("Cu", "O"),
        cutoff=4.0,
        smooth=1.0,
        dtype="float64",
        one_side=request.param,
        embedding=(4, 8, 16),
        axis=3,
        fitting=(10, 10),
        sel=(60, 40),
    )
    found = build(config)
    found.fit_statistics([find_neighbours(crystal(), config.elements, config.cutoff)])
    found.set_reference([1.0, 2.0], 0.7)
    found.eval()
    return found


def evaluated(potential: DeepPotential) -> dict[str, np.ndarray]:
    atoms = find_neighbours(crystal(), potential.elements, potential.cutoff)
    result = potential(to_graph([atoms], potential.config.dtype))
    return {name: tensor.numpy() for name, tensor in result.items()}


def test_the_numpy_backend_agrees(potential):
    own, structure = evaluated(potential), crystal()
    species = find_neighbours(structure, potential.elements, 1.0).species
    theirs = EnergyModel.deserialize(to_dict(potential)).call(
        structure.positions[None], species[None].astype("int64"), structure.cell.reshape(1, 9)
    )
    np.testing.assert_allclose(theirs["atom_energy"][0, :, 0], own["atomic_energies"], atol=1e-12)


@pytest.mark.parametrize("suffix", [".pd", ".dp", ".yaml"])
def test_files_go_both_ways(potential, tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    save_deepmd(potential, path)
    again = load_deepmd(path)
    # The scale has gone into the last layer, the only change.
    for name, values in evaluated(again).items():
        np.testing.assert_allclose(values, evaluated(potential)[name], atol=1e-12)
    assert again.config == potential.config


def test_refuses_what_has_no_place(potential, tmp_path):
    model = to_dict(potential)
    with pytest.raises(ValueError, match="pair_exclude_types"):
        from_dict({**model, "pair_exclude_types": [[0, 1]]})
    with pytest.raises(ValueError, match="DeepmdEvaluator"):
        from_dict({**model, "descriptor": {**model["descriptor"], "type": "dpa1"}})
    with pytest.raises(ValueError, match=r"\.pd"):
        save_deepmd(potential, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="no file"):
        load_deepmd(tmp_path / "model.pd")
    broken = tmp_path / "broken.pd"
    broken.write_bytes(b"half")
    with pytest.raises(ValueError, match="cut short"):
        load_deepmd(broken)
