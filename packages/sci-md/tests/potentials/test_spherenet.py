"""SphereNet's parts, each against a slow or a well-known way to the same."""

import numpy as np
import paddle
import pytest
from scipy.integrate import quad
from scipy.special import sph_harm_y, spherical_jn

from oarlock.sci_md.graph import to_graph
from oarlock.sci_md.neighbours import find_neighbours
from oarlock.sci_md.potentials import SphereNetConfig
from oarlock.sci_md.potentials.spherenet_basis import (
    SphericalBessel,
    bessel_zeros,
    harmonics,
    legendre,
)
from oarlock.sci_md.potentials.triplets import find_triplets, next_around


def tensor(values):
    return paddle.to_tensor(np.asarray(values), dtype="float64")


def test_bessel_functions_vanish_at_the_cutoff_and_are_orthonormal():
    orders, count, cutoff = 6, 4, 2.5
    assert (
        np.abs(spherical_jn(np.arange(orders)[:, None], bessel_zeros(orders, count))).max() < 1e-13
    )
    basis = SphericalBessel(orders, count, cutoff)
    distances = np.linspace(0.05, cutoff, 50)
    values = basis(tensor(distances)).numpy()
    expected = [
        [
            spherical_jn(order, zero * distances / cutoff)
            * np.sqrt(2.0)
            / abs(spherical_jn(order + 1, zero))
            for zero in zeros
        ]
        for order, zeros in enumerate(bessel_zeros(orders, count))
    ]
    assert np.allclose(
        values[distances > 0.5], np.array(expected).transpose(2, 0, 1)[distances > 0.5]
    )
    assert np.abs(values[-1]).max() < 1e-12
    for first in range(2):
        for second in range(2):
            product, _ = quad(
                lambda u, i=first, j=second: u**2
                * float(
                    basis(tensor([u * cutoff]))[0, 2, i] * basis(tensor([u * cutoff]))[0, 2, j]
                ),
                1e-3,
                1.0,
            )
            assert product == pytest.approx(float(first == second), abs=1e-6)


def test_harmonics_are_those_of_scipy():
    rng = np.random.default_rng(0)
    polar, turn = rng.uniform(0.1, 3.0, 20), rng.uniform(0.0, 6.2, 20)
    values, degrees = harmonics(
        tensor(np.cos(polar)),
        tensor(np.sin(polar) * np.cos(turn)),
        tensor(np.sin(polar) * np.sin(turn)),
        5,
        odd=True,
    )
    column = 0
    for degree in range(5):
        for order in [*range(degree + 1), *range(-degree, 0)]:
            wave = sph_harm_y(degree, abs(order), polar, turn)  # with the sign (−1)ᵐ
            expected = wave.real if order >= 0 else wave.imag
            factor = np.sqrt(2.0) if order else 1.0
            assert np.allclose(values.numpy()[:, column], factor * expected), (degree, order)
            assert degrees[column] == degree
            column += 1
    assert column == values.shape[1] == 25
    even, of_even = harmonics(
        tensor(np.cos(polar)), tensor(0.1 * polar), tensor(0.2 * polar), 5, odd=False
    )
    assert even.shape[1] == len(of_even) == 15
    flat = np.stack([sph_harm_y(degree, 0, polar, 0.0).real for degree in range(5)], axis=-1)
    assert np.allclose(legendre(tensor(np.cos(polar)), 5).numpy(), flat)


@pytest.mark.parametrize("kind", ["cluster", "crystal", "tight"])
def test_triplets_are_all_pairs_of_edges_that_meet(kind, request):
    structure = request.getfixturevalue(kind)
    graph = to_graph([structure_lists(structure)] * 2, "float64")
    centers, neighbours = graph.centers.numpy(), graph.neighbours.numpy()
    vectors = graph.vectors.numpy()
    expected = {
        (outer, inner)
        for outer in range(graph.edges)
        for inner in range(graph.edges)
        if centers[inner] == neighbours[outer]
        and not (
            neighbours[inner] == centers[outer]
            and np.allclose(vectors[inner], -vectors[outer], atol=1e-8)
        )
    }
    triplets = find_triplets(graph)
    found = list(zip(triplets.outer.numpy().tolist(), triplets.inner.numpy().tolist(), strict=True))
    assert len(found) == len(expected) and set(found) == expected
    assert (np.diff(triplets.outer.numpy()) >= 0).all()


def structure_lists(structure):
    return find_neighbours(structure, ("H", "O"), 3.0)


def test_the_next_neighbour_around_has_the_smallest_torsion(crystal):
    graph = to_graph([structure_lists(crystal)], "float64")
    triplets = find_triplets(graph)
    directions = graph.vectors / graph.vectors.norm(axis=-1, keepdim=True)
    following = next_around(graph, triplets, directions).numpy()
    unit, outer, inner = directions.numpy(), triplets.outer.numpy(), triplets.inner.numpy()
    for place in range(0, len(outer), 7):
        axis = -unit[outer[place]]

        def torsion(edge, axis=axis, place=place):
            if edge == inner[place]:
                return 2.0 * np.pi
            first, second = np.cross(axis, unit[inner[place]]), np.cross(axis, unit[edge])
            angle = np.arctan2(np.cross(first, second) @ axis, first @ second)
            return angle if angle > 0 else angle + 2.0 * np.pi

        others = inner[outer == outer[place]]
        assert following[place] == min(others, key=torsion)


def test_torsions_count_from_the_mean_direction(potential_of, cases, crystal):
    potential = potential_of(cases["spherenet"])
    graph = to_graph([structure_lists(crystal)], "float64")
    geometry = potential._geometry(graph)
    vectors, centers = graph.vectors.numpy(), graph.centers.numpy()
    neighbours, unit = graph.neighbours.numpy(), vectors / np.linalg.norm(vectors, axis=1)[:, None]
    u = np.linalg.norm(vectors, axis=1) / potential.cutoff
    weights = 1.0 - 28.0 * u**6 + 48.0 * u**7 - 21.0 * u**8
    bessel = potential.bessel(graph.vectors.norm(axis=-1)).numpy()
    triplets = geometry.triplets
    for place in range(0, len(triplets.outer), 5):
        outer, inner = int(triplets.outer[place]), int(triplets.inner[place])
        axis, at = -unit[outer], centers == neighbours[outer]
        mean = (weights[at, None] * unit[at]).sum(axis=0)
        across = mean - (mean @ axis) * axis
        definite = np.linalg.norm(across) / np.sqrt(1.0 + across @ across)
        angle = np.arccos(axis @ unit[inner])
        beside = unit[inner] - (unit[inner] @ axis) * axis
        cosine = beside @ across / np.linalg.norm(beside) / np.linalg.norm(across)
        torsion = np.arccos(np.clip(cosine, -1.0, 1.0))
        expected = []
        for degree in range(3):
            for order in range(degree + 1):
                wave = sph_harm_y(degree, order, angle, torsion).real
                factor = np.sqrt(2.0) * definite**order if order else 1.0
                expected.append(factor * wave * bessel[inner, degree])
        assert np.allclose(geometry.torsional.numpy()[place], np.concatenate(expected), atol=1e-9)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"torsion": "all"}, "torsion='all' has to be one of mean, nearest"),
        ({"spherical": 0}, "spherical=0"),
        ({"spherical": 9}, "spherical=9"),
        ({"radial": 0}, "radial=0"),
        ({"envelope_power": 2}, "envelope_power=2"),
    ],
)
def test_bad_settings_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        SphereNetConfig(elements=("H",), **fields)
