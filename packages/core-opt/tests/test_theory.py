"""The statements of docs/topics/1.1.md, checked by numbers."""

import math

import numpy as np
import pytest
from oarlock.core_opt.optim import newton_schulz

A, B, C = newton_schulz.JORDAN


def polynomial(sigma):
    return A * sigma + B * sigma**3 + C * sigma**5


def composed(name, sigma, steps=5):
    for a, b, c in newton_schulz.coefficients(name, steps):
        sigma = a * sigma + b * sigma**3 + c * sigma**5
    return sigma


def orthogonal_factor(matrix):
    u, _, vt = np.linalg.svd(matrix, full_matrices=False)
    return u @ vt


def turning_points():
    squares = np.roots([5 * C, 3 * B, A])
    return np.sort(np.sqrt(squares))


# Steepest descent under a norm -------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["maximum", "spectral"])
def test_no_step_beats_the_closed_form(norm):
    """min <G, D> + |D|^2 / (2 eta) = -eta |G|_*^2 / 2, at the sign or the orthogonal factor."""
    rng = np.random.default_rng(0)
    grad, eta = rng.standard_normal([5, 7]), 0.3
    if norm == "maximum":
        direction, dual = np.sign(grad), np.abs(grad).sum()
    else:
        direction, dual = orthogonal_factor(grad), np.linalg.svd(grad, compute_uv=False).sum()

    def size(step):
        return np.abs(step).max() if norm == "maximum" else np.linalg.norm(step, 2)

    def model(step):
        return (grad * step).sum() + size(step) ** 2 / (2 * eta)

    best = -eta * dual * direction
    assert model(best) == pytest.approx(-eta * dual**2 / 2)
    for _ in range(500):
        other = best + rng.standard_normal(grad.shape) * 10 ** rng.uniform(-3, 1)
        assert model(other) >= model(best) - 1e-12


def test_adamw_without_memory_is_the_sign():
    grad = np.random.default_rng(0).standard_normal(9)
    from oarlock.core_opt.optim.reference import adamw

    options = {"beta1": 0.0, "beta2": 0.0, "epsilon": 1e-12, "weight_decay": 0.0}
    step = adamw.step(np.zeros(9), grad, {}, step=1, lr=0.1, role="vector", options=options)
    np.testing.assert_allclose(step, -0.1 * np.sign(grad))


@pytest.mark.parametrize("name", ["jordan", "polar_express"])
def test_descent_lemma_with_inexact_orthogonalisation(name):
    """f(W - eta O) <= f(W) - eta <G, O> + eta^2 L u^2 / 2 with L = |A|_F^2, <G, O> >= l |G|_*."""
    low, high = band(name)
    assert (low / high) ** 2 == pytest.approx(
        {"jordan": 0.35, "polar_express": 0.57}[name], abs=5e-3
    )
    for seed in range(30):
        rng = np.random.default_rng(seed)
        a, w = rng.standard_normal([12, 6]), rng.standard_normal([6, 8])
        target = rng.standard_normal([12, 8])
        smoothness = (a**2).sum()

        def loss(weight, a=a, target=target):
            return ((a @ weight - target) ** 2).sum() / 2

        grad = a.T @ (a @ w - target)
        u, sigma, vt = np.linalg.svd(grad, full_matrices=False)
        start = sigma / (np.linalg.norm(sigma) * newton_schulz.SAFETY.get(name, 1.0))
        assert start.min() >= 0.005
        update = u * composed(name, start) @ vt
        nuclear = sigma.sum()
        assert (grad * update).sum() >= low * nuclear
        eta = low * nuclear / (smoothness * high**2)
        assert loss(w - eta * update) <= loss(w) - (low * nuclear / high) ** 2 / (2 * smoothness)


@pytest.mark.parametrize(
    "inputs,target,winner", [("decaying", "full", "muon"), ("flat", "rank one", "euclidean")]
)
def test_decrease_is_guaranteed_and_rank_decides_by_which_step(inputs, target, winner):
    """At least |G|_*^2 / (2 |A|_F^2) for Muon's step, |G|_F^2 / (2 |A|_2^2) for the gradient's."""
    rng = np.random.default_rng(0)
    a = np.linalg.qr(rng.standard_normal([64, 32]))[0]
    if inputs == "decaying":
        a = a * np.arange(1, 33.0) ** -2.0  # stable rank near 1
    wanted = rng.standard_normal([32, 32])
    if target == "rank one":
        wanted = np.outer(wanted[0], wanted[1])
    grad = -a.T @ (a @ wanted) if target == "rank one" else -wanted
    error = np.linalg.lstsq(a.T, grad, rcond=None)[0]  # an error A W - B with A^T error = G
    sigma = np.linalg.svd(grad, compute_uv=False)
    directions = {"muon": orthogonal_factor(grad), "euclidean": grad}
    guaranteed = {
        "muon": sigma.sum() ** 2 / (2 * (a**2).sum()),
        "euclidean": (sigma**2).sum() / (2 * np.linalg.norm(a, 2) ** 2),
    }
    for name, direction in directions.items():
        change = a @ direction
        eta = (error * change).sum() / (change**2).sum()  # exact line search
        left = ((error - eta * change) ** 2).sum() / 2
        assert (error**2).sum() / 2 - left >= guaranteed[name] * (1 - 1e-9)
    nuclear_rank = sigma.sum() ** 2 / (sigma**2).sum()
    stable_rank = (a**2).sum() / np.linalg.norm(a, 2) ** 2
    assert (nuclear_rank > stable_rank) == (winner == "muon")
    assert max(guaranteed, key=guaranteed.get) == winner


# Newton-Schulz ----------------------------------------------------------------------------------


def band(name):
    """Least and greatest singular value after five steps, for starts in [0.005, 1 / safety]."""
    high = 1 / newton_schulz.SAFETY.get(name, 1.0)
    sigma = composed(name, np.linspace(0.005, high, 400_001))
    return sigma.min() - 1e-4, sigma.max() + 1e-4


def test_jordans_interval_maps_into_itself():
    peak, trough = turning_points()
    low, high = polynomial(trough), polynomial(peak)
    assert (peak, trough) == pytest.approx((0.5545, 1.0501), abs=1e-4)
    assert (low, high) == pytest.approx((0.6818, 1.2024), abs=1e-4)
    assert peak < low < trough < high  # so p falls, then rises, on the interval
    image = [polynomial(low), polynomial(trough), polynomial(high)]
    assert low <= min(image) and max(image) <= high
    assert max(image) == pytest.approx(1.1344, abs=1e-4)


def test_jordans_iteration_lifts_small_singular_values():
    low = polynomial(turning_points()[1])
    sigma = np.linspace(1e-6, low, 100_001)
    growth = polynomial(sigma) / sigma
    assert (np.diff(growth) < 0).all() and growth[-1] == pytest.approx(1.664, abs=1e-3)
    assert growth[0] == pytest.approx(A)
    reach = np.linspace(0.00151, 1, 1_000_001)
    assert composed("jordan", reach).min() >= low - 1e-9
    assert composed("jordan", 0.0015) < low


def test_jordans_iteration_does_not_converge_to_one():
    assert polynomial(1.0) == pytest.approx(0.701)
    sigma = composed("jordan", np.linspace(0.1, 1, 1001), 30)
    assert sigma.max() - sigma.min() > 0.3


def test_polar_express_equioscillates():
    sigma = np.geomspace(1e-3, 1, 1_000_001)
    found = composed("polar_express", sigma)
    assert 1 - found.min() == pytest.approx(0.1411, abs=2e-4)
    assert found.max() - 1 == pytest.approx(0.1411, abs=2e-4)
    assert composed("jordan", sigma).min() == pytest.approx(0.4705, abs=1e-3)


@pytest.mark.parametrize("name,slope", [("jordan", 484.9), ("polar_express", 989.5)])
def test_perturbations_grow_at_most_by_the_greatest_slope(name, slope):
    sigma = np.linspace(0, 1, 2_000_001)
    found = composed(name, sigma)
    slopes = np.abs(np.diff(found) / np.diff(sigma))
    assert slopes.max() <= slope and slopes.argmax() == 0
    assert math.prod(a for a, _, _ in newton_schulz.coefficients(name, 5)) == pytest.approx(
        slope, abs=0.1
    )
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal([16, 24])
        x /= np.linalg.norm(x) * 1.01
        change = rng.standard_normal(x.shape) * 1e-3 / 20
        u, s, vt = np.linalg.svd(x, full_matrices=False)
        first = u * composed(name, s) @ vt
        u, s, vt = np.linalg.svd(x + change, full_matrices=False)
        second = u * composed(name, s) @ vt
        assert np.linalg.norm(second - first) <= slope * np.linalg.norm(change)


def test_bfloat16_inputs_are_good_enough():
    """Rounding X to 8 bits moves the result by at most slope 2^-9, a share slope 2^-9 / sqrt(r)."""
    rng = np.random.default_rng(0)
    for rank in (64, 256):
        x = rng.standard_normal([rank, 2 * rank])
        x /= np.linalg.norm(x)
        bits = np.frombuffer(x.astype("float32").tobytes(), "uint32")
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        rounded = np.frombuffer(bits.astype("uint32").tobytes(), "float32").reshape(x.shape)
        assert np.linalg.norm(rounded - x) <= 2.0**-9
        results = []
        for value in (x, rounded.astype("float64")):
            u, s, vt = np.linalg.svd(value, full_matrices=False)
            results.append(u * composed("jordan", s) @ vt)
        share = np.linalg.norm(results[1] - results[0]) / np.linalg.norm(results[0])
        assert share <= 484.9 * 2.0**-9 / (0.68 * math.sqrt(rank))
        assert share < 0.05


# Critical batch size ----------------------------------------------------------------------------


def test_gain_of_a_step_follows_the_noise_scale():
    """E[decrease] at the best step = best * 1 / (1 + B_noise / B), B_noise = tr(H S) / g'Hg."""
    rng = np.random.default_rng(0)
    n = 12
    root = rng.standard_normal([n, n])
    hessian = root @ root.T / n
    grad, deviation = rng.standard_normal(n), rng.uniform(0.5, 2, n)
    curvature = grad @ hessian @ grad
    noise_scale = np.trace(hessian * deviation**2) / curvature
    best = (grad @ grad) ** 2 / (2 * curvature)
    for batch in (1, 4, 16):
        noisy = grad + rng.standard_normal([200_000, n]) * deviation / math.sqrt(batch)
        eta = (grad @ grad) / (curvature * (1 + noise_scale / batch))
        decrease = eta * noisy @ grad - eta**2 / 2 * ((noisy @ hessian) * noisy).sum(axis=1)
        assert decrease.mean() == pytest.approx(best / (1 + noise_scale / batch), rel=0.02)


def test_steps_and_examples_trade_along_a_hyperbola():
    noise = 32.0
    for batch in (1.0, 8.0, 32.0, 512.0):
        steps, examples = 1 + noise / batch, (batch + noise) / noise
        assert (steps - 1) * (examples - 1) == pytest.approx(1)
