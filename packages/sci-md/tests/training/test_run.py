"""Runs from files: one potential, committees, and their tables."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from oarlock.sci_md.data import read, write
from oarlock.sci_md.potentials import load
from oarlock.sci_md.training import Committee, RunConfig, run

EXAMPLES = Path(__file__).parents[2] / "examples"
POTENTIAL = {"model": "schnet", "cutoff": 3.6, "features": 8, "layers": 1, "radial": 8}


@pytest.fixture
def folder(emt, tmp_path):
    write(tmp_path / "data.xyz", emt(12, size=1))
    config = {
        "potential": POTENTIAL,
        "data": {"train": "data.xyz", "validation": 2, "test": 0.2, "seed": 1},
        "training": {"steps": 6, "plots": False, "batch": 2},
        "output": "out",
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def test_a_run_from_a_file(folder):
    config = RunConfig.from_file(folder / "config.yaml")
    (member,) = run(config)
    assert member.outcome.reason == "done"
    assert member.potential.elements == ("Cu", "Au")
    out = folder / "out"
    saved = json.loads((out / "test.json").read_text())
    assert saved["structures"] == 2 and saved["forces_mae"] == member.test.forces.mae
    assert "| energy | meV/atom |" in (out / "test.md").read_text()
    again = RunConfig.from_file(out / "config.yaml")
    assert again.training == config.training and again.potential == config.potential
    with pytest.raises(ValueError, match="holds a run already"):
        run(config)
    longer = config.model_copy(update={"training": config.training.model_copy(update={"steps": 9})})
    (member,) = run(longer, resume=True)
    assert member.outcome.step == 9


def test_a_committee_differs_in_parameters_only(folder):
    config = RunConfig.from_file(folder / "config.yaml").model_copy(update={"committee": 2})
    members = run(config)
    assert [one.folder.name for one in members] == ["member-0", "member-1"]
    committee = Committee([one.potential for one in members])
    one = read(folder / "data.xyz")[0]
    deviation = committee.deviation(one)
    assert deviation.atoms.shape == (4,) and deviation.largest > 0
    same = Committee([members[0].potential, load(members[0].folder / "best.safetensors")])
    np.testing.assert_allclose(same.deviation(one).atoms, 0.0, atol=1e-12)
    with pytest.raises(ValueError, match="needs two"):
        Committee([members[0].potential])


def test_parameters_to_begin_with(folder):
    config = RunConfig.from_file(folder / "config.yaml")
    (first,) = run(config)
    update = {"start": str(folder / "out" / "best.safetensors"), "output": str(folder / "more")}
    (second,) = run(config.model_copy(update=update))
    assert second.outcome.reason == "done"
    wider = config.model_copy(update={**update, "output": str(folder / "w"), "potential": {**POTENTIAL, "features": 4}})  # fmt: skip
    with pytest.raises(ValueError, match="other elements or sizes"):
        run(wider)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"potential": {"model": "shcnet"}}, "'shcnet' is not known: there are"),
        ({"potential": {**POTENTIAL, "width": 3}}, "schnet has no width"),
        ({"potential": {**POTENTIAL, "elements": ["Cu"]}}, "holds Au, but the potential knows Cu"),
        ({"data": {"train": "other.xyz"}}, "'other.xyz' is no file"),
        ({"data": {"train": "data.xyz", "validation": 0.5, "test": 7}}, "test needs 7"),
        ({"data": {"train": []}}, "data.train"),
        ({"training": {}}, "exactly one of epochs"),
        ({"outptu": "x"}, "outptu is not known: did you mean output"),
        ({"training": {"steps": 3, "learning_rate": {"begin": 1}}}, "there are kind, start"),
        (
            {"data": {"train": {"source": "data.xyz", "units": {"energy": "eVV"}}}},
            "'eVV' is not known",
        ),
        (
            {"data": {"train": {"source": "data.xyz", "units": {"length": "nm"}}}},
            "declare length='Bohr'",
        ),
    ],
)
def test_wrong_files_are_named(folder, change, message):
    values = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "wrong.yaml").write_text(yaml.safe_dump({**values, **change}))
    with pytest.raises(ValueError, match=message):
        run(RunConfig.from_file(folder / "wrong.yaml"))
    assert not list(folder.glob("out/**/*.safetensors"))


def test_a_wrong_potential_is_told_before_data_are_read(folder):
    values = yaml.safe_load((folder / "config.yaml").read_text())
    config = RunConfig.read(
        {**values, "potential": {**POTENTIAL, "cutoff": -1}, "data": {"train": "absent.xyz"}},
        where="test",
    )
    with pytest.raises(ValueError, match="cutoff=-1"):
        run(config)


def test_the_example_is_read():
    config = RunConfig.from_file(EXAMPLES / "molybdenum.yaml")
    assert config.potential["model"] == "painn" and config.training.batch.structures == 4
    assert config.need == ["energy", "forces", "virial"]
    assert config.output == str(EXAMPLES / "molybdenum")
