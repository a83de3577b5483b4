"""`pair_style oarlock` in this process, against LAMMPS' own pair styles and our evaluators."""

import numpy as np
import pytest
from ase.data import atomic_numbers
from oarlock.sci_md.evaluate import open_evaluator
from oarlock.sci_md.neighbours import find_neighbours
from oarlock.sci_md.structure import Structure

BAR = 1.602176634e6  # eV/Å³ in bar
LJ_CUT = "pair_style lj/cut 5.0\npair_coeff * * 0.1 2.3"


def ours(model, elements="Cu", options=""):
    return f"pair_style oarlock {model} {options}\npair_coeff * * {elements}"


def forces_of(simulation):
    order = np.argsort(simulation.numpy.extract_atom("id")[: simulation.get_natoms()])
    return simulation.numpy.extract_atom("f")[order].copy()


def structure_of(simulation, elements):
    count = simulation.get_natoms()
    low, high, xy, yz, xz, _, _ = simulation.extract_box()
    edges = np.subtract(high, low)
    order = np.argsort(simulation.numpy.extract_atom("id")[:count])
    kinds = simulation.numpy.extract_atom("type")[order]
    return Structure(
        numbers=np.array([atomic_numbers[elements[kind - 1]] for kind in kinds]),
        positions=simulation.numpy.extract_atom("x")[order],
        cell=np.array([[edges[0], 0, 0], [xy, edges[1], 0], [xz, yz, edges[2]]]),
        pbc=np.array([True, True, True]),
    )


SUMS = """
compute energy all pe/atom
compute stress all stress/atom NULL virial
compute total all reduce sum c_energy c_stress[1] c_stress[2] c_stress[4]
thermo_style custom step pe etotal press pxx pxy c_total[1]
thermo 50
"""


@pytest.mark.parametrize(("model", "newton"), [("lj", "on"), ("lj.safetensors", "off")])
def test_lennard_jones_is_lj_cut(models, simulation, crystal, newton, model):
    both = []
    for pair in (LJ_CUT, ours(models[model])):
        one = simulation(crystal(pair, newton=newton) + SUMS + "run 100")
        both.append(
            {
                "thermo": [one.get_thermo(key) for key in ("pe", "etotal", "press", "pxx", "pxy")],
                "forces": forces_of(one),
                "energies": np.sort(one.numpy.extract_compute("energy", 1, 1)),
                "stresses": np.sort(one.numpy.extract_compute("stress", 1, 2), axis=0),
                "sums": one.numpy.extract_compute("total", 0, 1),
            }
        )
    theirs, found = both
    for key in theirs:
        scale = np.abs(theirs[key]).max()
        np.testing.assert_allclose(found[key], theirs[key], rtol=1e-9, atol=1e-10 * scale)


@pytest.mark.parametrize(
    "tilt", ["", "change_box all triclinic\nchange_box all xy final 1.7 remap units box"]
)
@pytest.mark.parametrize("model", ["schnet", "schnet.safetensors", "deep.safetensors", "deep.pd"])
def test_lammps_says_what_the_evaluator_says(models, simulation, crystal, tilt, model):
    """The box is smaller than SchNet's reach: images of images act on an atom."""
    kinds = "set group all type/ratio 2 0.4 5\n" + tilt
    one = simulation(crystal(ours(models[model], "Cu O"), types=2, set=kinds) + "run 3")
    evaluator = open_evaluator(models[model])
    structure = structure_of(one, ["Cu", "O"])
    meant = evaluator.evaluate(find_neighbours(structure, evaluator.elements, evaluator.cutoff))
    assert one.get_thermo("pe") == pytest.approx(meant.energy, rel=1e-12)
    np.testing.assert_allclose(forces_of(one), meant.forces, atol=1e-10)
    kinetic = one.get_thermo("ke") * 2 / 3 / structure.volume * BAR
    pressure = np.trace(meant.virial) / 3 / structure.volume * BAR + kinetic
    assert one.get_thermo("press") == pytest.approx(pressure, rel=1e-6)


def test_pressure_is_the_slope_of_the_energy(models, simulation, crystal):
    one = simulation(crystal(ours(models["schnet"])) + "run 0")
    pressure, box = one.get_thermo("press"), one.get_thermo("lx")
    energies = []
    for edge in (box * (1 - 1e-5), box * (1 + 1e-5)):
        one.command(
            "change_box all " + " ".join(f"{d} final 0 {edge}" for d in "xyz") + " remap units box"
        )
        one.command("run 0")
        energies.append((edge**3, one.get_thermo("pe")))
    (small, before), (large, after) = energies
    assert pressure == pytest.approx(-(after - before) / (large - small) * BAR, rel=1e-6)


def test_energy_is_kept_while_lists_are_built_anew(models, simulation, crystal):
    one = simulation(crystal(ours(models["schnet"])) + "velocity all create 900 3\nrun 0")
    before = one.get_thermo("etotal")
    one.command("run 60")
    swing = one.get_thermo("ke")
    assert one.get_thermo("etotal") == pytest.approx(before, abs=2e-3 * swing)


def test_units_real(models, simulation, crystal):
    metal = simulation(crystal(ours(models["schnet"])) + "run 0")
    real = simulation(crystal(ours(models["schnet"]), units="real", timestep="2.0") + "run 0")
    unit = 23.060549
    assert real.get_thermo("pe") == pytest.approx(metal.get_thermo("pe") * unit, rel=1e-7)
    np.testing.assert_allclose(forces_of(real), forces_of(metal) * unit, rtol=1e-7, atol=1e-9)
    assert real.get_thermo("press") * 1.01325 == pytest.approx(metal.get_thermo("press"), rel=1e-5)


def test_with_charges_the_forces_are_the_same(models, simulation, crystal):
    plain = simulation(crystal(ours(models["lj"])) + "run 0")
    charged = simulation(
        crystal(ours(models["lj"]), style="charge", set="set type 1 charge 1.0") + "run 0"
    )
    np.testing.assert_array_equal(forces_of(charged), forces_of(plain))


def test_hybrid_overlay_adds(models, simulation, crystal):
    pair = (
        f"pair_style hybrid/overlay oarlock {models['schnet']} lj/cut 5.0\n"
        "pair_coeff * * oarlock Cu\npair_coeff * * lj/cut 0.1 2.3"
    )
    together = simulation(crystal(pair) + "run 0")
    parts = [simulation(crystal(one) + "run 0") for one in (ours(models["schnet"]), LJ_CUT)]
    for key in ("pe", "press"):
        total = sum(part.get_thermo(key) for part in parts)
        assert together.get_thermo(key) == pytest.approx(total, rel=1e-10)
    total = forces_of(parts[0]) + forces_of(parts[1])
    np.testing.assert_allclose(forces_of(together), total, atol=1e-10)


@pytest.mark.parametrize("model", ["lj", "schnet"])
@pytest.mark.parametrize("newton", ["on", "off"])
def test_types_of_another_pair_style_are_not_seen(models, simulation, crystal, model, newton):
    """The energy of atoms of one type only, among others."""
    pair = (
        f"pair_style hybrid oarlock {models[model]} zero 5.0\n"
        "pair_coeff * * oarlock Cu NULL\npair_coeff * 2 zero"
    )
    kinds = "set group all type/ratio 2 0.3 5"
    per_atom = (
        "compute energy all pe/atom\ncompute sum all reduce sum c_energy\n"
        "thermo_style custom step pe press c_sum\n"
    )
    one = simulation(crystal(pair, types=2, set=kinds, newton=newton) + per_atom + "run 2")
    whole = structure_of(one, ["Cu", "Ag"])
    mine = whole.numbers == atomic_numbers["Cu"]
    assert 40 < mine.sum() < 108
    part = Structure(
        numbers=whole.numbers[mine],
        positions=whole.positions[mine],
        cell=whole.cell,
        pbc=whole.pbc,
    )
    evaluator = open_evaluator(models[model])
    meant = evaluator.evaluate(find_neighbours(part, evaluator.elements, evaluator.cutoff))
    assert one.get_thermo("pe") == pytest.approx(meant.energy, rel=1e-10)
    assert one.numpy.extract_compute("sum", 0, 0) == pytest.approx(meant.energy, rel=1e-10)
    np.testing.assert_allclose(forces_of(one)[mine], meant.forces, atol=1e-10)
    assert not forces_of(one)[~mine].any()


def test_a_restart_asks_for_the_pair_style_again(models, simulation, crystal, tmp_path):
    one = simulation(crystal(ours(models["lj"])) + f"run 2\nwrite_restart {tmp_path}/restart")
    again = simulation(
        f"read_restart {tmp_path}/restart\n{ours(models['lj'])}\nfix 1 all nve\nrun 0"
    )
    assert again.get_thermo("pe") == pytest.approx(one.get_thermo("pe"), rel=1e-12)


@pytest.mark.parametrize("options", ["dtype float32", "native no", "compressed yes threads 1"])
def test_options_change_how_it_is_computed(models, simulation, crystal, options):
    found = [
        simulation(crystal(ours(models["deep.safetensors"], options=words)) + "run 0")
        for words in ("", options)
    ]
    assert (forces_of(found[0]) != forces_of(found[1])).any()
    assert found[0].get_thermo("pe") == pytest.approx(found[1].get_thermo("pe"), rel=1e-5)


def test_a_model_can_be_exchanged(models, simulation, crystal):
    one = simulation(crystal(ours(models["lj"])) + "run 0")
    first = one.get_thermo("pe")
    one.commands_string(ours(models["schnet"]) + "\nrun 0")
    assert one.get_thermo("pe") != pytest.approx(first)
    one.commands_string(ours(models["lj"], options="threads 1") + "\nrun 0")
    assert one.get_thermo("pe") == pytest.approx(first, rel=1e-12)
