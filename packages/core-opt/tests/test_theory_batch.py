"""Critical batch size and scaling of the learning rate in docs/topics/1.1.md, by numbers."""

import math

import numpy as np
import pytest

# The noisy quadratic model ------------------------------------------------------------------------

CURVATURE = np.arange(1, 51.0) ** -1.5  # kappa = 354; the noise of an example has covariance H
TARGET = 0.01  # share of the first loss


def second_moments(curvature, noise, eta, beta):
    """The map of (E x^2, E x m, E m^2, 1) under m <- beta m + h x + noise, x <- x - eta m."""
    a, b, p, q = 1 - eta * curvature, -eta * beta, curvature, beta + 0 * eta * curvature
    zero = 0 * p * eta
    rows = [
        [a * a, 2 * a * b, b * b + zero, eta**2 * noise],
        [a * p, a * q + b * p, b * q, -eta * noise],
        [p * p + zero, 2 * p * q, q * q, noise + zero],
        [zero, zero, zero, 1 + zero],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def least_steps(power, batch, betas=(0.0,), doublings=17):
    """Least steps to the target over a grid of rates, exact, with the preconditioner H^-power.

    In x' = H^(power/2) x the curvature is H^(1 - power), and so is the covariance of the noise.
    """
    curvature = CURVATURE ** (1 - power)
    shares = [np.geomspace(1e-5, 0.3, 36, endpoint=False), np.linspace(0.3, 0.9999, 24)]
    etas = np.concatenate(shares) * 2 / curvature.max()
    eta, beta = (grid.reshape(-1, 1) for grid in np.meshgrid(etas, betas, indexing="ij"))
    eta = eta * (1 + beta)
    powers = [second_moments(curvature, curvature / batch, eta, beta)]
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(doublings):
            powers.append(np.clip(powers[-1] @ powers[-1], -1e100, 1e100))
        state = np.zeros([len(eta), len(curvature), 4])
        state[..., 0], state[..., 3], taken = CURVATURE**power, 1.0, np.zeros(len(eta))
        for k in range(doublings, -1, -1):  # the last step at which the loss is above the target
            then = np.clip((powers[k] @ state[..., None])[..., 0], -1e100, 1e100)
            above = ~((curvature * then[..., 0]).sum(axis=1) <= TARGET * CURVATURE.sum())
            state[above] = then[above]
            taken[above] += 2.0**k
    taken = np.where(taken >= 2.0 ** (doublings + 1) - 1, np.inf, taken + 1)
    best = taken.argmin()
    return taken[best], eta[best, 0] / (1 - beta[best, 0])


BATCHES = 4.0 ** np.arange(0, 10)


def curve(power, betas=(0.0,)):
    """Steps and best rates over the batches, least steps, least examples, critical batch."""
    steps, rates = np.array([least_steps(power, batch, betas) for batch in BATCHES]).T
    least, examples = steps[-1], (steps * BATCHES)[:3].min()
    return steps, rates, least, examples, examples / least


@pytest.fixture(scope="module")
def curves():
    found = {power: curve(power) for power in (0.0, 0.5, 1.0)}
    return {**found, "momentum": curve(0.0, (0.7, 0.8, 0.9))}


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_second_moments_are_those_of_runs(beta):
    rng, eta, batch = np.random.default_rng(0), 0.1, 4.0
    curvature = np.array([1.0, 0.3])
    x, m = np.ones([20_000, 2]), np.zeros([20_000, 2])
    state = np.tile([1.0, 0.0, 0.0, 1.0], [2, 1])
    one = second_moments(curvature, curvature / batch, eta, beta)
    for _ in range(25):
        noise = rng.standard_normal(x.shape) * np.sqrt(curvature / batch)
        m = beta * m + curvature * x + noise
        x = x - eta * m
        state = (one @ state[..., None])[..., 0]
    np.testing.assert_allclose((x**2).mean(axis=0), state[:, 0], rtol=0.05)


@pytest.mark.parametrize("method", [0.0, 0.5, 1.0, "momentum"])
def test_examples_follow_the_hyperbola(method, curves):
    """E / E_min = 1 + B / B_crit within a factor of two, the regimes at its ends exactly."""
    steps, _, _, examples, critical = curves[method]
    ratio = steps * BATCHES / examples / (1 + BATCHES / critical)
    assert 0.5 <= ratio.min() + 1e-3 and ratio.max() <= 1.15
    growth = steps[1:] / steps[:-1]  # for four times the batch
    assert (growth <= 1).all()
    low, high = BATCHES[1:] <= critical / 30, BATCHES[:-1] >= 30 * critical
    assert low.sum() >= 1 and (growth[low] <= 0.275).all()  # 1/4 is perfect scaling
    assert (growth[high] >= 0.9).all()


def test_best_rate_is_linear_in_the_batch_and_then_constant(curves):
    _, rates, _, _, critical = curves[0.0]
    low, high = BATCHES[1:] <= critical / 10, BATCHES[:-1] >= 30 * critical
    growth = rates[1:] / rates[:-1]
    assert (np.abs(growth[low] / 4 - 1) <= 0.25).all() and low.any()
    assert (np.abs(growth[high] - 1) <= 0.2).all() and high.any()


@pytest.mark.parametrize(
    "method,expected",
    [
        (0.0, (94, 22_750, 242)),
        ("momentum", (19, 22_700, 1190)),
        (0.5, (9, 4790, 532)),
        (1.0, (1, 4100, 4100)),
    ],
)
def test_table_of_the_page(method, expected, curves):
    """S_min, E_min, B_crit as the page prints them."""
    np.testing.assert_allclose(curves[method][2:], expected, rtol=0.02)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_preconditioning_raises_the_critical_batch_by_the_intrinsic_dimension(power, curves):
    """B_crit grows as tr(PH) / |PH|_2: 2.3 for H, 7.2 for H^1/2, 50 for the identity."""
    dimension = [(CURVATURE**p).sum() / (CURVATURE**p).max() for p in (1.0, 1 - power)]
    found = curves[power][4] / curves[0.0][4]
    assert found == pytest.approx(dimension[1] / dimension[0], rel=0.3)
    assert curves[power][3] < curves[0.0][3] / 2  # and fewer examples at small batches


def test_momentum_raises_the_critical_batch_by_the_steps_it_saves(curves):
    """Nothing below the critical batch; above it a gain of less than sqrt(kappa)."""
    plain, momentum = curves[0.0], curves["momentum"]
    assert momentum[3] == pytest.approx(plain[3], rel=0.05)
    saved = plain[2] / momentum[2]
    assert 3 < saved < math.sqrt(CURVATURE[0] / CURVATURE[-1])
    assert momentum[4] / plain[4] == pytest.approx(saved, rel=0.05)


# The gain of a spectral step ----------------------------------------------------------------------


def response(theta):
    return 2 / np.pi * (np.arctan(theta) + (1 - np.arctan(theta) / theta) / theta)


def test_gain_of_a_spectral_step_over_the_batch():
    """<G, O> -> sum s_i F(sqrt(B) s_i / (sigma sqrt n)): directions saturate one by one."""
    n, rng = 80, np.random.default_rng(0)
    strengths = np.array([1.0, 0.5, 0.25, 0.125])
    u = np.linalg.qr(rng.standard_normal([n, 4]))[0]
    v = np.linalg.qr(rng.standard_normal([n, 4]))[0]
    grad = u * strengths @ v.T
    for batch in (1.0, 4.0, 16.0, 64.0):
        found = []
        for _ in range(10):
            noisy = grad + rng.standard_normal([n, n]) / math.sqrt(n * batch)
            left, _, right = np.linalg.svd(noisy)
            found.append((grad * (left @ right)).sum())
        expected = (strengths * response(math.sqrt(batch) * strengths)).sum()
        assert np.mean(found) == pytest.approx(expected, rel=0.05)
    half = np.linspace(0.5, 2, 100_001)
    assert half[np.abs(response(half) ** 2 - 0.5).argmin()] == pytest.approx(1.222, abs=2e-3)


@pytest.mark.parametrize("inputs,ratio", [("even", 2.2), ("as the gradient", 15.2)])
def test_spread_spectra_move_muons_half_gain_batch_above_the_noise_scale(inputs, ratio):
    """Singular values 1 / i, i <= 16; batches in units of n s^2, s^2 the variance of an entry."""
    sigma = 1 / np.arange(1, 17.0)
    energy = np.ones(16) if inputs == "even" else sigma**2  # of the inputs along u_i
    noise_scale = energy.sum() / (energy * sigma**2).sum()  # tr(H S) / <G, H G>
    batches = np.geomspace(0.1, 1e4, 20_001)
    gain = (sigma * response(np.sqrt(batches)[:, None] * sigma)).sum(axis=1) / sigma.sum()
    half = batches[np.searchsorted(gain**2, 0.5)]
    assert half / noise_scale == pytest.approx(ratio, rel=0.02)
    if inputs == "even":  # one direction alone: 1.22^2, half as much again as the noise scale
        one = batches[np.searchsorted(response(np.sqrt(batches)) ** 2, 0.5)]
        assert one == pytest.approx(1.49, rel=0.01)


# Scaling of the rate ------------------------------------------------------------------------------

STEPS, SIGMA, ETA, TIMES = 4800, 30.0, 0.0117, 16


def final_square(rule, times, scaling, replicas=4000, seed=0):
    """E x^2 after the same examples with a batch ``times`` as large, f = x^2 / 2, from x = 1."""
    rng = np.random.default_rng(seed)
    eta = {"sgd": 3e-4, "adam": ETA, "sign": ETA}[rule] * float(times) ** scaling
    beta1, beta2 = 1 - 0.01 * times, 1 - 0.001 * times  # Adam's memory is the same in examples
    x, m, v = np.ones(replicas), 0.0, 0.0
    for step in range(1, STEPS // times + 1):
        grad = x + SIGMA / math.sqrt(times) * rng.standard_normal(replicas)
        if rule == "sign":
            grad = np.sign(grad)
        elif rule == "adam":
            m, v = beta1 * m + (1 - beta1) * grad, beta2 * v + (1 - beta2) * grad**2
            grad = m / (1 - beta1**step) / np.sqrt(v / (1 - beta2**step))
        x = x - eta * grad
    return (x**2).mean()


@pytest.mark.parametrize("rule,scaling", [("sgd", 1.0), ("sign", 0.5), ("adam", 0.5)])
def test_which_scaling_of_the_rate_keeps_the_run(rule, scaling):
    """Linear for SGD, with the square root for signs and Adam; the other one does not."""
    base = final_square(rule, 1, scaling)
    assert final_square(rule, TIMES, scaling, seed=1) == pytest.approx(base, rel=0.12)
    other = final_square(rule, TIMES, 1.5 - scaling, seed=1)
    assert abs(other / base - 1) > 0.5


def test_muons_rate_scales_with_the_square_root_too():
    """f = |W|_F^2 / 2 in noise: |W|^2 falls at 2 (8 / 3 pi) eta sqrt(B) / sigma a step, to a floor."""
    n, sigma, base, steps = 16, 30.0, 0.033, 1600

    def final(times, eta, seed):
        rng = np.random.default_rng(seed)
        weight = rng.standard_normal([4, n, n]) / math.sqrt(n)
        weight *= math.sqrt(n) / np.linalg.norm(weight, axis=(1, 2), keepdims=True)
        for _ in range(steps // times):
            noise = rng.standard_normal(weight.shape) * sigma / math.sqrt(n * times)
            u, _, vt = np.linalg.svd(weight + noise)
            weight = weight - eta * u @ vt
        return (weight**2).sum(axis=(1, 2)).mean() / n

    drift = 2 * 8 / (3 * math.pi) * base / sigma
    floor = base**2 / drift
    expected = floor + (1 - floor) * math.exp(-drift * steps)
    assert final(1, base, 0) == pytest.approx(expected, rel=0.1)
    assert final(16, base * 4, 1) == pytest.approx(expected, rel=0.1)
    assert final(16, base * 16, 2) > 2 * expected
