"""Preconditioning in docs/topics/1.1.md, checked by numbers."""

import math

import numpy as np
import pytest
from oarlock.core_opt import optim
from oarlock.core_opt.optim.reference import adamw, muon, shampoo, soap
from scipy.linalg import hadamard


def orthogonal_factor(matrix):
    u, _, vt = np.linalg.svd(matrix, full_matrices=False)
    return u @ vt


def power(symmetric, exponent, floor=1e-30):
    value, vector = np.linalg.eigh(symmetric)
    return vector * np.maximum(value, floor) ** exponent @ vector.T


def spd(rng, size, condition):
    q = np.linalg.qr(rng.standard_normal([size, size]))[0]
    return q * np.geomspace(1, 1 / condition, size) @ q.T


def contraction(condition):
    return (condition - 1) / (condition + 1)


# From Adagrad to Muon ----------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_kronecker_factors_bound_adagrads_matrix(rank):
    """eps I + sum g g' / r <= (eps I + sum G G')^(1/2) x (eps I + sum G'G)^(1/2), G of rank <= r."""
    rng, eps = np.random.default_rng(0), 1e-3
    left, right, full = eps * np.eye(5), eps * np.eye(6), eps * np.eye(30)
    for _ in range(7):
        grad = rng.standard_normal([5, rank]) @ rng.standard_normal([rank, 6])
        left += grad @ grad.T
        right += grad.T @ grad
        full += np.outer(grad, grad) / rank
    gap = np.linalg.eigvalsh(np.kron(power(left, 0.5), power(right, 0.5)) - full)
    assert gap.min() >= -1e-9
    assert np.linalg.eigvalsh(np.kron(power(left, 0.5), power(right, 0.5)) - 8 * full).min() < 0


def shampoo_run(gradient, weight, eta, steps, eps=1e-3):
    """Weights before each step, and tr(L^1/4) tr(R^1/4) at the end; ``gradient(weight, step)``."""
    left, right, weights = eps * np.eye(len(weight)), eps * np.eye(weight.shape[1]), []
    for step in range(steps):
        weights.append(weight)
        grad = gradient(weight, step)
        left, right = left + grad @ grad.T, right + grad.T @ grad
        weight = weight - eta * power(left, -0.25) @ grad @ power(right, -0.25)
    return np.array(weights), np.trace(power(left, 0.25)) * np.trace(power(right, 0.25))


def regret_bound(weights, best, eta, traces, rank=1):
    return (((weights - best) ** 2).sum(axis=(1, 2)).max() / (2 * eta) + eta * rank) * traces


@pytest.mark.parametrize("eta", [0.1, 1.0, 10.0])
def test_regret_of_shampoo_is_within_its_bound(eta):
    """sum f_t(W_t) - f_t(W*) <= (D^2 / (2 eta) + eta r) tr(L_T^1/4) tr(R_T^1/4)."""
    rng, best = np.random.default_rng(0), np.random.default_rng(1).standard_normal([6, 4])
    x = rng.standard_normal([300, 6]) * np.geomspace(1, 0.05, 6)
    y = x @ best + 0.1 * rng.standard_normal([300, 4])

    def gradient(weight, step):  # of |x W - y|_2, which has rank one
        error = x[step] @ weight - y[step]
        return np.outer(x[step], error / np.linalg.norm(error))

    weights, traces = shampoo_run(gradient, np.zeros([6, 4]), eta, 300)
    errors = np.einsum("ti,tij->tj", x, weights) - y
    regret = (np.linalg.norm(errors, axis=1) - np.linalg.norm(x @ best - y, axis=1)).sum()
    assert regret <= regret_bound(weights, best, eta, traces)


@pytest.mark.parametrize("steps", [100, 400, 1600])
def test_regret_of_shampoo_grows_as_its_bound_against_random_signs(steps):
    """Losses of random sign on single entries: within a factor of 20 for every horizon."""
    shares, eta = [], 0.3
    for seed in range(3):
        rng = np.random.default_rng(seed)
        grads = np.zeros([steps, 2, 2])
        places = (np.arange(steps), rng.integers(2, size=steps), rng.integers(2, size=steps))
        grads[places] = rng.choice([-1.0, 1.0], steps)
        weights, traces = shampoo_run(lambda _, t, g=grads: g[t], np.zeros([2, 2]), eta, steps)
        total = grads.sum(axis=0)
        best = -total / np.linalg.norm(total)
        regret = (grads * (weights - best)).sum()
        shares.append(regret / regret_bound(weights, best, eta, traces))
    assert 1 / 20 <= np.mean(shares) and max(shares) <= 1


@pytest.mark.parametrize("shape", [(6, 6), (4, 7), (7, 4)])
def test_shampoo_without_memory_is_muon(shape):
    grad = np.random.default_rng(0).standard_normal(shape)
    small = min(shape)

    def inverse_root(square, exponent):  # of the part that is not zero
        value, vector = np.linalg.eigh(square)
        value, vector = value[-small:], vector[:, -small:]
        return vector * value**exponent @ vector.T

    both = inverse_root(grad @ grad.T, -0.25) @ grad @ inverse_root(grad.T @ grad, -0.25)
    one = inverse_root(grad @ grad.T, -0.5) @ grad
    np.testing.assert_allclose(both, orthogonal_factor(grad), atol=1e-9)
    np.testing.assert_allclose(one, orthogonal_factor(grad), atol=1e-9)
    options = {**optim.info("shampoo").defaults, "beta1": 0.0, "beta2": 0.0, "grafting": None}
    for sides in ("both", "smaller"):  # the library's, with the pseudo-inverse
        exact = {**options, "pseudo_inverse": True, "sides": sides}
        direction = shampoo.direction(grad, {}, 1, exact)
        np.testing.assert_allclose(direction, orthogonal_factor(grad), atol=1e-9)


# SOAP --------------------------------------------------------------------------------------------


def kronecker_ensemble(rng, m, n):
    """Gradients whose mean g g' is exactly A x B (row by row), with A and B."""
    a, b = spd(rng, m, 30.0), spd(rng, n, 100.0)
    basis = np.linalg.qr(rng.standard_normal([m * n, m * n]))[0].reshape(-1, m, n)
    return power(a, 0.5) @ (basis * math.sqrt(m * n)) @ power(b, 0.5), a, b


def factors(grads):
    return (
        np.einsum("kij,klj->il", grads, grads) / len(grads),
        np.einsum("kij,kil->jl", grads, grads) / len(grads),
    )


def test_adafactor_in_the_eigenbasis_is_shampoo_with_power_one_half():
    """Any ensemble: L^-1/2 G R^-1/2 tr(L)^1/2 = Q_L (G' / sqrt(row x column / sum)) Q_R'."""
    rng = np.random.default_rng(0)
    grads = rng.standard_normal([40, 5, 7]) * rng.uniform(0.1, 2, [5, 7])
    left, right = factors(grads)
    (_, ql), (_, qr) = np.linalg.eigh(left), np.linalg.eigh(right)
    second = ((ql.T @ grads @ qr) ** 2).mean(axis=0)
    rows, columns = second.sum(axis=1), second.sum(axis=0)
    rotated = ql.T @ grads[0] @ qr
    by_adafactor = ql @ (rotated / np.sqrt(np.outer(rows, columns) / rows.sum())) @ qr.T
    by_shampoo = power(left, -0.5) @ grads[0] @ power(right, -0.5) * math.sqrt(np.trace(left))
    np.testing.assert_allclose(by_adafactor, by_shampoo, rtol=1e-9)
    by_adam = ql @ (rotated / np.sqrt(second)) @ qr.T  # SOAP: the same only if second factorises
    assert np.linalg.norm(by_adam - by_shampoo) > 0.01 * np.linalg.norm(by_shampoo)


def test_with_kronecker_covariance_soap_shampoo_and_full_adagrad_agree():
    rng = np.random.default_rng(0)
    grads, a, b = kronecker_ensemble(rng, 4, 6)
    covariance = np.einsum("kx,ky->xy", *[grads.reshape(len(grads), -1)] * 2) / len(grads)
    np.testing.assert_allclose(covariance, np.kron(a, b), atol=1e-12)
    left, right = factors(grads)
    grad = rng.standard_normal([4, 6])
    full = (power(covariance, -0.5) @ grad.reshape(-1)).reshape(4, 6)
    by_shampoo = power(left, -0.5) @ grad @ power(right, -0.5) * math.sqrt(np.trace(left))
    (_, ql), (_, qr) = np.linalg.eigh(left), np.linalg.eigh(right)
    second = ((ql.T @ grads @ qr) ** 2).mean(axis=0)
    by_soap = ql @ ((ql.T @ grad @ qr) / np.sqrt(second)) @ qr.T
    np.testing.assert_allclose(by_shampoo, full, rtol=1e-6)
    np.testing.assert_allclose(by_soap, full, rtol=1e-6)
    by_adam = grad / np.sqrt((grads**2).mean(axis=0))
    assert np.linalg.norm(by_adam - full) > 0.3 * np.linalg.norm(full)


def test_soaps_second_moment_is_never_further_from_the_truth():
    """Of all matrices with eigenvectors Q_L x Q_R, the one with SOAP's diagonal is the nearest."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        grads = rng.standard_normal([15, 4, 5]) * rng.uniform(0.1, 2, [4, 5])
        covariance = np.einsum("kx,ky->xy", *[grads.reshape(15, -1)] * 2) / 15
        left, right = factors(grads)
        (_, ql), (_, qr) = np.linalg.eigh(left), np.linalg.eigh(right)
        basis = np.kron(ql, qr)
        second = ((ql.T @ grads @ qr) ** 2).mean(axis=0).reshape(-1)
        by_soap = np.linalg.norm(basis * second @ basis.T - covariance)
        product = np.kron(left, right)
        scale = (product * covariance).sum() / (product**2).sum()  # the best for Shampoo
        assert by_soap < np.linalg.norm(scale * product - covariance)


# Condition numbers -------------------------------------------------------------------------------


def rotated_quadratic(size, condition_a, condition_b):
    """A, B with Hadamard eigenvectors: the diagonal of the Hessian A x B is constant."""
    q = hadamard(size) / math.sqrt(size)
    a = q * np.geomspace(1, 1 / condition_a, size) @ q.T
    return a, q * np.geomspace(1, 1 / condition_b, size) @ q.T


def test_condition_number_under_each_preconditioner():
    """C = H: kappa for Adam's diagonal, kappa^3/4 for Shampoo's quarter, kappa^1/2 for a half."""
    a, b = rotated_quadratic(4, 30.0, 10.0)
    hessian, kappa = np.kron(a, b), 300.0
    left, right = np.trace(b) * a, np.trace(a) * b  # E G G' and E G'G for covariance A x B
    preconditioners = {
        1.0: np.diag(np.diag(hessian) ** -0.5),
        0.75: np.kron(power(left, -0.25), power(right, -0.25)),
        0.5: np.kron(power(left, -0.5), power(right, -0.5)),
    }
    for exponent, matrix in preconditioners.items():
        root = power(matrix, 0.5)
        value, vector = np.linalg.eigh(root @ hessian @ root)
        assert value[-1] / value[0] == pytest.approx(kappa**exponent)
        eta, rate = 2 / (value[0] + value[-1]), contraction(kappa**exponent)
        starts = {"worst": root @ (vector[:, 0] + vector[:, -1])}
        starts["random"] = np.random.default_rng(0).standard_normal(16)
        for name, x in starts.items():
            start = np.linalg.norm(np.linalg.solve(root, x))
            for _ in range(40):
                x = x - eta * matrix @ (hessian @ x)
            left_over = np.linalg.norm(np.linalg.solve(root, x)) / start
            assert left_over <= rate**40 * (1 + 1e-6)
            if name == "worst":
                assert left_over == pytest.approx(rate**40)
    aligned = np.linalg.eigvalsh(hessian)  # in the eigenbasis Adam's diagonal is C itself
    assert (aligned**0.5).max() / (aligned**0.5).min() == pytest.approx(kappa**0.5)


REFERENCES = {"adamw": adamw, "muon": muon, "shampoo": shampoo, "soap": soap}
METHODS = {
    "adamw": {},
    "muon": {},  # with Newton-Schulz as it is
    "shampoo": {"grafting": None, "precondition_frequency": 1},
    "grafted shampoo": {},  # with the size of Adam's step
    "soap": {},
}


def losses(method, basis, eta, steps, size=16, batch=64):
    """f(W) = tr(W'A W B) / 2 along a run over batches of inputs of covariance A, linear decay.

    ``basis`` turns the whole problem: W to Q W Q', the inputs to Q x. The step is that of the
    library's reference with its defaults, but for ``METHODS`` and without weight decay.
    """
    name = method.split()[-1]
    options = {**optim.info(name).defaults, "weight_decay": 0.0, **METHODS[method]}
    rng, state, out = np.random.default_rng(0), {}, []
    q = hadamard(size) / math.sqrt(size) if basis == "rotated" else np.eye(size)
    root = np.geomspace(1, 1e-3, size) ** 0.5
    a, b = q * root**2 @ q.T, q * np.geomspace(1, 1 / 30, size) @ q.T
    weight = q @ rng.standard_normal([size, size]) @ q.T
    for step in range(steps):
        x = rng.standard_normal([batch, size]) * root @ q.T
        out.append((weight * (a @ weight @ b)).sum() / 2)
        grad = x.T @ (x @ weight @ b) / batch
        rate = {"step": step + 1, "lr": eta * (1 - step / steps), "role": "hidden_matrix"}
        weight = REFERENCES[name].step(weight, grad, state, **rate, options=options)
    return np.array([*out, (weight * (a @ weight @ b)).sum() / 2])


@pytest.mark.parametrize(
    "method,within",
    [("muon", 1e-6), ("shampoo", 1e-6), ("soap", 5e-3), ("adamw", None), ("grafted shampoo", None)],
)
def test_which_steps_turn_with_the_problem(method, within):
    """Muon's, Shampoo's and SOAP's, whose basis is refreshed inexactly; not Adam's nor its size."""
    given, rotated = (losses(method, basis, 0.1, 20) for basis in ("given", "rotated"))
    difference = np.abs(given / rotated - 1).max()
    assert difference <= within if within else difference > 0.1


def test_rotation_collapses_adams_rate_and_no_others():
    final = {}
    for method in ("muon", "shampoo", "soap", "adamw"):
        for basis in ("given", "rotated"):
            runs = [losses(method, basis, eta, 200) for eta in 2.0 ** np.arange(-4, 2)]
            final[method, basis] = min(run[-1] / run[0] for run in runs)
    assert final["adamw", "given"] == pytest.approx(1.0e-9, rel=0.1)
    assert final["adamw", "rotated"] == pytest.approx(1.3e-3, rel=0.1)
    for method in ("muon", "shampoo", "soap"):
        assert final["adamw", "given"] < final[method, "given"] / 1000
        assert final[method, "rotated"] < final["adamw", "rotated"] / 20
        assert 1 / 3 < final[method, "rotated"] / final[method, "given"] < 3


@pytest.mark.parametrize("kappa", [10.0, 1e3, 1e5])
def test_muons_steps_do_not_depend_on_the_condition_number(kappa):
    """W0 = V S U' with V the eigenvectors of A: |W|_2 <= eta after s_1 / eta steps, for any A."""
    rng, eta, size = np.random.default_rng(0), 0.01, 8
    value = np.geomspace(1, 1 / kappa, size)
    v = np.linalg.qr(rng.standard_normal([size, size]))[0]
    u = np.linalg.qr(rng.standard_normal([size, size]))[0]
    a, singular = v * value @ v.T, rng.uniform(0.2, 0.999, size)
    weight = v * singular @ u.T
    for _ in range(math.ceil(singular.max() / eta)):
        weight = weight - eta * orthogonal_factor(a @ weight)
    assert np.linalg.norm(weight, 2) <= eta * (1 + 1e-6)
    steps = math.log(singular[-1] / eta) / math.log((kappa + 1) / (kappa - 1))  # gradient descent
    assert (steps > singular.max() / eta) == (kappa > 100)


# Noise -------------------------------------------------------------------------------------------


def response(theta):
    """(2 / pi) (atan t + (1 - atan(t) / t) / t): the share u'O v of a direction of strength t."""
    return 2 / np.pi * (np.arctan(theta) + (1 - np.arctan(theta) / theta) / theta)


STRENGTHS = np.array([0.25, 0.5, 1.0, 2.0, 4.0])


def test_orthogonalisation_weighs_directions_by_signal_to_noise():
    """G + noise: u_i' O v_i -> response(s_i / (sigma sqrt n)); linear below, 1 above."""
    n, found = 160, []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        u = np.linalg.qr(rng.standard_normal([n, 5]))[0]
        v = np.linalg.qr(rng.standard_normal([n, 5]))[0]
        noisy = u * STRENGTHS @ v.T + rng.standard_normal([n, n]) / math.sqrt(n)
        found.append(np.diag(u.T @ orthogonal_factor(noisy) @ v))
    np.testing.assert_allclose(np.mean(found, axis=0), response(STRENGTHS), atol=0.045)
    assert response(1e-3) == pytest.approx(8 / (3 * math.pi) * 1e-3, rel=1e-4)
    assert 1 - response(30.0) == pytest.approx(30.0**-2, rel=0.1)


def test_weak_signal_per_spectral_norm():
    """Muon 0.849, sign 0.399, gradient 0.5 times theta; at equal Frobenius norm 0.85, 0.80, 1."""
    n, theta = 256, 0.3
    per_spectral, per_frobenius = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        u = np.linalg.qr(rng.standard_normal([n, 24]))[0]
        v = np.linalg.qr(rng.standard_normal([n, 24]))[0]
        noisy = theta * u @ v.T + rng.standard_normal([n, n]) / math.sqrt(n)
        steps = [orthogonal_factor(noisy), np.sign(noisy), noisy]
        shares = np.array([np.diag(u.T @ step @ v).mean() for step in steps]) / theta
        per_spectral.append(shares / [np.linalg.norm(step, 2) for step in steps])
        per_frobenius.append(shares / [np.linalg.norm(step) / math.sqrt(n) for step in steps])
    weak = math.sqrt(2 / math.pi)
    expected = np.array([8 / (3 * math.pi), weak / 2, 0.5])
    np.testing.assert_allclose(np.mean(per_spectral, axis=0), expected, rtol=0.08)
    expected = np.array([8 / (3 * math.pi), weak, 1.0])
    np.testing.assert_allclose(np.mean(per_frobenius, axis=0), expected, rtol=0.08)


def test_momentum_must_come_before_orthogonalisation():
    """An average over steps divides the noise by sqrt((1 + beta) / (1 - beta)): 0.64 -> 0.95."""
    n, beta, theta = 48, 0.9, 1.0
    rng = np.random.default_rng(0)
    u = np.linalg.qr(rng.standard_normal([n, 2]))[0]
    v = np.linalg.qr(rng.standard_normal([n, 2]))[0]
    average = after = 0.0
    before = []
    for step in range(150):
        noisy = theta * u @ v.T + rng.standard_normal([n, n]) / math.sqrt(n)
        average = beta * average + (1 - beta) * noisy
        after = beta * after + (1 - beta) * orthogonal_factor(noisy)
        if step >= 50:
            before.append(np.diag(u.T @ orthogonal_factor(average) @ v).mean())
    gain = math.sqrt((1 + beta) / (1 - beta))
    assert np.mean(before) == pytest.approx(response(theta * gain), abs=0.02)
    assert np.diag(u.T @ after @ v).mean() == pytest.approx(response(theta), abs=0.06)
