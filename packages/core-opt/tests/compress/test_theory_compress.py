"""The statements of docs/topics/1.3.md, checked by numbers."""

import numpy as np
import pytest
from oarlock.core_opt import compress
from oarlock.core_opt.compress import hadamard, hessian
from oarlock.core_opt.compress.analysis import predict, spectra
from oarlock.core_opt.compress.analysis.fisher import LayerFisher
from oarlock.core_opt.compress.grids import Grid
from oarlock.core_opt.compress.modifiers import rounding


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def moment_of(rows, seed=0, decay=1e-3):
    """A second moment of inputs with decaying eigenvalues in random directions."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.standard_normal((rows, rows)))
    return (q * np.geomspace(1, decay, rows)) @ q.T


# Second order -----------------------------------------------------------------------------------


def test_hessian_is_the_fisher_matrix_where_the_model_draws_the_targets():
    """E_y [grad grad^T] = Hessian for softmax(x W), summed over all targets y exactly."""
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal(3), rng.standard_normal((3, 4))
    p = softmax(x @ weight)
    fisher = np.zeros((12, 12))
    for target in range(4):
        grad = np.outer(x, p - np.eye(4)[target]).ravel()
        fisher += p[target] * np.outer(grad, grad)
    hessian_matrix = np.kron(np.outer(x, x), np.diag(p) - np.outer(p, p))
    np.testing.assert_allclose(fisher, hessian_matrix, atol=1e-12)


def test_loss_increase_is_the_kullback_leibler_divergence_to_second_order():
    rng = np.random.default_rng(1)
    x, weight = rng.standard_normal((50, 3)), rng.standard_normal((3, 4))
    p = softmax(x @ weight)
    for size, tolerance in ((1e-3, 1e-2), (1e-2, 5e-2)):
        change = size * rng.standard_normal((3, 4))
        divergence = (p * np.log(p / softmax(x @ (weight + change)))).sum(-1).mean()
        d = x @ change
        second = 0.5 * ((p * d**2).sum(-1) - (p * d).sum(-1) ** 2).mean()
        assert divergence == pytest.approx(second, rel=tolerance)


def test_second_order_is_too_much_for_large_changes():
    """Where it fails: logits cannot lose more than a softmax does, which is linear far out."""
    rng = np.random.default_rng(1)
    x, weight = rng.standard_normal((50, 3)), rng.standard_normal((3, 4))
    p, d = softmax(x @ weight), x @ (10 * rng.standard_normal((3, 4)))
    divergence = (p * np.log(p / softmax(x @ weight + d))).sum(-1).mean()
    second = 0.5 * ((p * d**2).sum(-1) - (p * d).sum(-1) ** 2).mean()
    assert second > 1.5 * divergence


@pytest.mark.parametrize("dependent", [False, True])
def test_kronecker_factors_are_exact_for_independent_inputs_and_gradients(dependent):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((200000, 3)) @ rng.standard_normal((3, 3))
    g = rng.standard_normal((200000, 2)) @ rng.standard_normal((2, 2))
    if dependent:
        g *= np.abs(x[:, :1])  # the larger the input, the larger the gradient
    change = rng.standard_normal((3, 2))
    exact = 0.5 * np.square((x @ change * g).sum(1)).mean()
    one = LayerFisher(x.T @ x / len(x), g.T @ g / len(g), np.zeros((3, 2)))
    ratio = predict.quadratic(change, one) / exact
    assert (abs(ratio - 1) > 0.1) if dependent else (abs(ratio - 1) < 0.02)


def test_first_order_terms_within_their_sampling_error_are_dropped():
    """Of a true gradient of zero next to nothing is left, of a large one nearly all."""
    rng = np.random.default_rng(3)
    n, quadratic = 1000, 0.02
    noise = rng.standard_normal(20000) * np.sqrt(2 * quadratic / n)
    kept = np.array([predict.credible(value, quadratic, n) for value in noise])
    assert np.abs(kept).mean() < 0.4 * np.abs(noise).mean()
    large = 20 * np.sqrt(2 * quadratic / n)
    assert predict.credible(large, quadratic, n) == pytest.approx(large, rel=0.003)


# Rounding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_rounding_noise_is_a_twelfth_of_the_step_squared(bits):
    """Even at 2 bits, since every column has a range, and so an offset, of its own."""
    weight = np.random.default_rng(0).standard_normal((256, 64))
    grid = compress.AbsMax().grid(weight, bits=bits, group=256, symmetric=False)
    error = grid.round(weight) - weight
    ratio = np.square(error).mean() / (np.square(grid.scale).mean() / 12)
    assert ratio == pytest.approx(1, abs=0.05)
    assert abs(np.corrcoef(error.ravel(), weight.ravel())[0, 1]) < 0.05


def test_high_rate_formula_is_the_mean_of_the_quadratic():
    rng = np.random.default_rng(4)
    weight = rng.standard_normal((64, 32))
    one = LayerFisher(moment_of(64), moment_of(32, 1), np.zeros((64, 32)))
    grid = compress.AbsMax().grid(1.2 * weight, bits=6, group=16, symmetric=False)
    errors = []
    for _ in range(200):  # a shift of the weights makes the rounding noise independent
        shifted = weight + rng.uniform(-1, 1, weight.shape) * np.repeat(grid.scale, 16, 0)
        errors.append(predict.quadratic(grid.round(shifted) - shifted, one))
    inside = predict.high_rate(grid.scale, 16, one)
    assert np.mean(errors) == pytest.approx(inside, rel=0.03)


def test_noise_of_two_layers_adds_up():
    """The cross term of independent errors has the mean zero."""
    rng = np.random.default_rng(5)
    h = moment_of(20)
    both, single = [], []
    for _ in range(4000):
        e = rng.uniform(-0.5, 0.5, 20)
        both.append(e @ h @ e)
        parts = e * (np.arange(20) < 10), e * (np.arange(20) >= 10)
        single.append(sum(part @ h @ part for part in parts))
    assert np.mean(both) == pytest.approx(np.mean(single), rel=0.03)


def test_entropy_coded_uniform_rounding_is_a_quarter_bit_from_the_bound():
    """Gaussian: D = 2^(-2R) at best; with Delta^2 / 12 and the entropy of the codes pi e / 6 above."""
    x = np.random.default_rng(6).standard_normal(400000)
    step = 0.2
    codes = np.rint(x / step)
    _, counts = np.unique(codes, return_counts=True)
    share = counts / counts.sum()
    entropy = -(share * np.log2(share)).sum()
    excess = entropy - 0.5 * np.log2(1 / np.square(codes * step - x).mean())
    assert excess == pytest.approx(0.5 * np.log2(np.pi * np.e / 6), abs=0.01)
    assert excess == pytest.approx(0.254, abs=0.01)


# Water-filling ----------------------------------------------------------------------------------


def water_filling(costs, sizes, mean_bits):
    """b = max(0, log4(c / theta)) with theta such that the mean is met."""
    low, high = 1e-12, costs.max()
    for _ in range(200):
        theta = np.sqrt(low * high)
        bits = np.maximum(0, 0.5 * np.log2(costs / theta))
        if (bits * sizes).sum() > mean_bits * sizes.sum():
            low = theta
        else:
            high = theta
    return bits, theta


@pytest.mark.parametrize("mean_bits", [0.5, 1.0, 3.0, 6.0])
def test_no_allocation_beats_the_water_level(mean_bits):
    rng = np.random.default_rng(7)
    costs, sizes = rng.lognormal(0, 2, 8), rng.integers(1, 9, 8).astype(float)
    bits, theta = water_filling(costs, sizes, mean_bits)
    best = (sizes * costs * 4.0**-bits).sum()
    filled = bits > 0
    np.testing.assert_allclose((costs * 4.0**-bits)[filled], theta)
    assert (costs[~filled] <= theta * (1 + 1e-9)).all()
    for _ in range(2000):
        other = np.maximum(bits + rng.normal(0, 0.3, 8), 0)
        other *= mean_bits * sizes.sum() / (other * sizes).sum()
        assert (sizes * costs * 4.0**-other).sum() >= best * (1 - 1e-9)


def test_gain_over_equal_bits_is_arithmetic_over_geometric_mean():
    rng = np.random.default_rng(8)
    costs, sizes = rng.lognormal(0, 1, 6), np.ones(6)
    bits, _ = water_filling(costs, sizes, 5.0)
    gain = (costs * 4.0**-5.0).sum() / (costs * 4.0**-bits).sum()
    assert gain == pytest.approx(costs.mean() / np.exp(np.log(costs).mean()), rel=1e-6)


# Error mitigation -------------------------------------------------------------------------------


def test_expected_errors_of_rounding_to_nearest_and_of_gptq():
    """Delta^2 / 12 times tr H against the sum of d in H = L D L^T, L upper unit triangular."""
    rows, step = 24, 8 / 255
    h = moment_of(rows, decay=1e-2) + 1e-6 * np.eye(rows)
    rng = np.random.default_rng(9)
    weight = rng.standard_normal((rows, 400))
    scale = np.full((1, 400), step, np.float32)  # one step, wide enough for all
    fixed = Grid(bits=8, scale=scale, zero=np.full_like(scale, 128), rows=rows)
    nearest = hessian.error(fixed.round(weight) - weight, h) / 400
    codes, _ = rounding.gptq(weight, h, lambda part: fixed, group=rows)
    gptq = hessian.error(fixed.values(codes) - weight, h) / 400
    d = 1 / np.square(np.diagonal(hessian.inverse_factor(h)))
    assert nearest == pytest.approx(step**2 / 12 * np.trace(h), rel=0.05)
    assert gptq == pytest.approx(step**2 / 12 * d.sum(), rel=0.05)
    assert np.prod(d) == pytest.approx(np.linalg.det(h), rel=1e-6)
    assert (d <= np.diagonal(h) * (1 + 1e-9)).all()
    assert rows * np.linalg.det(h) ** (1 / rows) <= d.sum() <= np.trace(h)


def test_cost_of_dropping_a_weight():
    """The least of e^T H e with e_i = -w_i is w_i^2 / [H^-1]_ii."""
    h = moment_of(7) + 0.01 * np.eye(7)
    rng = np.random.default_rng(10)
    weight, inverse = rng.standard_normal(7), np.linalg.inv(h)
    for i in range(7):
        e = -weight[i] / inverse[i, i] * inverse[:, i]
        assert e[i] == pytest.approx(-weight[i])
        least = weight[i] ** 2 / inverse[i, i]
        assert e @ h @ e == pytest.approx(least)
        for _ in range(20):
            other = e + np.where(np.arange(7) == i, 0, rng.standard_normal(7))
            assert other @ h @ other >= least * (1 - 1e-9)


# Transforms -------------------------------------------------------------------------------------


def test_rotation_bounds_the_largest_weight():
    """A spike of peak over rms sqrt(n) falls below sqrt(2 ln 2n) for nearly all signs, and n = 256."""
    n = 256
    peaks = []
    for seed in range(50):
        weight = np.random.default_rng(seed).standard_normal((n, 1)) * 0.1
        weight[seed] = 30.0
        rotated = hadamard.rotate_rows(weight, hadamard.signs(n, seed), n)
        peaks.append(np.abs(rotated).max() / np.sqrt(np.square(rotated).mean()))
        assert np.abs(weight).max() / np.sqrt(np.square(weight).mean()) > 15
        np.testing.assert_allclose(np.square(rotated).sum(), np.square(weight).sum())
    assert np.mean(np.array(peaks) < np.sqrt(2 * np.log(2 * n))) > 0.95


def test_scaling_a_row_lowers_its_error_until_it_sets_the_step():
    weight = np.random.default_rng(11).uniform(-1, 1, (64, 200))
    weight[0] *= 0.3
    errors = []
    for s in (1.0, 2.0, 8.0):
        scaled = weight.copy()
        scaled[0] *= s
        grid = compress.AbsMax().grid(scaled, bits=6, group=64, symmetric=False)
        error = (grid.round(scaled) - scaled)[0] / s
        others = (grid.round(scaled) - scaled)[1:]
        errors.append((np.square(error).mean(), np.square(others).mean()))
    assert errors[0][0] / errors[1][0] == pytest.approx(4, rel=0.15)
    assert errors[1][1] == pytest.approx(errors[0][1], rel=0.05)
    assert errors[2][1] > 1.4 * errors[0][1], "the step of all grows with the largest row"


@pytest.mark.parametrize("deviation", [1e-3, 0.02, 0.7])
def test_exponents_of_gaussian_weights_hold_two_and_a_half_bits(deviation):
    weight = deviation * np.random.default_rng(12).standard_normal(500000)
    assert 2.4 < spectra.exponent_entropy(weight) < 2.7
