"""The potentials and structures that all tests of potentials share.

To have a new kind of potential tested, add a small configuration to ``CASES``.
"""

from dataclasses import dataclass, field
from typing import Any

import ase
import numpy as np
import paddle
import pytest

from oarlock.sci_md import keys
from oarlock.sci_md.graph import to_graph
from oarlock.sci_md.neighbours import find_neighbours
from oarlock.sci_md.potentials import build, config_from_dict
from oarlock.sci_md.structure import Structure

ELEMENTS = ("H", "O")
CUTOFF = 3.0


@dataclass(frozen=True)
class Case:
    """A small potential and what it promises.

    Args:
        fields: of its configuration, besides elements, cut-off and dtype.
        derivatives: how many of the energy's derivatives are continuous at the cut-off; −1 where not
            even the energy is.
        inversion: whether mirror images have the same energy.
        lines: whether it is defined for more than two atoms on a line, such as an atom and its images.
        frozen: whether it is tested as an exported program, which takes seconds; once for each model.
    """

    model: str
    fields: dict[str, Any] = field(default_factory=dict)
    derivatives: int = 1
    inversion: bool = True
    lines: bool = True
    frozen: bool = False


SPHERENET = {
    "features": 6,
    "triplet_features": 5,
    "basis_features": 3,
    "readout_features": 6,
    "layers": 1,
    "spherical": 3,
    "radial": 3,
    "residual_before": 1,
    "residual_after": 1,
    "readout_layers": 1,
}
DEEP = {"smooth": 0.5, "embedding": (4, 8), "axis": 3, "fitting": (6, 6), "sel": (2, 2)}
EQUIVARIANT = {
    "features": 16,
    "layers": 2,
    "degree": 3,
    "message_degree": 2,
    "radial": 4,
    "radial_width": 8,
    "intervals": 12,
    "neighbours": 10.0,
}
CASES = {
    "deep": Case("deep_potential", DEEP, derivatives=2, frozen=True),
    "deep-paired": Case("deep_potential", {**DEEP, "one_side": False}, derivatives=2),
    "equivariant": Case("equivariant", EQUIVARIANT, derivatives=2, frozen=True),
    "equivariant-flat": Case(
        "equivariant", {**EQUIVARIANT, "degree": 1, "message_degree": 0, "layers": 1}, derivatives=2
    ),
    "schnet": Case("schnet", {"features": 8, "layers": 2, "radial": 6}),
    "schnet-bessel-zbl": Case(
        "schnet",
        {
            "features": 8,
            "layers": 1,
            "radial": 4,
            "basis": "bessel",
            "envelope": "polynomial",
            "zbl": True,
        },
        derivatives=2,
        frozen=True,
    ),
    "painn": Case("painn", {"features": 6, "layers": 2, "radial": 5}),
    "painn-bessel": Case(
        "painn",
        {"features": 6, "layers": 2, "radial": 4, "basis": "bessel", "envelope": "polynomial"},
        derivatives=2,
        frozen=True,
    ),
    "spherenet": Case("spherenet", SPHERENET, derivatives=2, frozen=True),
    "spherenet-nearest": Case(
        "spherenet",
        {**SPHERENET, "torsion": "nearest"},
        derivatives=-1,
        inversion=False,
        lines=False,
    ),
}


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        "on(*kinds, derivatives=-1, frozen=False): runs on these structures, with cases that have "
        "so many continuous derivatives and, if frozen is True, that are tested as programs",
    )


def pytest_generate_tests(metafunc):
    """Each case with each structure of the test's ``on`` mark that it is for."""
    if "case" not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker("on")
    wanted = mark.kwargs if mark else {}
    chosen = {
        name: case
        for name, case in CASES.items()
        if case.derivatives >= wanted.get("derivatives", -1)
        and (case.frozen or not wanted.get("frozen", False))
    }
    if "kind" not in metafunc.fixturenames:
        metafunc.parametrize("case", [pytest.param(case, id=name) for name, case in chosen.items()])
        return
    pairs = [
        pytest.param(case, kind, id=f"{name}-{kind}")
        for name, case in chosen.items()
        for kind in mark.args
        if kind != "tight" or case.lines
    ]
    metafunc.parametrize("case, kind", pairs)


@pytest.fixture(scope="session")
def cases():
    return CASES


@pytest.fixture
def potential_of():
    """Builds the potential of a case, with parameters, biases too, that are not special."""

    def make(case, *, dtype="float64", training=False, **overrides):
        config = config_from_dict(
            {
                "model": case.model,
                "elements": list(ELEMENTS),
                "cutoff": CUTOFF,
                "dtype": dtype,
                **case.fields,
                **overrides,
            }
        )
        paddle.seed(3)
        potential = build(config)
        rng = np.random.default_rng(5)
        for parameter in potential.parameters():
            noise = 0.1 * rng.standard_normal(parameter.shape)
            parameter.set_value(parameter + paddle.to_tensor(noise.astype(dtype)))
        potential.set_reference([-1.5, 2.5], scale=1.3)
        potential.train() if training else potential.eval()
        return potential

    return make


@pytest.fixture
def graph_of():
    def make(potential, *structures):
        lists = [find_neighbours(one, potential.elements, potential.cutoff) for one in structures]
        return to_graph(lists, potential.config.dtype)

    return make


@pytest.fixture
def predict(graph_of):
    """What a potential says of structures, as NumPy arrays."""

    def run(potential, *structures):
        return {
            key: value.numpy() for key, value in potential(graph_of(potential, *structures)).items()
        }

    return run


@pytest.fixture
def energy(graph_of):
    """A structure's energy alone, eV."""

    def run(potential, structure):
        result = potential(graph_of(potential, structure), forces=False)
        return float(result[keys.ENERGY].numpy()[0])

    return run


@pytest.fixture
def scattered():
    """Structures of atoms at random places that keep a distance from each other."""

    def make(atoms, *, box, pbc, seed=1, apart=1.1):
        rng = np.random.default_rng(seed)
        cell = np.asarray(box, dtype=np.float64)
        shifts = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), axis=-1).reshape(-1, 3) * pbc @ cell
        places: list[np.ndarray] = []
        while len(places) < atoms:
            place = rng.random(3) @ cell
            images = np.array(places).reshape(-1, 1, 3) + shifts
            if (np.linalg.norm(images - place, axis=-1) > apart).all():
                places.append(place)
        numbers = np.array([1, 8, 1])[np.arange(atoms) % 3]
        return Structure(
            numbers=numbers, positions=np.array(places), cell=cell, pbc=np.array([pbc] * 3)
        )

    return make


@pytest.fixture
def cluster(scattered):
    """Seven atoms in the open."""
    return scattered(7, box=3.2 * np.eye(3), pbc=False)


@pytest.fixture
def crystal(scattered):
    """Five atoms in a sheared box narrower than twice the cut-off."""
    return scattered(5, box=[[4.1, 0.0, 0.0], [0.9, 3.8, 0.0], [-0.7, 0.6, 4.4]], pbc=True, seed=2)


@pytest.fixture
def structure(kind, request):
    """The structure of this name."""
    return request.getfixturevalue(kind)


@pytest.fixture
def tight():
    """Two atoms in a box smaller than the cut-off: they see images of themselves."""
    return Structure.from_ase(
        ase.Atoms(
            "HO",
            positions=[[0.1, 0.2, 0.0], [1.2, 1.3, 1.1]],
            cell=[[2.6, 0.0, 0.0], [0.5, 2.4, 0.1], [0.0, -0.3, 2.7]],
            pbc=True,
        )
    )
