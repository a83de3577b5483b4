"""Gradients and second derivatives of the layers of atoms, by differences in float64."""

import numpy as np
import pytest

paddle = pytest.importorskip("paddle")

from oarlock.native.paddle import atoms  # noqa: E402

RNG = np.random.default_rng


def tensor(*shape, seed=0, grad=True):
    values = RNG(seed).standard_normal(shape)
    return paddle.to_tensor(values, stop_gradient=not grad)


def slopes(function, given, weights, create_graph=False):
    """The gradient of Σ weights ∘ function by all that is given."""
    total = (function(*given) * weights).sum()
    return paddle.grad([total], given, create_graph=create_graph, allow_unused=True)


def check(function, *given, second=True):
    """First derivatives by differences of values, second ones by differences of first ones."""
    out = function(*given)
    weights = tensor(*out.shape, seed=50, grad=False)
    ways = [tensor(*x.shape, seed=60 + k, grad=False) for k, x in enumerate(given)]
    others = [tensor(*x.shape, seed=80 + k, grad=False) for k, x in enumerate(given)]
    step = 1e-5

    def moved(sign):
        places = [(x.detach() + sign * step * way) for x, way in zip(given, ways, strict=True)]
        for place, x in zip(places, given, strict=True):
            place.stop_gradient = x.stop_gradient
        return places

    first = slopes(function, list(given), weights, create_graph=second)
    found = sum(float((g * way).sum()) for g, way in zip(first, ways, strict=True))
    ends = [float((function(*moved(sign)) * weights).sum()) for sign in (1, -1)]
    assert found == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=2e-7, abs=1e-7)
    if not second:
        return
    # The gradient along `others` is a number again; its own gradient along `ways` by differences.
    total = sum((g * other).sum() for g, other in zip(first, others, strict=True))
    again = paddle.grad([total], list(given), allow_unused=True)
    found = sum(
        0.0 if g is None else float((g * way).sum()) for g, way in zip(again, ways, strict=True)
    )
    ends = []
    for sign in (1, -1):
        gradients = slopes(function, moved(sign), weights)
        ends.append(sum(float((g * o).sum()) for g, o in zip(gradients, others, strict=True)))
    assert found == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=2e-6, abs=1e-6)


def index(count, below, seed=0):
    return paddle.to_tensor(RNG(seed).integers(0, below, count))


def test_gather_and_scatter_sum():
    at = index(11, 5)
    check(lambda x: paddle.square(atoms.gather(x, at)), tensor(5, 3))
    check(lambda x: paddle.square(atoms.gather(x, at)), tensor(5, 2, 4))
    check(lambda x: paddle.square(atoms.scatter_sum(x, at, 6)), tensor(11, 3))
    check(lambda x: paddle.square(atoms.scatter_sum(x, at, 6)), tensor(11))


@pytest.mark.parametrize("both", [0, 4, 9])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_convolve(both, channels):
    first, second = index(9, 5), index(9, 5, 1)
    check(
        lambda x, w: paddle.square(atoms.convolve(x, w, first, second, count=5, both=both)),
        tensor(5, *channels, 7),
        tensor(9, 7, seed=1),
    )


def test_convolve_between_different_atoms():
    first, second = index(9, 3), index(9, 6, 1)
    check(
        lambda x, w: atoms.convolve(x, w, first, second, count=3),
        tensor(6, 7),
        tensor(9, 7, seed=1),
    )


@pytest.mark.parametrize("name", ["shifted_softplus", "silu"])
@pytest.mark.parametrize("shape", [(6, 5), (30,), (2, 3, 5)])
def test_activation(name, shape):
    check(lambda x: atoms.activation(x, name), tensor(*shape))
    if len(shape) > 1:
        check(lambda x, b: atoms.activation(x, name, b), tensor(*shape), tensor(5, seed=1))


def test_activation_is_differentiated_three_times():
    x = tensor(4, 6)
    values = atoms.activation(x, "silu")
    for _ in range(3):
        (values,) = paddle.grad([values.sum()], [x], create_graph=True)
    ends = []
    for sign in (1, -1):
        near = (x.detach() + sign * 1e-4).detach()
        near.stop_gradient = False
        there = atoms.activation(near, "silu")
        for _ in range(2):
            (there,) = paddle.grad([there.sum()], [near], create_graph=True)
        ends.append(there.numpy())
    np.testing.assert_allclose(values.numpy(), (ends[0] - ends[1]) / 2e-4, atol=1e-6)


def filters(radial, hidden):
    basis = RNG(9).uniform(0.5, 4.5, 6)
    parameters = paddle.to_tensor(basis)
    weights = [tensor(hidden or 6, 9, seed=3), tensor(9, seed=4)]
    if hidden:
        weights = [tensor(6, hidden, seed=1), tensor(hidden, seed=2), *weights]

    def function(r, *given):
        layers = list(zip(given[::2], given[1::2], strict=True))
        return atoms.radial_filters(r, radial, parameters, layers)

    distances = paddle.to_tensor(RNG(5).uniform(1.0, 4.8, 60), stop_gradient=False)
    return function, distances, weights


@pytest.mark.parametrize("hidden", [0, 5])
@pytest.mark.parametrize("basis, envelope", [("gaussian", "cosine"), ("bessel", "polynomial")])
def test_radial_filters(hidden, basis, envelope):
    """By distances and weights at once: forces, their derivatives by weights, and by distances."""
    radial = atoms.Radial(cutoff=5.0, basis=basis, width=0.7, envelope=envelope)
    function, distances, weights = filters(radial, hidden)
    check(function, distances, *weights, second=False)

    def force(r, *given):
        """The derivative by distances, of which `check` takes the derivative by everything."""
        total = (function(r, *given) * seeds).sum()
        return paddle.grad([total], [r], create_graph=True)[0]

    seeds = tensor(60, 9, seed=7, grad=False)
    check(force, distances, *weights, second=False)


def test_a_force_s_loss_reaches_the_weights_as_through_paddle_s_operators():
    radial = atoms.Radial(cutoff=5.0, width=0.7)
    function, distances, weights = filters(radial, 5)
    centers = paddle.to_tensor(RNG(9).uniform(0.5, 4.5, 6))

    def composed(r, w1, b1, w2, b2):
        basis = paddle.exp(-0.5 * paddle.square((r.unsqueeze(-1) - centers) / 0.7))
        hidden = paddle.nn.functional.softplus(paddle.matmul(basis, w1) + b1) - np.log(2)
        cut = 0.5 * (paddle.cos(r * (np.pi / 5.0)) + 1.0)
        return (paddle.matmul(hidden, w2) + b2) * cut.unsqueeze(-1)

    results = []
    for one in (function, composed):
        values = one(distances, *weights)
        energy = paddle.square(values).sum()
        (force,) = paddle.grad([energy], [distances], create_graph=True)
        loss = paddle.square(force).sum() + energy
        for x in (distances, *weights):
            x.clear_grad()
        loss.backward()
        results.append([loss.numpy(), *(x.grad.numpy() for x in (distances, *weights))])
    for ours, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-9, atol=1e-9)


def test_radial_filters_without_graph_and_without_gradients():
    radial = atoms.Radial(cutoff=5.0, width=0.7)
    function, distances, weights = filters(radial, 5)
    wanted = function(distances, *weights).numpy()
    with paddle.no_grad():
        np.testing.assert_array_equal(function(distances, *weights).numpy(), wanted)
    fixed = distances.detach()
    np.testing.assert_array_equal(function(fixed, *weights).numpy(), wanted)
    frozen = [one.detach() for one in weights]
    (slope,) = paddle.grad([function(distances, *frozen).sum()], [distances])
    (other,) = paddle.grad([function(distances, *weights).sum()], [distances])
    np.testing.assert_array_equal(slope.numpy(), other.numpy())


def test_gradients_by_some_inputs_only():
    """`paddle.grad` prunes what it does not need, in the first pass and in the second."""
    radial = atoms.Radial(cutoff=5.0, width=0.7)
    function, distances, weights = filters(radial, 5)
    features, first, second = tensor(7, 9, seed=11), index(60, 7), index(60, 7, 1)
    bias = tensor(9, seed=12)

    def energy():
        first_weight, *rest = weights
        w = function(paddle.sqrt(paddle.square(distances)), first_weight * 1.5, *rest)
        y = atoms.convolve(features * 2.0, w, first, second, count=7)
        return atoms.activation(y, "silu", bias).sum()

    everything = [features, bias, distances]
    wanted = paddle.grad([energy()], everything)
    for one, gradient in zip(everything, wanted, strict=True):
        (alone,) = paddle.grad([energy()], [one])
        np.testing.assert_array_equal(alone.numpy(), gradient.numpy())
    (force,) = paddle.grad([energy()], [distances], create_graph=True)
    for others in ([features], [bias], [weights[0]], [distances], [features, weights[3]]):
        loss = paddle.square(paddle.grad([energy()], [distances], create_graph=True)[0]).sum()
        found = paddle.grad([loss], others)
        for x in (*everything, *weights):
            x.clear_grad()
        with atoms.without_weights():
            (again,) = paddle.grad([energy()], [distances], create_graph=True)
        paddle.square(again).sum().backward()
        for x, gradient in zip(others, found, strict=True):
            np.testing.assert_allclose(gradient.numpy(), x.grad.numpy(), rtol=1e-10)
        if any(x is distances for x in others):
            continue
        loss = paddle.square(paddle.grad([energy()], [distances], create_graph=True)[0]).sum()
        with atoms.without_distances():
            alone = paddle.grad([loss], others)
        for one, gradient in zip(alone, found, strict=True):
            np.testing.assert_array_equal(one.numpy(), gradient.numpy())
    assert force.shape == [60]


def test_what_has_no_derivative_is_refused():
    radial = atoms.Radial(cutoff=5.0, width=0.7)
    function, distances, weights = filters(radial, 5)
    total = function(distances, *weights).sum()
    (once,) = paddle.grad([total], [weights[0]], create_graph=True)
    with pytest.raises(OSError, match="ValueError: this derivative .* cannot be differentiated"):
        paddle.grad([once.sum()], [weights[0]])  # Paddle's own kind of error
    trained = tensor(6)
    with pytest.raises(ValueError, match="parameters of the basis have no gradients"):
        atoms.radial_filters(distances, radial, trained, [(tensor(6, 9), tensor(9))])
    with pytest.raises(ValueError, match="layers must be one or two"):
        atoms.radial_filters(distances, radial, trained.detach(), [])


def test_views_are_taken():
    x = tensor(7, 5)
    at = index(11, 5)
    y = atoms.gather(x.transpose([1, 0]), at)
    y.sum().backward()
    np.testing.assert_array_equal(y.numpy(), x.numpy().T[at.numpy()])
    counts = np.bincount(at.numpy(), minlength=5).astype(float)
    np.testing.assert_array_equal(x.grad.numpy(), np.tile(counts, (7, 1)))
