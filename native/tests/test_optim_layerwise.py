"""Steps scaled by norms of whole tensors: what happens at zero, without limits and with NaN."""

import numpy as np
import pytest

from oarlock.native import optim

FLOAT32 = np.dtype(np.float32)
ADAM = {"lr": 0.01, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1, "step": 3}
LARS = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "trust_coefficient": 0.5, "eps": 0.0}


def zeros(count=9):
    return np.zeros(count, FLOAT32)


def ones(count=9):
    return np.ones(count, FLOAT32)


def normals(lists, count=40000, seed=0):
    rng = np.random.default_rng(seed)
    return [[rng.standard_normal(count).astype(FLOAT32)] for _ in range(lists)]


def with_nan(count):
    array = ones(count)
    array[count // 2] = np.nan
    return array


def test_lamb_without_weights_or_gradient_takes_ratio_one():
    lists = [[zeros(), ones()], [ones(), zeros()], [zeros(), zeros()], [zeros(), zeros()]]
    assert optim.lamb(*lists, **ADAM | {"weight_decay": 0.0}).tolist() == [1.0, 1.0]


def test_lars_without_weights_or_gradient_takes_ratio_one():
    p, g = [zeros(), ones(), ones(0)], [ones(), zeros(), ones(0)]
    b = [zeros(), zeros(), ones(0)]
    assert optim.lars(p, g, b, **LARS).tolist() == [1.0, 1.0, 1.0]
    np.testing.assert_allclose(p[0], np.full(9, -0.1), rtol=1e-6)
    np.testing.assert_allclose(p[1], np.full(9, 0.99), rtol=1e-6)
    ratios = optim.lars([ones()], [ones()], [zeros()], grad_scale=0.0, **LARS)
    assert ratios.tolist() == [1.0], "a gradient scaled to 0 is no gradient"


def test_lars_ratio_counts_the_scaled_gradient():
    ratios = optim.lars([ones(4)], [ones(4)], [zeros(4)], grad_scale=-3.0, **LARS)
    assert ratios[0] == pytest.approx(0.5 * 2 / (3 * 2 + 0.1 * 2))


@pytest.mark.parametrize("broken", [0, 1])
def test_lars_with_nan_breaks_its_tensor_and_no_other(broken):
    lists = [[ones(40000), ones()], [ones(40000), ones()], [zeros(40000), zeros()]]
    lists[broken][0] = with_nan(40000)
    ratios = optim.lars(*lists, **LARS)
    assert np.isnan(ratios[0]) and np.isnan(lists[0][0]).all() and np.isnan(lists[2][0]).all()
    assert np.isfinite(ratios[1]) and np.isfinite(lists[0][1]).all()


def test_lars_with_an_infinite_gradient_shows_it():
    g = ones()
    g[4] = np.inf
    p = ones()
    optim.lars([p], [g], [zeros()], **LARS)
    assert np.isnan(p[4])


@pytest.mark.parametrize(
    "options", [{"step": 1, "gamma": 0.1}, {"gamma": 0.0}, {"beta1": 0.0, "gamma": 0.1}]
)
def test_mars_without_correction_is_adamw_and_does_not_look_at_previous(options):
    p, g, m, v = normals(4)
    v = [np.square(v[0])]
    ours = [[group[0].copy()] for group in (p, m, v)]
    previous = [np.full_like(g[0], np.nan)]
    given = ADAM | options | {"grad_scale": 0.5}
    optim.mars_adamw(ours[0], g, previous, ours[1], ours[2], max_norm=None, **given)
    optim.adamw(p, g, m, v, **{name: given[name] for name in given if name != "gamma"})
    for found, wanted in zip(ours, (p, m, v)):
        assert np.array_equal(found[0], wanted[0])
    assert np.array_equal(previous[0], g[0] * FLOAT32.type(0.5))


def first_moment(max_norm, grad=1.0):
    """The corrected and clipped gradient of five ones, with no momentum."""
    m = ones(5)
    options = ADAM | {"beta1": 0.0, "gamma": 0.1, "max_norm": max_norm}
    optim.mars_adamw([ones(5)], [grad * ones(5)], [zeros(5)], [m], [ones(5)], **options)
    return m


def test_mars_clips_each_tensor_to_the_norm():
    assert np.array_equal(first_moment(None), first_moment(2.25)), "sqrt(5) is below the limit"
    assert np.linalg.norm(first_moment(2.0)) == pytest.approx(2.0)
    assert np.array_equal(first_moment(2.0, grad=0.0), zeros(5))


def test_mars_with_nan_breaks_its_tensor_if_there_is_a_limit():
    for max_norm, broken in [(1.0, 40000), (None, 1)]:
        p, g = [ones(40000), ones()], [with_nan(40000), ones()]
        states = [[zeros(40000), zeros()] for _ in range(3)]
        optim.mars_adamw(p, g, *states, gamma=0.1, max_norm=max_norm, **ADAM)
        assert np.isnan(p[0]).sum() == broken and np.isnan(p[0][20000])
        assert np.isnan(states[0][0]).sum() == 1, "previous is the gradient itself"
        assert np.isfinite(p[1]).all()


def test_mars_with_an_infinite_gradient_shows_it():
    g, p = ones(), ones()
    g[4] = np.inf
    optim.mars_adamw([p], [g], [zeros()], [zeros()], [zeros()], gamma=0.1, **ADAM)
    assert np.isnan(p[4])
