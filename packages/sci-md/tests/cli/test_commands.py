"""Commands, from files to files."""

import json
import zipfile

import ase.build
import ase.io
import pytest
import yaml
from typer.testing import CliRunner

from oarlock.sci_md.cli.main import app
from oarlock.sci_md.data import read, write

runner = CliRunner()


def call(*words, code=0):
    result = runner.invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(emt, tmp_path_factory):
    """With structures, a configuration and a trained potential."""
    folder = tmp_path_factory.mktemp("cli")
    write(folder / "data.xyz", emt(12, size=1))
    config = {
        "potential": {"model": "schnet", "cutoff": 3.6, "features": 8, "layers": 1, "radial": 8},
        "data": {"train": "data.xyz", "validation": 2, "test": 2},
        "training": {"steps": 4, "plots": False},
        "output": "run",
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    output = call("train", folder / "config.yaml", "--quiet")
    assert "done after 4 steps" in output and "meV/atom" in output
    return folder


def test_train_goes_on_and_refuses(folder):
    output = call("train", folder / "config.yaml", "--quiet", code=2)
    assert "holds a run already" in output and "Traceback" not in output
    output = call("train", folder / "config.yaml", "--quiet", "--resume", "--steps", "6")
    assert "done after 6 steps" in output
    (folder / "bad.yaml").write_text("potential: [")
    assert "no YAML" in call("train", folder / "bad.yaml", code=2)
    (folder / "bad.json").write_text('{"model": {"type_map": ["O"]}, "training": {}}')
    assert "numb_steps" in call("train", folder / "bad.json", code=2)
    assert "no file" in call("train", folder / "none.yaml", code=2)
    words = ("train", folder / "config.yaml", "--quiet", "--resume", "--output", folder / "empty")
    assert "no run that could be resumed" in call(*words, code=2)


def test_test(folder):
    output = call(
        "test", folder / "run/best.safetensors", folder / "data.xyz", "--output", folder / "t"
    )
    assert "forces on Au" in output
    assert json.loads((folder / "t/test.json").read_text())["structures"] == 12
    assert (folder / "t/test.png").is_file()
    words = ("test", folder / "run/best.safetensors", folder / "data.xyz", "--length-unit", "nm")
    assert "declare length='Bohr'" in call(*words, code=2)


def test_freeze_info_and_plot(folder):
    call("freeze", folder / "run/best.safetensors", folder / "frozen")
    assert "schnet" in call("info", folder / "frozen")
    output = call("info", folder / "run/best.safetensors")
    assert "reference energies" in output and "parameters" in output
    output = call("info", folder / "run")
    assert "best.safetensors" in output and "parameters" in output
    output = call("info", folder / "data.xyz")
    assert "12 energies, 12 forces, 12 virials" in output
    call("plot", folder / "run", folder / "run/history.csv", "--output", folder / "c.png")
    assert (folder / "c.png").stat().st_size > 10_000
    for wrong in (folder, folder / "run/best.safetensors"):
        assert "no history" in call("plot", wrong, "--output", folder / "d.png", code=2)


def test_archives_say_what_they_hold(folder):
    with zipfile.ZipFile(folder / "sets.zip", "w") as archive:
        archive.write(folder / "data.xyz", "inner/data.xyz")
    output = call("info", folder / "sets.zip", code=2)
    assert "sets.zip/inner/data.xyz" in output.replace("\n", "")
    assert "12 energies" in call("info", folder / "sets.zip/inner/data.xyz")
    output = call("label", folder / "sets.zip", folder / "out.xyz", code=2)
    assert "sets.zip/inner/data.xyz" in output.replace("\n", "")


def test_plots_of_a_committee_show_its_members(folder):
    for index in range(2):
        (folder / f"committee/member-{index}").mkdir(parents=True)
        history = (folder / "run/history.csv").read_text()
        (folder / f"committee/member-{index}/history.csv").write_text(history)
    call("plot", folder / "committee", "--output", folder / "e.png")
    assert (folder / "e.png").stat().st_size > 10_000


def test_lines_for_lammps_name_elements_that_the_potential_knows(folder):
    model = folder / "run/best.safetensors"
    assert "pair_coeff * * Au NULL" in call("lammps", "input", model, "Au", "NULL")
    output = call("lammps", "input", model, "Ag", code=2)
    assert "knows Cu, Au, not Ag" in output


def test_bench(folder):
    output = call("bench", folder / "run/best.safetensors", "--atoms", "4,30", "--repeat", "1")
    assert "32" in output
    assert "atoms='a'" in call("bench", folder / "run/best.safetensors", "--atoms", "a", code=2)


def test_label(folder):
    water = ase.build.molecule("H2O")
    ase.io.write(folder / "water.xyz", water)
    words = ("label", folder / "water.xyz", folder / "labelled.xyz", "--rattle", "2", "--deviation", "0.05")  # fmt: skip
    assert "2 labelled, 0 failed (2 computed now" in call(*words)
    assert "(0 computed now, 2 from the cache)" in call(*words)
    labelled = read(folder / "labelled.xyz")
    assert len(labelled) == 2 and -150 < labelled[0].energy < -130


def test_md(folder):
    atoms = ase.build.bulk("Cu", cubic=True).repeat(2)
    ase.io.write(folder / "copper.xyz", atoms)
    words = ("md", folder / "run/best.safetensors", "--structure", folder / "copper.xyz", "--quiet")
    once = (*words, "--steps", "4", "--every", "2", "--output", folder / "md")
    assert "done before" not in call(*once)
    assert "all steps were done before" in call(*once)
    assert "ensemble='nvt' is not known" in call(*words, "--ensemble", "nvt", code=2)
