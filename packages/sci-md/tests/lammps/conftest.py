"""Potentials and systems that the tests of LAMMPS share."""

from dataclasses import dataclass
from typing import ClassVar

import paddle
import pytest
from oarlock.sci_md import lammps
from oarlock.sci_md.deepmd import save_deepmd
from oarlock.sci_md.evaluate import freeze
from oarlock.sci_md.ops import lengths, scatter_sum
from oarlock.sci_md.potentials import (
    DeepPotentialConfig,
    Potential,
    PotentialConfig,
    SchNetConfig,
    build,
    save,
)
from oarlock.sci_md.potentials.registry import register

#: A crystal of 108 atoms, shaken. {pair} are the lines of the pair style.
CRYSTAL = """
units {units}
atom_style {style}
newton {newton}
lattice fcc 3.65
region box block 0 3 0 3 0 3
create_box {types} box
create_atoms 1 box
{set}
mass * 63.5
displace_atoms all random 0.15 0.15 0.15 7
neighbor 1.0 bin
neigh_modify every 1 delay 0 check yes
timestep {timestep}
{pair}
fix 1 all nve
thermo_modify format float %24.16g
"""


@pytest.fixture(scope="session")
def crystal():
    """The lines of an input."""

    def lines(pair: str, **changes: object) -> str:
        values = {"units": "metal", "style": "atomic", "newton": "on", "types": 1, "set": ""}
        values |= {"timestep": "0.002", **changes}
        return CRYSTAL.format(pair=pair, **values)

    return lines


@dataclass(frozen=True, kw_only=True, slots=True)
class LennardJonesConfig(PotentialConfig):
    """ε in eV and σ in Å; cut off as in LAMMPS' lj/cut."""

    model: ClassVar[str] = "test_lennard_jones"

    epsilon: float = 0.1
    sigma: float = 2.3


@register(LennardJonesConfig)
class LennardJones(Potential):
    def interaction_energies(self, graph):
        inverse = self.config.sigma / lengths(graph.vectors)
        cube = inverse * inverse * inverse
        sixth = cube * cube
        return scatter_sum(
            (sixth * sixth - sixth) * (2 * self.config.epsilon), graph.centers, graph.atoms
        )


@pytest.fixture(scope="session")
def plugin(tmp_path_factory):
    """The pair style from the user's cache, or where there is none, compiled for these tests."""
    try:
        return lammps.build()
    except lammps.PluginUnavailable as error:
        if "cannot be kept" not in str(error):
            raise
        return lammps.build(tmp_path_factory.mktemp("plugin"))


@pytest.fixture(scope="session")
def models(tmp_path_factory, plugin):
    """Files of potentials: Lennard-Jones and SchNet, which passes messages twice (frozen too), and a Deep
    Potential (DeePMD-kit's too)."""
    folder = tmp_path_factory.mktemp("models")
    names = ("lj.safetensors", "lj", "schnet.safetensors", "schnet", "deep.safetensors", "deep.pd")
    paths = {name: folder / name for name in names}
    simple = build(LennardJonesConfig(elements=("Cu",), cutoff=5.0, dtype="float64"))
    paddle.seed(1)
    messages = build(
        SchNetConfig(
            elements=("O", "Cu"), cutoff=4.0, dtype="float64", features=8, layers=2, radial=8
        )
    )
    messages.set_reference([-2.0, -3.0], 2.0)
    local = build(
        DeepPotentialConfig(
            elements=("O", "Cu"),
            cutoff=4.0,
            smooth=2.0,
            dtype="float64",
            embedding=(4, 8),
            axis=2,
            fitting=(8, 8),
            sel=(40, 80),
        )
    )
    save(local, paths["deep.safetensors"])
    save_deepmd(local, paths["deep.pd"])
    for name, potential in (("lj", simple), ("schnet", messages)):
        save(potential, paths[f"{name}.safetensors"])
        freeze(potential, paths[name])
    return paths


@pytest.fixture
def simulation(plugin):
    """Starts LAMMPS in this process with an input."""
    running = []

    def begin(text: str):
        one = lammps.start(["-log", "none", "-screen", "none"], plugin=plugin)
        running.append(one)
        one.commands_string(text)
        return one

    yield begin
    for one in running:
        one.close()
