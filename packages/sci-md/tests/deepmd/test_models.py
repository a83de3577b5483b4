"""DeePMD-kit's Paddle models: trained, frozen and evaluated, with forces that are slopes."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import paddle
import pytest
from ase.build import bulk
from deepmd.infer import DeepPot

from oarlock.sci_md.deepmd import load_deepmd, mend
from oarlock.sci_md.deepmd import version as deepmd_version
from oarlock.sci_md.deepmd.extended import extended
from oarlock.sci_md.evaluate import (
    DeepmdEvaluator,
    NativeDeepPotential,
    open_evaluator,
)
from oarlock.sci_md.neighbours import Neighbourhood, find_neighbours
from oarlock.sci_md.structure import Structure

RADII = {"rcut": 4.0, "rcut_smth": 1.0}
SMALL = {**RADII, "neuron": [4, 8], "axis_neuron": 4}
FLOW = {"n_dim": 8, "e_dim": 6, "a_dim": 4, "nlayers": 2, "axis_neuron": 2}
FLOW |= {"e_rcut": 4.0, "e_rcut_smth": 1.0, "e_sel": 60}
FLOW |= {"a_rcut": 3.0, "a_rcut_smth": 1.0, "a_sel": 16}
DESCRIPTORS = {
    "se_e2_a": {"type": "se_e2_a", **SMALL, "sel": [40, 40]},
    "dpa1": {"type": "dpa1", **SMALL, "sel": 60, "attn": 8, "attn_layer": 1},
    "dpa3": {"type": "dpa3", "repflow": FLOW},
}


def atoms_of(seed: int = 3):
    atoms = bulk("Cu", cubic=True).repeat((2, 2, 1))
    atoms.rattle(0.1, seed=seed)
    atoms.numbers[::3] = 8
    return atoms


def lists_of(atoms, cutoff: float = 4.4) -> Neighbourhood:
    return find_neighbours(Structure.from_ase(atoms), ("Cu", "O"), cutoff)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The checkpoint of a fresh model of some kind."""
    from deepmd.pd.model.model import get_model

    folder = tmp_path_factory.mktemp("models")

    def made(kind: str) -> Path:
        path = folder / f"{kind}.pd"
        if not path.exists():
            params = {
                "type_map": ["Cu", "O"],
                "descriptor": {**DESCRIPTORS[kind], "seed": 1},
                "fitting_net": {"neuron": [8, 8], "seed": 1},
            }
            state = get_model(params).state_dict()
            whole = {f"model.Default.{name}": value for name, value in state.items()}
            whole["_extra_state"] = {"model_params": params, "train_infos": {"step": 0}}
            paddle.save({"model": whole}, str(path))
        return path

    return made


@pytest.mark.parametrize("kind", DESCRIPTORS)
def test_forces_are_slopes_and_the_same_again(kind, checkpoint):
    evaluator = DeepmdEvaluator(checkpoint(kind))
    before = paddle.framework.core._is_eager_prim_enabled()
    atoms = atoms_of()
    found = evaluator.evaluate(lists_of(atoms))
    again = evaluator.evaluate(lists_of(atoms))
    np.testing.assert_array_equal(found.forces, again.forces)
    sides = []
    for step in (1e-4, -1e-4):
        moved = atoms.copy()
        moved.positions[3, 1] += step
        sides.append(evaluator.evaluate(lists_of(moved)).energy)
    slope = (sides[1] - sides[0]) / 2e-4
    assert found.forces[3, 1] == pytest.approx(slope, abs=1e-5 * np.abs(found.forces).max())
    assert found.atomic_energies.sum() == pytest.approx(found.energy)
    # What DeePMD-kit wants of Paddle is not left behind.
    assert paddle.framework.core._is_eager_prim_enabled() == before


@pytest.mark.parametrize("kind", DESCRIPTORS)
def test_equals_deep_pot(kind, checkpoint):
    evaluator = DeepmdEvaluator(checkpoint(kind))
    atoms = atoms_of()
    found = evaluator.evaluate(lists_of(atoms))
    species = lists_of(atoms).species
    try:
        energy, forces, virial = DeepPot(str(checkpoint(kind))).eval(
            atoms.positions.reshape(1, -1), atoms.cell.array.reshape(1, 9), species
        )
    finally:
        paddle.framework.core.set_prim_eager_enabled(False)
    np.testing.assert_allclose(found.energy, energy.item(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.forces, forces[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.virial, virial.reshape(3, 3), rtol=0, atol=1e-12)


def test_opened_by_what_they_are(checkpoint):
    native = open_evaluator(checkpoint("se_e2_a"))
    assert isinstance(native, NativeDeepPotential)
    assert isinstance(open_evaluator(checkpoint("dpa3")), DeepmdEvaluator)
    found = native.evaluate(lists_of(atoms_of()))
    expected = DeepmdEvaluator(checkpoint("se_e2_a")).evaluate(lists_of(atoms_of()))
    np.testing.assert_allclose(found.forces, expected.forces, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.energy, expected.energy, rtol=0, atol=1e-11)
    with pytest.raises(ValueError, match="compressed"):
        open_evaluator(checkpoint("dpa3"), compressed=True)


def test_ghosts_of_another_program(checkpoint):
    """Models that pass messages refuse them, others push them."""
    atoms = lists_of(atoms_of())
    images = extended(atoms, 1)
    counts = (images.lists >= 0).sum(axis=1)
    given = Neighbourhood(
        positions=images.positions,
        species=images.species.astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        neighbours=images.lists[images.lists >= 0].astype(np.int32),
        owned=atoms.owned,
    )
    evaluator = DeepmdEvaluator(checkpoint("dpa1"))
    found, expected = evaluator.evaluate(given), evaluator.evaluate(atoms)
    folded = np.zeros_like(expected.forces)
    np.add.at(folded, images.parents, found.forces)
    np.testing.assert_allclose(folded, expected.forces, atol=1e-13)
    np.testing.assert_allclose(found.virial, expected.virial, atol=1e-13)
    with pytest.raises(ValueError, match="passes messages"):
        DeepmdEvaluator(checkpoint("dpa3")).evaluate(given)


def test_warns_of_more_neighbours_than_sel(checkpoint, caplog):
    squeezed = atoms_of()
    squeezed.set_cell(squeezed.cell.array * 0.6, scale_atoms=True)
    evaluator = DeepmdEvaluator(checkpoint("se_e2_a"))
    for _ in range(2):
        evaluator.evaluate(lists_of(squeezed))
    assert [one for one in caplog.messages if "sel=80" in one][1:] == []
    assert any("leaves out the farthest" in one for one in caplog.messages)


def test_mended_once_and_only_the_known_version(monkeypatch):
    mend()
    assert mend() == ()
    monkeypatch.setattr(deepmd_version, "version", lambda name: "3.3.0")
    with pytest.raises(ValueError, match=r"deepmd-kit 3\.2\.0 is needed, 3\.3\.0 is installed"):
        mend()


def test_refuses_damaged_files(tmp_path):
    with pytest.raises(ValueError, match="no file"):
        DeepmdEvaluator(tmp_path / "model.pd")
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(ValueError, match=r"model\.pdiparams"):
        DeepmdEvaluator(tmp_path / "model.json")
    (tmp_path / "model.pdiparams").write_text("")
    with pytest.raises(ValueError, match="cut short"):
        DeepmdEvaluator(tmp_path / "model.json")


def test_a_frozen_program_equals_its_checkpoint(tmp_path):
    """To what Paddle leaves of constants in programs: 1e-10 eV here."""
    with tarfile.open(Path(__file__).with_name("frozen.tar.gz")) as file:
        file.extractall(tmp_path, filter="data")
    atoms = lists_of(atoms_of())
    frozen = DeepmdEvaluator(tmp_path / "frozen.json")
    found, expected = frozen.evaluate(atoms), DeepmdEvaluator(tmp_path / "model.pd").evaluate(atoms)
    assert (frozen.elements, frozen.cutoff) == (("Cu", "O"), 4.0)
    np.testing.assert_allclose(found.energy, expected.energy, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.forces, expected.forces, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.virial, expected.virial, rtol=0, atol=1e-8)


def test_trained_by_its_own_commands(tmp_path):
    """The default of se_e2_a, which gave NaN."""
    rng = np.random.default_rng(0)
    atoms = atoms_of()
    folder = tmp_path / "data/set.000"
    folder.mkdir(parents=True)
    np.save(folder / "coord.npy", atoms.positions.ravel() + rng.normal(0, 0.1, (2, 48)))
    np.save(folder / "box.npy", np.repeat(atoms.cell.array.reshape(1, 9), 2, axis=0))
    np.save(folder / "energy.npy", rng.normal(size=2))
    np.save(folder / "force.npy", rng.normal(size=(2, 48)))
    types = [str(int(number == 8)) for number in atoms.numbers]
    (tmp_path / "data/type.raw").write_text("\n".join(types))
    (tmp_path / "data/type_map.raw").write_text("Cu\nO\n")
    given = {
        "model": {
            "type_map": ["Cu", "O"],
            "descriptor": {**DESCRIPTORS["se_e2_a"], "seed": 1},
            "fitting_net": {"neuron": [8, 8], "seed": 1},
        },
        "learning_rate": {"type": "exp", "start_lr": 1e-3, "stop_lr": 1e-5, "decay_steps": 10},
        "loss": {"type": "ener"},
        "training": {
            "training_data": {"systems": ["data"], "batch_size": 1},
            "numb_steps": 3,
            "disp_freq": 1,
            "save_freq": 3,
        },
    }
    (tmp_path / "input.json").write_text(json.dumps(given))
    command = ["train", "--skip-neighbor-stat", "input.json"]
    done = subprocess.run(
        [sys.executable, "-m", "oarlock.sci_md.deepmd", *command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "mended the forces of se_e2_a" in done.stderr
    curve = np.loadtxt(tmp_path / "lcurve.out")
    assert len(curve) == 3 and np.isfinite(curve).all()
    trained = load_deepmd(tmp_path / "model.ckpt.pd")
    forces = NativeDeepPotential(trained).evaluate(lists_of(atoms)).forces
    assert np.abs(forces).max() > 1e-3
