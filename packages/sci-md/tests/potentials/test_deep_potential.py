"""The Deep Potential beyond the battery that all potentials pass."""

import numpy as np
import paddle
import pytest
from ase.build import bulk

from oarlock.sci_md.graph import to_graph
from oarlock.sci_md.neighbours import find_neighbours
from oarlock.sci_md.potentials import DeepPotential, DeepPotentialConfig, build
from oarlock.sci_md.potentials.deep_potential_descriptor import neighbour_slots
from oarlock.sci_md.structure import Structure


def small(**changes) -> DeepPotentialConfig:
    fields = {
        "elements": ("Cu", "O"),
        "cutoff": 4.0,
        "smooth": 1.5,
        "dtype": "float64",
        "embedding": (4, 8),
        "axis": 3,
        "fitting": (6, 6),
        "sel": (20, 20),
    }
    return DeepPotentialConfig(**{**fields, **changes})


def crystal() -> Structure:
    atoms = bulk("Cu", cubic=True).repeat((2, 2, 1))
    atoms.rattle(0.1, seed=1)
    atoms.numbers[::3] = 8
    return Structure.from_ase(atoms)


def potential_of(config: DeepPotentialConfig) -> DeepPotential:
    paddle.seed(1)
    potential = build(config)
    potential.fit_statistics([find_neighbours(crystal(), config.elements, config.cutoff)])
    potential.eval()
    return potential


@pytest.mark.parametrize("one_side", [True, False])
def test_an_atom_that_leaves_changes_nothing_at_the_cutoff(one_side):
    """Also where the mean of the rows is not zero."""
    potential = potential_of(small(one_side=one_side))
    energies = []
    for distance in (3.9999999, 4.0000001):
        pair = Structure(
            numbers=[29, 8],
            positions=[[0, 0, 0], [distance, 0, 0]],
            cell=np.zeros((3, 3)),
            pbc=[False] * 3,
        )
        atoms = find_neighbours(pair, potential.elements, potential.cutoff)
        energies.append(potential(to_graph([atoms], "float64"), forces=False)["energy"].item())
    assert energies[0] == pytest.approx(energies[1], abs=1e-12)


@pytest.mark.parametrize("one_side", [True, False])
def test_second_derivatives_by_parameters(one_side):
    potential = potential_of(small(one_side=one_side))
    potential.train()
    atoms = find_neighbours(crystal(), potential.elements, potential.cutoff)

    def loss():
        return paddle.square(potential(to_graph([atoms], "float64"))["forces"]).sum()

    loss().backward()
    net = potential.descriptor.embeddings[0].layers[1]
    for parameter in (net.weight, potential.fittings[1].layers[1].timestep):
        found, values, h = parameter.grad.numpy().flat[1], parameter.numpy().copy(), 1e-5
        sides = []
        for step in (h, -h):
            moved = values.copy()
            moved.flat[1] += step
            parameter.set_value(paddle.to_tensor(moved))
            sides.append(loss().item())
        parameter.set_value(paddle.to_tensor(values))
        assert found == pytest.approx((sides[0] - sides[1]) / (2 * h), rel=1e-5)


def test_slots_hold_every_edge_once():
    atoms = find_neighbours(crystal(), ("Cu", "O"), 4.0)
    graph = to_graph([atoms], "float64")
    found = []
    for kind in (0, 1):
        slots = neighbour_slots(graph, kind).numpy()
        for center, row in enumerate(slots):
            edges = row[row < graph.edges]
            assert (atoms.centers[edges] == center).all()
            assert (atoms.species[atoms.neighbours[edges]] == kind).all()
            found += edges.tolist()
    assert sorted(found) == list(range(graph.edges))


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"smooth": 4.0}, "smooth"),
        ({"axis": 9}, "axis"),
        ({"embedding": ()}, "embedding"),
        ({"fitting": (0,)}, "fitting"),
        ({"sel": (20,)}, "sel"),
    ],
)
def test_refuses(changes, says):
    with pytest.raises(ValueError, match=says):
        small(**changes)
