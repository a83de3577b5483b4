"""The equivariant potential: native and plain operators agree, exact symmetry, tables, configuration."""

import numpy as np
import paddle
import pytest

from oarlock.native.paddle import spherical as native
from oarlock.native.spherical import sphere_points
from oarlock.sci_md import keys
from oarlock.sci_md.graph import to_graph
from oarlock.sci_md.neighbours import find_neighbours
from oarlock.sci_md.potentials import EquivariantConfig, build
from oarlock.sci_md.potentials import equivariant_ops as ops
from oarlock.sci_md.potentials import equivariant_plain as plain
from oarlock.sci_md.potentials.base import default_dtype
from oarlock.sci_md.potentials.equivariant_layers import RadialTable
from oarlock.sci_md.structure import Structure

SMALL = {"features": 16, "radial": 4, "radial_width": 8, "intervals": 12, "neighbours": 10.0}


def small(**fields):
    paddle.seed(0)
    given = {"elements": ("H", "O"), "cutoff": 3.0, "dtype": "float64", **SMALL, **fields}
    potential = build(EquivariantConfig(**given))
    potential.set_reference([-1.0, -2.0], 3.0)
    return potential


def some_atoms(count=12, seed=0):
    rng = np.random.default_rng(seed)
    return Structure(
        numbers=rng.choice([1, 8], count),
        positions=rng.uniform(0, 4.5, (count, 3)),
        cell=np.zeros((3, 3)),
        pbc=np.zeros(3, bool),
    )


def graph_of(structure, potential):
    return to_graph(
        [find_neighbours(structure, potential.elements, potential.cutoff)], potential.config.dtype
    )


@pytest.mark.parametrize("degree_in, degree", [(0, 1), (1, 1), (1, 3), (2, 3), (3, 3)])
def test_plain_convolutions_equal_native_ones(degree_in, degree):
    rng = np.random.default_rng(degree)
    potential = small()
    graph = graph_of(some_atoms(), potential)
    # Directions along the axes too.
    vectors = graph.vectors.numpy()
    vectors[:4] = [[0, 0, 2.0], [0, 0, -1.5], [0, 1.0, 0], [-2.0, 0, 0]]
    paths = native.spherical.paths(degree_in, degree)
    table = rng.standard_normal((15, paths, 16))
    features = [rng.standard_normal((12, 2 * ell + 1, 16)) for ell in range(degree_in + 1)]
    slopes = [rng.standard_normal((12, 2 * ell + 1, 16)) for ell in range(degree + 1)]
    results = []
    for plainly in (False, True):
        x = [paddle.to_tensor(one, stop_gradient=False) for one in features]
        r, t = (paddle.to_tensor(one, stop_gradient=False) for one in (vectors, table))
        if plainly:
            over = plain.frames(r, degree=degree, cutoff=3.0)
            y = plain.convolve(x, t, over, graph.centers, graph.neighbours, 12)
        else:
            over = native.Edges(r, graph.offsets, graph.neighbours, degree=degree, cutoff=3.0)
            y = native.convolve(x, t, r, over)
        sum((one * paddle.to_tensor(two)).sum() for one, two in zip(y, slopes)).backward()
        results.append([*y, r.grad, t.grad, *(one.grad for one in x)])
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one.numpy(), two.numpy(), atol=1e-11)


@pytest.mark.parametrize("degree, degree_out", [(1, 0), (2, 2), (3, 1)])
def test_plain_powers_equal_native_ones(degree, degree_out):
    rng = np.random.default_rng(0)
    features = [
        paddle.to_tensor(rng.standard_normal((5, 2 * ell + 1, 16))) for ell in range(degree + 1)
    ]
    at = ops.sphere_points(degree, degree_out, "float64")
    found = plain.powers(features, *at)
    for one, two in zip(native.powers(features, *at), found, strict=True):
        np.testing.assert_allclose(one.numpy(), two.numpy(), atol=1e-12)


def test_points_integrate_products_exactly():
    values, weights = sphere_points(3, 3)
    share = weights[:, 0]
    assert share.sum() == pytest.approx(1.0, abs=1e-14)
    squares = (values**2 * share[:, None]).sum(axis=0)
    degrees = np.sqrt(np.arange(16)).astype(int)
    np.testing.assert_allclose(squares, 1 / (2 * degrees + 1), atol=1e-14)


@pytest.mark.parametrize("message_degree", [0, 1, 2, 3])
def test_turned_and_mirrored_structures_have_turned_forces(message_degree):
    potential = small(message_degree=message_degree)
    potential.eval()
    structure = some_atoms()
    before = potential(graph_of(structure, potential))
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    for matrix in (turn, -turn):
        turned = Structure(
            numbers=structure.numbers,
            positions=structure.positions @ matrix.T,
            cell=structure.cell,
            pbc=structure.pbc,
        )
        after = potential(graph_of(turned, potential))
        assert after[keys.ENERGY].item() == pytest.approx(before[keys.ENERGY].item(), abs=1e-10)
        wanted = before[keys.FORCES].numpy() @ matrix.T
        np.testing.assert_allclose(after[keys.FORCES].numpy(), wanted, atol=1e-10)
    assert np.abs(before[keys.FORCES].numpy()).max() > 1e-2


def test_edges_along_the_axes_are_as_smooth_as_others():
    """Forces of three atoms in line with an axis, and next to it, differ by what they have moved."""
    potential = small()
    potential.eval()
    for axis in np.concatenate([np.eye(3), -np.eye(3)]):
        forces = []
        for bend in (0.0, 1e-6):
            positions = np.outer([0.0, 1.1, 2.0], axis) + bend * np.roll(axis, 1) * [[0], [1], [0]]
            structure = Structure(
                numbers=[1, 8, 1], positions=positions, cell=np.zeros((3, 3)), pbc=[False] * 3
            )
            forces.append(potential(graph_of(structure, potential))[keys.FORCES].numpy())
        assert 0 < np.abs(forces[1] - forces[0]).max() < 1e-4


def test_tables_end_with_zeros_and_fall_before():
    with default_dtype("float64"):
        table = RadialTable(paths=2, channels=16, cutoff=4.0, intervals=20, basis=5, width=8)()
    rows = np.abs(table.numpy()).max(axis=(1, 2))
    assert table.shape == [23, 2, 16] and not rows[-3:].any() and rows[:-3].all()
    assert rows[-4] < 0.01 * rows.max()


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"features": 24}, "features=24 has to be a multiple of 16"),
        ({"layers": 0}, "layers=0 has to be 1 or more"),
        ({"degree": 4}, "degree=4 has to be 1, 2 or 3"),
        ({"degree": 1, "message_degree": 2}, "message_degree=2 has to be from 0 to degree=1"),
        ({"intervals": 3}, "intervals=3 4 or more"),
        ({"neighbours": 0.0}, "neighbours=0.0 has to be positive"),
    ],
)
def test_what_cannot_be_configured(fields, message):
    with pytest.raises(ValueError, match=message):
        EquivariantConfig(elements=("H",), **fields)
