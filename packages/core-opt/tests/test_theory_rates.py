"""Convergence rates and schedules in docs/topics/1.1.md, checked against their bounds."""

import itertools
import math

import numpy as np
import pytest
from oarlock.core_opt.optim import newton_schulz

# Steepest descent with momentum and noise ---------------------------------------------------------


def dual_norm(norm, grads):
    if norm == "maximum":
        return np.abs(grads).sum(axis=(1, 2))
    return np.linalg.svd(grads, compute_uv=False).sum(axis=1)


def unit_step(norm, grads):
    if norm == "maximum":
        return np.sign(grads)
    u, _, vt = np.linalg.svd(grads, full_matrices=False)
    return u @ vt


class Saturating:
    """f(W) = sum phi(A W - B), phi(x) = x^2 / (1 + x^2): not convex, f* = 0, |phi''| <= 2."""

    def __init__(self, seed, tokens=24, rows=4, columns=5):
        rng = np.random.default_rng(seed)
        self.a = rng.standard_normal([tokens, rows]) * np.geomspace(1, 0.2, rows)
        self.b = self.a @ rng.standard_normal([rows, columns])
        self.shape = (rows, columns)

    def loss(self, weight):
        square = (self.a @ weight - self.b) ** 2
        return (square / (1 + square)).sum(axis=(-2, -1))

    def grad(self, weight):
        error = self.a @ weight - self.b
        return self.a.T @ (2 * error / (1 + error**2) ** 2)

    def smoothness(self, norm):
        """2 |A|_F^2 for the spectral norm; 2 n max |A s|^2 over signs s for the largest entry."""
        if norm == "spectral":
            return 2 * (self.a**2).sum()
        signs = np.array(list(itertools.product([-1.0, 1.0], repeat=self.shape[0])))
        return 2 * self.shape[1] * ((self.a @ signs.T) ** 2).sum(axis=0).max()


def mean_dual_norm(problem, norm, etas, steps, beta, sigma, seed=0):
    """Average over the run of the dual norm of the exact gradient, for each learning rate."""
    rng = np.random.default_rng(seed)
    weight = np.zeros([len(etas), *problem.shape])
    total = momentum = 0.0
    for step in range(steps):
        grad = problem.grad(weight)
        total += dual_norm(norm, grad)
        noisy = grad + sigma * rng.standard_normal(grad.shape) / math.sqrt(grad[0].size)
        momentum = noisy if step == 0 else beta * momentum + (1 - beta) * noisy
        weight = weight - etas[:, None, None] * unit_step(norm, momentum)
    return total / steps


def rate_bound(start, smoothness, etas, steps, beta, noise):
    """Delta / (eta T) + L eta (1/2 + 2 b / (1 - b)) + 2 noise (sqrt((1-b)/(1+b)) + 1/((1-b)T))."""
    averaged = math.sqrt((1 - beta) / (1 + beta)) + (beta > 0) / ((1 - beta) * steps)
    drift = smoothness * etas * (0.5 + 2 * beta / (1 - beta))
    return start / (etas * steps) + drift + 2 * noise * averaged


@pytest.mark.parametrize("steps", [60, 600])
@pytest.mark.parametrize("beta,sigma,slack", [(0.0, 0.0, 1.3), (0.9, 0.0, 4), (0.9, 2.0, 4)])
@pytest.mark.parametrize("norm", ["spectral", "maximum"])
def test_mean_gradient_is_within_its_bound(norm, beta, sigma, slack, steps):
    """For every rate; at the rate with the least bound it is within the factor ``slack`` of it."""
    problem, etas = Saturating(0), np.geomspace(1e-3, 0.5, 10)
    widest = {"spectral": math.sqrt(4), "maximum": math.sqrt(20)}[norm]  # dual norm over Frobenius
    start = problem.loss(np.zeros(problem.shape))
    bound = rate_bound(start, problem.smoothness(norm), etas, steps, beta, widest * sigma)
    found = mean_dual_norm(problem, norm, etas, steps, beta, sigma)
    assert (found <= bound).all()
    assert found[bound.argmin()] >= bound.min() / slack


@pytest.mark.parametrize("name", ["jordan", "polar_express"])
def test_mean_gradient_with_newton_schulz_is_within_its_bound(name):
    """(Delta / (eta T) + L eta (u^2 / 2 + (l + u) u b / (1 - b))) / l, <M, O> >= l |M|_*."""
    problem, beta, steps = Saturating(0), 0.9, 400
    smoothness, start = problem.smoothness("spectral"), problem.loss(np.zeros(problem.shape))
    for eta in (0.003, 0.01, 0.03):
        weight, total, momentum, low, high = np.zeros(problem.shape), 0.0, 0.0, np.inf, 0.0
        for step in range(steps):
            grad = problem.grad(weight)
            total += dual_norm("spectral", grad[None])[0]
            momentum = grad if step == 0 else beta * momentum + (1 - beta) * grad
            u, sigma, vt = np.linalg.svd(momentum, full_matrices=False)
            sigma = sigma / (np.linalg.norm(sigma) * newton_schulz.SAFETY.get(name, 1.0))
            share = sigma / sigma.sum()
            for a, b, c in newton_schulz.coefficients(name, 5):
                sigma = a * sigma + b * sigma**3 + c * sigma**5
            low, high = min(low, (share * sigma).sum()), max(high, sigma.max())
            weight = weight - eta * u * sigma @ vt
        drift = (low + high) * high * beta / (1 - beta)
        bound = (start / (eta * steps) + smoothness * eta * (high**2 / 2 + drift)) / low
        assert low > {"jordan": 0.69, "polar_express": 0.85}[name]
        assert total / steps <= bound
        if eta == 0.01:  # near the least bound
            assert total / steps >= bound / 4


def test_bound_without_momentum_is_attained():
    """f = L |W|_F^2 / (2 r), from (k + 1/2) eta Q down to eta Q / 2, and back and forth after."""
    rank, smoothness, eta, k = 4, 3.0, 0.01, 200
    q = np.linalg.qr(np.random.default_rng(0).standard_normal([rank, rank]))[0]
    for steps, first in ((k, k + 0.5), (10_000, 0.5)):
        weight, total = first * eta * q, 0.0
        start = smoothness * (weight**2).sum() / (2 * rank)
        sign = first * eta  # W stays a multiple of Q, and U V' is Q with the sign of it
        for _ in range(steps):
            total += smoothness * abs(sign)
            sign -= eta * math.copysign(1.0, sign)
        bound = rate_bound(start, smoothness, np.array([eta]), steps, 0.0, 0.0)[0]
        assert bound / 1.02 <= total / steps <= bound
    factor = unit_step("spectral", (smoothness / rank * weight)[None])[0]
    np.testing.assert_allclose(factor, q, atol=1e-9)


@pytest.mark.parametrize("beta,low,high", [(0.0, 0.9, 1.1), (0.99, 0.0, 0.25)])
def test_without_averaging_the_noise_does_not_go_away(beta, low, high):
    """Noise 3 with probability 1/4, else -1: plain signs stop where f' = 1, at any rate."""
    rng, weight, momentum, grads = np.random.default_rng(0), 2.0, 0.0, []
    for step in range(20_000):
        noisy = weight + (3.0 if rng.random() < 0.25 else -1.0)  # f = x^2 / 2
        momentum = noisy if step == 0 else beta * momentum + (1 - beta) * noisy
        weight -= 1e-3 * np.sign(momentum)
        grads.append(abs(weight))
    assert low <= np.mean(grads[10_000:]) <= high
    assert np.mean(grads) <= rate_bound(2.0, 1.0, 1e-3, 20_000, beta, math.sqrt(3))


@pytest.mark.parametrize("gradient,inputs", [("dense", "any"), ("flat", "orthogonal")])
def test_which_of_sign_and_spectral_step_has_the_better_guarantee(gradient, inputs):
    """|G|_1^2 / L_max against |G|_*^2 / L_spectral; L_max >= (columns) L_spectral always."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows, columns = 8, 8
        a = rng.standard_normal([32, rows])
        if inputs == "orthogonal":
            a = np.linalg.qr(a)[0] * rng.uniform(0.1, 1, rows)
        signs = np.array(list(itertools.product([-1.0, 1.0], repeat=rows)))
        spectral, maximum = (a**2).sum(), columns * ((a @ signs.T) ** 2).sum(axis=0).max()
        assert maximum >= columns * spectral * (1 - 1e-9)
        grad = rng.standard_normal([rows, columns])
        if gradient == "flat":
            grad = np.outer(rng.choice([-1, 1], rows), rng.choice([-1, 1], columns))
        by_sign = np.abs(grad).sum() ** 2 / (2 * maximum)
        by_spectrum = np.linalg.svd(grad, compute_uv=False).sum() ** 2 / (2 * spectral)
        assert (by_sign > by_spectrum) == (gradient == "flat")
    if gradient == "dense":  # a square Gaussian G: (9 pi / 32) n < n <= L_max / L_spectral
        grad = rng.standard_normal([300, 300])
        nuclear = np.linalg.svd(grad, compute_uv=False).sum()
        ratio = np.abs(grad).sum() ** 2 / nuclear**2
        assert ratio == pytest.approx(9 * math.pi / 32 * 300, rel=0.02)


@pytest.mark.parametrize("steps,loose", [(30, 230), (300, 1200), (3000, 3700)])
def test_muon_with_weight_decay_is_frank_wolfe(steps, loose):
    """f(W_T) - f* <= 8 L / (lambda^2 (T + 2)) with eta_t = 2 / (lambda (t + 2)), |W| <= 1 / lambda."""
    rng, radius = np.random.default_rng(0), 2.0
    a = rng.standard_normal([20, 4])
    best = radius * np.linalg.qr(rng.standard_normal([4, 4]))[0]
    best = best @ np.diag([1, 1, 0.3, 0.1])  # on the sphere, not at a corner of it
    smoothness, weight = (a**2).sum(), np.zeros([4, 4])
    for step in range(steps):
        grad = a.T @ (a @ (weight - best))
        eta = 2 * radius / (step + 2)
        weight = (1 - eta / radius) * weight - eta * unit_step("spectral", grad[None])[0]
        assert np.linalg.norm(weight, 2) <= radius * (1 + 1e-9)
    gap = ((a @ (weight - best)) ** 2).sum() / 2
    bound = 8 * smoothness * radius**2 / (steps + 2)
    assert bound / gap == pytest.approx(loose, rel=0.05) and gap <= bound
    if steps == 3000:  # the bound says more than the value at the start
        assert bound < ((a @ best) ** 2).sum() / 20


# Schedules ----------------------------------------------------------------------------------------

SHAPES = {
    "constant": lambda share: 1.0,
    "linear": lambda share: 1 - share,
    "wsd": lambda share: min(1.0, (1 - share) * 5),
    "cosine": lambda share: 0.5 * (1 + math.cos(math.pi * share)),
}


def noise_left(curvature, eta, steps, shape):
    """E x^2 at the end for gradients h x + noise of variance 1, from x = 0: exact."""
    square = 0.0
    for step in range(steps):
        rate = eta * SHAPES[shape](step / steps)
        square = (1 - rate * curvature) ** 2 * square + rate**2
    return square


def predicted_noise(curvature, eta, steps, shape):
    if shape == "constant":
        return eta / (curvature * (2 - eta * curvature))
    if shape == "cosine":  # the end is (pi^2 / 4) (u / T)^2 with u steps left
        peak = eta * math.pi**2 / 4
        rate = 2 * curvature * peak / (3 * steps**2)
        return (peak / steps**2) ** 2 * math.gamma(5 / 3) / 3 * rate ** (-5 / 3)
    span = steps / 5 if shape == "wsd" else steps
    return math.sqrt(math.pi * eta / span) / 4 * curvature**-1.5


@pytest.mark.parametrize("shape", sorted(SHAPES))
@pytest.mark.parametrize("curvature,eta,steps", [(1.0, 0.05, 2000), (0.2, 0.1, 10_000)])
def test_noise_left_by_a_schedule(shape, curvature, eta, steps):
    """eta / (h (2 - eta h)) if constant, sqrt(pi eta / T) / (4 h^1.5) if linear to zero."""
    found = noise_left(curvature, eta, steps, shape)
    assert found == pytest.approx(predicted_noise(curvature, eta, steps, shape), rel=0.03)
    if shape == "linear":
        gain = noise_left(curvature, eta, steps, "constant") / found
        expected = 2 / math.sqrt(math.pi) * math.sqrt(eta * curvature * steps)
        assert gain == pytest.approx(expected, rel=0.03)


def test_averaging_leaves_one_over_t():
    """The mean of the iterates at a constant rate: E x^2 -> 1 / (h^2 T), whatever the rate."""
    rng, curvature, steps = np.random.default_rng(0), 0.5, 2000
    for eta in (0.05, 0.2):
        x, mean = np.zeros(4000), 0.0
        for _ in range(steps):
            mean = mean + x / steps
            x = (1 - eta * curvature) * x + eta * rng.standard_normal(len(x))
        assert (mean**2).mean() == pytest.approx(1 / (curvature**2 * steps), rel=0.08)


class Piecewise:
    """Convex with unit subgradients: mean or greatest |a_i x - b_i| with |a_i| = 1, f* = 0."""

    def __init__(self, kind, seed):
        self.rng, self.kind = np.random.default_rng(seed), kind
        a = self.rng.standard_normal([40, 10])
        self.a = a / np.linalg.norm(a, axis=1, keepdims=True)
        self.best = self.rng.standard_normal(10)

    def loss(self, x):
        error = np.abs(self.a @ (x - self.best))
        return error.mean() if self.kind == "mean" else error.max()

    def subgradient(self, x):  # stochastic for the mean
        error = self.a @ (x - self.best)
        row = self.rng.integers(40) if self.kind == "mean" else np.abs(error).argmax()
        return self.a[row] * np.sign(error[row])


class Resisting:
    """max_i x_i over T coordinates, shown one at a time: no method does better than D G / sqrt T."""

    def __init__(self, steps, distance=1.5):
        self.size, self.best, self.shown = steps, np.full(steps, -distance / math.sqrt(steps)), 0

    def loss(self, x):
        return x.max() - self.best[0]

    def subgradient(self, x):
        assert x.max() <= x[self.shown] + 1e-12  # so that this is a subgradient
        self.shown += 1
        return np.eye(1, self.size, self.shown - 1)[0]


def linear_decay(problem, steps):
    """Last iterate x_T with eta_t = (D / (G sqrt T)) (1 - t / T), t = 1 .. T, G = 1."""
    x, eta = np.zeros_like(problem.best), np.linalg.norm(problem.best) / math.sqrt(steps)
    for step in range(1, steps):
        x = x - eta * (1 - step / steps) * problem.subgradient(x)
    return x


def schedule_free(problem, steps, beta):
    """x_T with z <- z - g(y) D / (G sqrt T), y = (1 - beta) z + beta x, x the mean of the z."""
    z, eta = np.zeros_like(problem.best), np.linalg.norm(problem.best) / math.sqrt(steps)
    x = z
    for step in range(1, steps):
        z = z - eta * problem.subgradient((1 - beta) * z + beta * x)
        x = x + (z - x) / (step + 1)
    return x


METHODS = {
    "linear decay": linear_decay,
    "averaging": lambda problem, steps: schedule_free(problem, steps, 0.0),
    "schedule-free": lambda problem, steps: schedule_free(problem, steps, 0.9),
    "primal averaging": lambda problem, steps: schedule_free(problem, steps, 1.0),
}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_last_iterate_is_within_d_g_over_sqrt_t(method):
    for steps in (30, 300, 3000):
        for kind in ("mean", "greatest"):
            problems = [Piecewise(kind, seed) for seed in range(3)]
            bounds = [np.linalg.norm(problem.best) / math.sqrt(steps) for problem in problems]
            gaps = [problem.loss(METHODS[method](problem, steps)) for problem in problems]
            assert np.mean(gaps) <= np.mean(bounds)
    hardest = Resisting(100)
    assert hardest.loss(METHODS[method](hardest, 100)) == pytest.approx(0.15)  # attained
