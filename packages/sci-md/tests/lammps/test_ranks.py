"""The pair style in processes of its own: `lmp`, Python, and two ranks under `mpiexec`."""

import re
import subprocess

import numpy as np
import pytest
from oarlock.sci_md import lammps
from oarlock.sci_md.lammps.building import file_of

ARGUMENTS = ["-log", "none", "-nocite"]


def ours(model, elements="Cu O", options=""):
    return f"pair_style oarlock {model} {options}\npair_coeff * * {elements}"


PRINTS = """
compute energy all pe/atom
{sums}
thermo_style custom step pe etotal press pxx pxy {columns}
thermo_modify format float %24.16g
thermo 5
run 10
"""
ENERGIES = PRINTS.format(sums="compute sum all reduce sum c_energy", columns="c_sum")
VIRIALS = PRINTS.format(
    sums="compute virial all stress/atom NULL virial\n"
    "compute sum all reduce sum c_energy c_virial[1] c_virial[4]",
    columns="c_sum[*]",
)


def printed(output):
    """The rows of each table of thermodynamics."""
    tables = re.findall(r"^ *Step .*?\n(.*?)^Loop time", output, re.S | re.M)
    return [
        np.array([[float(word) for word in line.split()] for line in table.splitlines()])
        for table in tables
    ]


@pytest.fixture(scope="module")
def alloy(models, crystal):
    """Both elements, fast atoms, and lists that are built anew within the run."""
    kinds = (
        "region core sphere 1.4 1.6 1.3 1.2\nset region core type 2\nmass * 63.5\n"
        "velocity all create 8000 11 loop geom"
    )

    def text(newton: str) -> str:
        # Without newton, LAMMPS does not bring the virials of ghosts home.
        prints = VIRIALS if newton == "on" else ENERGIES
        return crystal(ours(models["schnet"]), types=2, set=kinds, newton=newton) + prints

    return text


@pytest.fixture(scope="module")
def alone(alloy, plugin):
    """One rank in `lmp` itself, which starts the Python that the pair style was built for. It finds the
    pair style where an installed package says it is (LAMMPS' entry points fill this variable)."""
    done = subprocess.run(
        [file_of("lammps", "lammps/lmp"), *ARGUMENTS],
        input=alloy("on"),
        capture_output=True,
        text=True,
        env={**lammps.environment(), "LAMMPS_PLUGIN_PATH": str(plugin.parent)},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Neighbor list builds = [1-9]", done.stdout)
    (table,) = printed(done.stdout)
    return table


def test_two_ranks_find_what_one_finds_and_a_failure_of_one_ends_both(alone, alloy, plugin):
    overlapping = "create_atoms 1 single 1.5 1.5 1.5 units box\n" * 2
    text = alloy("on") + "clear" + alloy("off") + overlapping + "run 0\nprint 'went on'"
    with pytest.raises(lammps.LammpsFailed, match=r"ERROR: .* 0 Å apart.*rank 0") as failed:
        lammps.run(text, ranks=2, plugin=plugin, arguments=ARGUMENTS, timeout=120)
    output = failed.value.output
    assert "\nwent on" not in output
    assert "communication cutoff 10 for a reach of 2" in output
    assert "1 by 1 by 2" in output
    tables = printed(output)
    assert len(tables) == 2
    for found in tables:
        np.testing.assert_allclose(found, alone[:, : found.shape[1]], rtol=1e-9, atol=1e-7)


def test_a_run_that_ends_well(models, crystal, plugin, tmp_path):
    text = crystal(ours(models["lj"], "Cu")) + "run ${steps}\nprint 'here' file made.txt"
    output = lammps.run(
        text, folder=tmp_path, variables={"steps": "3"}, plugin=plugin, arguments=ARGUMENTS
    )
    assert printed(output)[0].shape[0] == 2
    assert (tmp_path / "made.txt").read_text() == "here\n"


def test_no_rank():
    with pytest.raises(ValueError, match="ranks=0"):
        lammps.run("run 0", ranks=0)
