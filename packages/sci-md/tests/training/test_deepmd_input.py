"""Inputs of DeePMD-kit are understood, or refused by name."""

import copy
import json

import numpy as np
import pytest

from oarlock.sci_md.data import write
from oarlock.sci_md.training import run
from oarlock.sci_md.training.deepmd_input import from_deepmd, is_deepmd, read_deepmd_input
from oarlock.sci_md.training.schedules import learning_rate

INPUT = {
    "model": {
        "type_map": ["O", "H"],
        "descriptor": {
            "type": "se_e2_a",
            "sel": [46, 92],
            "rcut_smth": 0.5,
            "rcut": 6.0,
            "neuron": [25, 50, 100],
            "resnet_dt": False,
            "axis_neuron": 16,
            "seed": 1,
            "_comment": "",
        },
        "fitting_net": {"neuron": [240, 240, 240], "resnet_dt": True, "seed": 1},
    },
    "learning_rate": {"type": "exp", "decay_steps": 5000, "start_lr": 0.001, "stop_lr": 3.51e-8},
    "loss": {
        "type": "ener",
        "start_pref_e": 0.02,
        "limit_pref_e": 1,
        "start_pref_f": 1000,
        "limit_pref_f": 1,
        "start_pref_v": 0,
        "limit_pref_v": 0,
    },
    "training": {
        "training_data": {"systems": ["data/data_0/", "data/data_1"], "batch_size": "auto"},
        "validation_data": {"systems": ["data/data_3"], "batch_size": 1, "numb_btch": 3},
        "numb_steps": 1000000,
        "seed": 10,
        "disp_file": "lcurve.out",
        "disp_freq": 100,
        "save_freq": 1000,
    },
}


def changed(path, value):
    values = copy.deepcopy(INPUT)
    at = values
    for step in path.split(".")[:-1]:
        at = at[step]
    at[path.split(".")[-1]] = value
    return values


def test_water(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "input.json").write_text(json.dumps(INPUT))
    config, notes = read_deepmd_input(tmp_path / "input.json")
    assert is_deepmd(INPUT) and not is_deepmd({"potential": {"model": "schnet"}})
    assert config.potential == {
        "model": "deep_potential",
        "elements": ["O", "H"],
        "cutoff": 6.0,
        "smooth": 0.5,
        "embedding": [25, 50, 100],
        "axis": 16,
        "one_side": False,
        "embedding_timestep": False,
        "sel": [46, 92],
        "fitting": [240, 240, 240],
        "fitting_timestep": True,
        "dtype": "float64",
    }
    assert [one.source for one in config.data.train] == [
        str(tmp_path / "data/data_0/"),
        str(tmp_path / "data/data_1"),
    ]
    training = config.training
    assert training.steps == 1000000 and training.batch.atoms == 32 and training.ema is None
    assert training.loss.forces.at(0.5) == 500.5 and training.loss.normalise == "deepmd"
    assert any("numb_btch" in note for note in notes) and any("auto" in note for note in notes)


def test_the_learning_rate_is_that_of_deepmd():
    from deepmd.dpmodel.utils.learning_rate import LearningRateExp

    config, _ = from_deepmd(changed("training.numb_steps", 40000))
    theirs = LearningRateExp(start_lr=1e-3, stop_lr=3.51e-8, decay_steps=5000, num_steps=40000)
    steps = [0, 1, 4999, 5000, 17234, 39999]
    mine = [learning_rate(config.training.learning_rate, step, 40000) for step in steps]
    np.testing.assert_allclose(mine, [float(theirs.value(step)) for step in steps], rtol=1e-9)


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("model.descriptor.type", "dpa1", "model.descriptor.type='dpa1' cannot be done here"),
        ("model.descriptor.rcutt", 6.0, "model.descriptor has rcutt, which are not known"),
        ("model.descriptor.activation_function", "gelu", "activation_function='gelu'"),
        ("model.descriptor.exclude_types", [[0, 0]], "exclude_types"),
        ("model.type_map", [], "type_map is missing"),
        ("loss.start_pref_pf", 1.0, "start_pref_pf=1.0 cannot be done here"),
        ("loss.type", "dos", "loss.type='dos'"),
        ("training.numb_steps", None, "numb_steps has to be given"),
        ("training.training_data.batch_size", "mixed:3", "'mixed:3' is not known here"),
        ("training.training_data.systems", [], "systems is missing"),
        ("training.steps_of_numb", 3, "training has steps_of_numb"),
        ("learning_rate.type", "wsd", "learning_rate.type='wsd'"),
        ("spin", {}, "the input has spin"),
    ],
)
def test_what_is_not_known_is_refused(path, value, message):
    with pytest.raises(ValueError, match=message):
        from_deepmd(changed(path, value))


def test_an_input_trains(emt, tmp_path):
    write(tmp_path / "data", emt(5, size=1, symbols=("Cu", "Cu")))
    values = changed("training.numb_steps", 3)
    values["model"]["type_map"] = ["Cu"]
    values["model"]["descriptor"] |= {"sel": [40], "rcut": 3.6, "neuron": [4, 8], "axis_neuron": 2}
    values["model"]["fitting_net"]["neuron"] = [8, 8]
    values["training"]["training_data"]["systems"] = ["data"]
    values["training"]["validation_data"]["systems"] = ["data"]
    (tmp_path / "input.json").write_text(json.dumps(values))
    config, _ = read_deepmd_input(tmp_path / "input.json")
    config = config.model_copy(
        update={"training": config.training.model_copy(update={"plots": False})}
    )
    (member,) = run(config)
    assert member.outcome.step == 3 and member.potential.config.model == "deep_potential"
    assert (member.potential.descriptor.deviation.numpy() != 1.0).all()
