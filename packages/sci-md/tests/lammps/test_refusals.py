"""What `pair_style oarlock` refuses, and how: LAMMPS goes on, and nothing is computed."""

import numpy as np
import pytest
from oarlock.sci_md.evaluate import EagerEvaluator
from oarlock.sci_md.lammps.options import read_options


def ours(model, elements="Cu", options=""):
    return f"pair_style oarlock {model} {options}\npair_coeff * * {elements}"


def refused(simulation, text, message):
    with pytest.raises(Exception, match=message):
        simulation(text)


def test_a_model_that_cannot_be_read(models, simulation, crystal, tmp_path):
    refused(simulation, crystal(ours(tmp_path / "absent")), "absent' does not exist")
    (tmp_path / "notes.txt").write_text("no potential")
    refused(simulation, crystal(ours(tmp_path / "notes.txt")), "of no known kind")
    content = models["lj.safetensors"].read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    refused(simulation, crystal(ours(tmp_path / "cut.safetensors")), "damaged or cut short")
    refused(simulation, crystal("pair_style oarlock"), "needs the file or folder")


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ("Au", "type 1 is Au, an element that the potential does not know: it knows O, Cu"),
        ("Kupfer", "type 1 is Kupfer, no element"),
        ("NULL", "no type has an element"),
        ("Cu Cu", "one element .or NULL. for each of the 1 atom types"),
        ("", "one element .or NULL. for each"),
    ],
)
def test_elements(models, simulation, crystal, elements, message):
    refused(simulation, crystal(ours(models["schnet"], elements)) + "run 0", message)


def test_a_type_without_element(models, simulation, crystal):
    text = crystal(ours(models["lj"], "Cu NULL"), types=2) + "run 0"
    refused(simulation, text, "types 1 and 2 have no element|not set")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("threads", "threads has no value"),
        ("threads 0", "threads=0 has to be between"),
        ("threads many", "has to be a whole number"),
        ("threads 1 threads 1", "given twice"),
        ("speed high", "speed is no option: there are .*threads"),
    ],
)
def test_options(models, simulation, crystal, words, message):
    refused(simulation, crystal(ours(models["lj"], options=words)), message)


def test_options_are_those_of_open_evaluator():
    assert read_options(["threads", "2"]) == {"threads": 2}
    assert read_options([]) == {}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("pair_modify shift yes", "pair_modify shift has no meaning"),
        ("pair_modify tail yes", "pair_modify tail has no meaning"),
        ("neigh_modify exclude type 1 1", "remove neigh_modify exclude"),
        ("pair_modify compute yes", None),
    ],
)
def test_settings_of_lammps(models, simulation, crystal, lines, message):
    text = crystal(ours(models["lj"]) + "\n" + lines) + "run 0"
    if message is None:
        assert np.isfinite(simulation(text).get_thermo("pe"))
    else:
        refused(simulation, text, message)


def test_units(models, simulation, crystal):
    text = crystal(ours(models["lj"]), units="lj") + "run 0"
    refused(simulation, text, "works in units metal and real, not in units lj")


def test_bonds_that_take_neighbours_away(models, simulation, crystal):
    text = crystal("special_bonds lj/coul 0 0 0\n" + ours(models["lj"]), style="full") + "run 0"
    refused(simulation, text, "special_bonds lj/coul 1.0 1.0 1.0")
    text = crystal("special_bonds lj/coul 1 1 1\n" + ours(models["lj"]), style="full") + "run 0"
    assert np.isfinite(simulation(text).get_thermo("pe"))


def test_message_passing_without_ids(models, simulation, crystal):
    text = crystal(ours(models["schnet"])).replace("newton", "atom_modify id no map yes\nnewton", 1)
    refused(simulation, text.replace(" map yes", "") + "run 0", "needs atom IDs")


def test_overlapping_atoms_are_named(models, simulation, crystal):
    close = (
        "create_atoms 1 single 5.5 5.5 5.5 units box\ncreate_atoms 1 single 5.5 5.5 5.5 units box"
    )
    text = crystal(ours(models["schnet"])).replace("fix 1", f"{close}\nfix 1") + "run 0"
    refused(simulation, text, r"IDs (109 and 110|110 and 109), are 0 Å apart.*step 0, rank 0")


class OfEnergiesAndForces:
    """An evaluator that cannot share the virial out."""

    def __init__(self, potential):
        whole = EagerEvaluator(potential)
        self.elements, self.cutoff, self.reach = whole.elements, whole.cutoff, whole.reach
        self.evaluate = whole.evaluate


def test_an_evaluator_without_virials_of_atoms(models, simulation, crystal, monkeypatch):
    monkeypatch.setattr("oarlock.sci_md.evaluate.opening.EagerEvaluator", OfEnergiesAndForces)
    stress = (
        "compute s all stress/atom NULL\ncompute t all reduce sum c_s[1]\n"
        "thermo_style custom step c_t\n"
    )
    text = crystal(ours(models["lj.safetensors"]))
    assert np.isfinite(simulation(text + "run 0").get_thermo("pe"))
    refused(simulation, text + stress + "run 0", "gives no virials of single atoms")


def test_whatever_is_raised_reaches_lammps_and_lammps_goes_on(
    models, simulation, crystal, monkeypatch
):
    one = simulation(crystal(ours(models["lj.safetensors"])) + "run 0")
    before = one.get_thermo("pe")

    def fail(self, atoms):
        raise ArithmeticError("braces {} and percents %s")

    with monkeypatch.context() as patch:
        patch.setattr(EagerEvaluator, "evaluate", fail)
        with pytest.raises(Exception, match=r"ArithmeticError: braces \{\} and percents %s"):
            one.command("run 5")
    one.command("run 0")
    assert one.get_thermo("pe") == pytest.approx(before, rel=1e-12)


def test_forces_that_are_not_finite(models, simulation, crystal, monkeypatch):
    original = EagerEvaluator.evaluate

    def spoil(self, atoms):
        self.potential.scale.set_value(self.potential.scale * float("nan"))
        return original(self, atoms)

    monkeypatch.setattr(EagerEvaluator, "evaluate", spoil)
    refused(simulation, crystal(ours(models["lj.safetensors"])) + "run 0", "is not finite")
