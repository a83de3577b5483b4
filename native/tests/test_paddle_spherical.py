"""Convolutions and powers in Paddle's autograd: first and second derivatives, what gets no gradient."""

import numpy as np
import pytest

paddle = pytest.importorskip("paddle")

from oarlock.native import spherical as kernels  # noqa: E402
from oarlock.native.paddle import spherical  # noqa: E402
from oarlock.native.paddle.atoms import without_weights  # noqa: E402

ATOMS, EDGES, CHANNELS, CUTOFF = 6, 30, 16, 5.0


class Arrays:
    """Everything that a small network of one convolution and powers depends on."""

    def __init__(self, degree_in=2, degree_out=3):
        rng = np.random.default_rng(0)
        centers = np.sort(rng.integers(0, ATOMS, EDGES))
        self.offsets = paddle.to_tensor(np.searchsorted(centers, np.arange(ATOMS + 1)))
        self.neighbours = paddle.to_tensor(rng.integers(0, ATOMS, EDGES))
        shape = (9, kernels.paths(degree_in, degree_out), CHANNELS)
        self.given = {
            "vectors": 1.5 * rng.standard_normal((EDGES, 3)),
            "table": 0.3 * rng.standard_normal(shape),
            "x": [
                rng.standard_normal((ATOMS, 2 * ell + 1, CHANNELS)) for ell in range(degree_in + 1)
            ],
        }
        self.degree_out = degree_out
        self.sphere = [paddle.to_tensor(one) for one in kernels.sphere_points(degree_out, 2)]

    def tensors(self, given):
        def tensor(array):
            return paddle.to_tensor(array, stop_gradient=False)

        return tensor(given["vectors"]), tensor(given["table"]), [*map(tensor, given["x"])]

    def energy(self, vectors, table, x):
        edges = spherical.Edges(
            vectors, self.offsets, self.neighbours, degree=self.degree_out, cutoff=CUTOFF
        )
        y = spherical.convolve(x, table, vectors, edges)
        z = spherical.powers([0.1 * one for one in y], *self.sphere)
        return sum(paddle.tanh(0.1 * one).sum() for one in z) + paddle.tanh(0.1 * y[1]).sum()

    def loss(self, given):
        """Of the energy and of its gradient by the vectors."""
        vectors, table, x = self.tensors(given)
        with without_weights():
            energy = self.energy(vectors, table, x)
            (slopes,) = paddle.grad([energy], [vectors], create_graph=True)
        return paddle.square(slopes).sum() + 0.3 * energy, (vectors, table, x)

    def moved(self, name, direction, step):
        there = dict(self.given)
        if name == "x":
            there["x"] = [a + step * b for a, b in zip(there["x"], direction, strict=True)]
        else:
            there[name] = there[name] + step * direction
        return there


@pytest.mark.parametrize("name", ["vectors", "table", "x"])
@pytest.mark.parametrize("order", [1, 2])
def test_gradients(name, order):
    arrays, step = Arrays(), 1e-5
    rng = np.random.default_rng(1)
    own = arrays.given[name]
    many = isinstance(own, list)
    direction = (
        [rng.standard_normal(one.shape) for one in own] if many else rng.standard_normal(own.shape)
    )

    def value(given):
        if order == 2:
            return arrays.loss(given)
        tensors = arrays.tensors(given)
        return arrays.energy(*tensors), tensors

    loss, (vectors, table, x) = value(arrays.given)
    loss.backward()
    given = {"vectors": vectors, "table": table, "x": x}[name]
    pairs = zip(given, direction, strict=True) if many else [(given, direction)]
    found = sum((one.grad.numpy() * along).sum() for one, along in pairs)
    up, down = (value(arrays.moved(name, direction, sign))[0].item() for sign in (step, -step))
    assert found == pytest.approx((up - down) / (2 * step), rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("asked", [[0], [1], [2], [0, 1], [1, 2]])
def test_gradients_by_some_are_those_by_all(asked):
    arrays = Arrays()
    loss, (vectors, table, x) = arrays.loss(arrays.given)
    wanted = paddle.grad([loss], [vectors, table, x[0]], retain_graph=True)
    tensors = [vectors, table, x[0]]
    found = paddle.grad([loss], [tensors[index] for index in asked])
    for index, one in zip(asked, found, strict=True):
        np.testing.assert_array_equal(one.numpy(), wanted[index].numpy())


def test_constants_get_no_gradient():
    arrays = Arrays()
    vectors, table, x = arrays.tensors(arrays.given)
    table.stop_gradient = True
    for one in x:
        one.stop_gradient = True
    arrays.energy(vectors, table, x).backward()
    assert vectors.grad is not None and table.grad is None and all(one.grad is None for one in x)
    vectors, table, x = arrays.tensors(arrays.given)
    vectors.stop_gradient = True
    arrays.energy(vectors, table, x).backward()
    assert vectors.grad is None and table.grad is not None


def test_the_gradient_by_a_table_cannot_be_differentiated():
    arrays = Arrays()
    vectors, table, x = arrays.tensors(arrays.given)
    energy = arrays.energy(vectors, table, x)
    vectors_slope, slope, *_ = paddle.grad([energy], [vectors, table, *x], create_graph=True)
    # Paddle puts errors of its autograd into others.
    with pytest.raises(Exception, match="the gradient by a table was differentiated"):
        (paddle.square(slope).sum() + vectors_slope.sum()).backward()


def test_views_are_taken_as_they_are():
    arrays = Arrays(1, 2)
    vectors, table, x = arrays.tensors(arrays.given)
    edges = spherical.Edges(vectors, arrays.offsets, arrays.neighbours, degree=2, cutoff=CUTOFF)
    wanted = spherical.convolve(x, table, vectors, edges)
    base = paddle.to_tensor(x[0].numpy().transpose(2, 1, 0).copy(), stop_gradient=False)
    found = spherical.convolve([base.transpose([2, 1, 0]), x[1]], table, vectors, edges)
    for one, two in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())
    sum(one.sum() for one in found).backward()
    assert base.grad.shape == base.shape
