"""The statements of docs/topics/1.1.md on delay, checked by numbers."""

import math

import numpy as np
import pytest
from oarlock.core_opt.asynchronous import (
    Asynchronous,
    Cluster,
    Ringmaster,
    Until,
    bounds,
    delays,
    problems,
)

SPEEDS = {
    "equal": np.ones(40),
    "square root": np.arange(1, 41) ** 0.5,
    "linear": np.arange(1, 41.0),
    "straggler": np.r_[np.ones(39), 1000.0],
    "heavy tail": np.sort((1 - np.random.default_rng(0).random(40)) ** -1.25),
}
every_speed = pytest.mark.parametrize("speed", SPEEDS)


# The lower bound --------------------------------------------------------------------------------


@every_speed
@pytest.mark.parametrize("chance", [1.0, 0.2, 0.02])
def test_time_to_the_first_success_is_the_bound_of_one_round(speed, chance):
    """Each gradient reveals the next coordinate with chance p; nobody knows whose will.

    The expected time to the first success, workers all at it from the start, lies between a fifth
    of min_m (m + 1/p) / sum_{i <= m} 1/tau_i and the whole.
    """
    taus, rng = SPEEDS[speed], np.random.default_rng(1)
    times = (taus * rng.geometric(chance, [4000, len(taus)])).min(axis=1)
    counts = np.arange(1, len(taus) + 1)
    bound = ((counts + 1 / chance) / np.cumsum(1 / taus)).min()
    assert 0.2 * bound <= times.mean() <= bound


def test_the_bound_is_the_least_over_all_numbers_of_workers():
    taus = np.array([3.0, 1.0, 7.0])  # in any order
    smoothness, gap, variance, target = 2.0, 3.0, 0.5, 0.1
    scale, candidates = smoothness * gap / target, []
    for m, used in enumerate(([1.0], [1.0, 3.0], [1.0, 3.0, 7.0]), start=1):
        harmonic = 1 / np.mean(1 / np.array(used))
        candidates.append(harmonic * scale * (1 + variance / (m * target)))
    given = {"smoothness": smoothness, "gap": gap, "variance": variance, "target": target}
    assert bounds.lower_bound(taus, **given) == pytest.approx(min(candidates))
    best = bounds.fastest_workers(taus, variance=variance, target=target)
    assert best == 1 + int(np.argmin(candidates))
    more = np.r_[taus, 1e9]  # a worker of no use changes nothing
    assert bounds.lower_bound(more, **given) == pytest.approx(min(candidates))


# Staleness --------------------------------------------------------------------------------------


@pytest.mark.parametrize("speed", ["equal", "linear", "straggler"])
@pytest.mark.parametrize("threshold, part", [(1, 1.0), (8, 1.0), (8, 0.2), (40, 1.0)])
def test_mean_gradient_is_within_the_staleness_bound(speed, threshold, part):
    """mean |grad f(x_k)|^2 <= 2 Delta / (eta K) + 2 eta L sigma^2 for eta <= 1 / (2 R L)."""
    chain = problems.Chain(20, smoothness=3.0, noise=0.4)
    step, updates = part / (2 * threshold * 3.0), 1500
    means = []
    for seed in range(3):
        trace = Cluster(delays.Fixed(seconds=SPEEDS[speed]), seed=seed).run(
            Ringmaster(step, threshold=threshold),
            chain,
            np.zeros(20),
            until=Until(updates=updates),
            observe=chain.squared_norm,
        )
        means.append(np.mean(trace.values[:-1]))
    gap = chain.value(np.zeros(20)) - chain.minimum
    bound = 2 * gap / (step * updates) + 2 * step * 3.0 * 0.4**2
    assert np.mean(means) <= bound
    assert max(trace.delays) < threshold


@pytest.mark.parametrize("ratio", [0.3, 3.0, 20.0])
def test_ringmaster_needs_no_more_updates_than_its_theorem_says(ratio):
    """With R and eta of the theorem, K = 8 R L Delta / eps + 16 sigma^2 L Delta / eps^2 suffice."""
    target = 0.02
    chain = problems.Chain(20, noise=math.sqrt(ratio * target))
    variance = chain.noise**2
    gap = chain.value(np.zeros(20)) - chain.minimum
    threshold = bounds.threshold(variance=variance, target=target)
    assert threshold == max(1, math.ceil(ratio))
    given = {"smoothness": 1.0, "variance": variance, "target": target, "threshold": threshold}
    updates = bounds.iterations(gap=gap, **given)
    at_most = gap / target * (24 * max(ratio, 1) + 8 * (ratio > 1)) + 1
    assert updates <= at_most  # O(L Delta / eps + sigma^2 L Delta / eps^2)
    trace = Cluster(delays.Fixed(seconds=SPEEDS["linear"])).run(
        Ringmaster(bounds.step_size(**given), threshold=threshold),
        chain,
        np.zeros(20),
        until=Until(updates=updates),
        observe=chain.squared_norm,
    )
    assert np.mean(trace.values) <= target


@pytest.mark.parametrize("delay", [0, 1, 2, 5, 20, 99])
def test_largest_stable_step_under_a_constant_delay(delay):
    """x_{k+1} = x_k - eta L x_{k - d} is stable just below eta L = 2 sin(pi / (4 d + 2))."""
    limit = 2 * math.sin(math.pi / (4 * delay + 2))

    def radius(step):
        companion = np.eye(delay + 1, k=-1)
        companion[0, 0] += 1
        companion[0, delay] -= step
        return np.abs(np.linalg.eigvals(companion)).max()

    assert radius(0.999 * limit) < 1 < radius(1.001 * limit)
    assert limit >= 1 / (2 * (delay + 1))  # so that the theorem's step is stable
    assert limit <= math.pi / (2 * delay + 1)  # and cannot be made larger by more than 2 pi


@pytest.mark.parametrize("workers", [2, 5, 16])
def test_equal_workers_without_threshold_are_stable_up_to_that_step(workers):
    """Plain asynchronous SGD on n equal workers has the delay n - 1."""
    chain = problems.Chain(30)
    top = math.sin(math.pi * 30 / 62) ** 2  # largest eigenvalue, at L = 1
    limit = 2 * math.sin(math.pi / (4 * workers - 2)) / top
    ends = {}
    for factor in (0.95, 1.05):
        cluster = Cluster(delays.Fixed(seconds=(1.0,) * workers))
        trace = cluster.run(
            Asynchronous(factor * limit),
            chain,
            np.random.default_rng(0).standard_normal(30),
            until=Until(updates=400 * workers),
            observe=chain.squared_norm,
            every=workers,
        )
        assert set(trace.delays) == set(range(workers))
        assert trace.delays[workers - 1] >= trace.updates - workers
        ends[factor] = trace.values[-1] / trace.values[len(trace.values) // 2]
    assert ends[0.95] < 1 < ends[1.05]


def test_guaranteed_step_of_plain_asynchronous_sgd_falls_with_the_slowest_worker():
    """Its R is the largest delay, so its time grows with the slowest worker, Ringmaster's does not."""
    chain = problems.Chain(20, noise=0.1)
    target, times = 0.3 * chain.squared_norm(np.zeros(20)), {}
    for slowest in (10.0, 100.0):
        cluster = Cluster(delays.Fixed(seconds=(1.0,) * 5 + (slowest,)))
        largest = 5 * slowest  # updates while the slowest computes
        for strategy in (
            Asynchronous(1 / (2 * (largest + 1))),
            Ringmaster(1 / (2 * 6), threshold=6),
        ):
            trace = cluster.run(
                strategy,
                chain,
                np.zeros(20),
                until=Until(updates=200_000, value=target),
                observe=chain.squared_norm,
            )
            assert max(trace.delays) <= largest
            times[type(strategy).__name__, slowest] = trace.reached
    assert times["Asynchronous", 100.0] > 5 * times["Asynchronous", 10.0]
    assert times["Ringmaster", 100.0] < 1.2 * times["Ringmaster", 10.0]


@pytest.mark.parametrize("workers, steps", [(1, 7), (4, 1), (4, 12)])
def test_local_sgd_on_a_quadratic_is_synchronous_sgd(workers, steps):
    """The mean of replicas follows the mean gradient, since gradients are linear in the weights."""
    chain, rng = problems.Chain(10), np.random.default_rng(0)
    together, mean = np.ones(10), np.ones(10)
    for _ in range(5):
        noise = rng.standard_normal([steps, workers, 10])
        replicas = np.tile(mean, [workers, 1])
        for step in range(steps):
            for k in range(workers):
                replicas[k] -= 0.3 * (chain.true_gradient(replicas[k]) + noise[step, k])
            together = together - 0.3 * (chain.true_gradient(together) + noise[step].mean(0))
        mean = replicas.mean(0)
        np.testing.assert_allclose(mean, together, atol=1e-12)


# Time -------------------------------------------------------------------------------------------


@every_speed
@pytest.mark.parametrize("threshold", [1, 7, 40, 200])
@pytest.mark.parametrize("stops", [True, False])
def test_updates_come_as_fast_as_the_lemma_says(speed, threshold, stops):
    """R updates in a row take at most 2 min_m (R + m) / sum_{i <= m} 1/tau_i."""
    taus = SPEEDS[speed]
    trace = Cluster(delays.Fixed(seconds=taus)).run(
        Ringmaster(1e-3, threshold=threshold, stops=stops),
        problems.Chain(2),
        np.zeros(2),
        until=Until(updates=6 * threshold + 200),
        observe=lambda x: 0.0,
    )
    times = np.array(trace.times)
    longest = (times[threshold:] - times[:-threshold]).max()
    assert longest <= bounds.seconds_for_updates(taus, threshold) * (1 + 1e-12)


def test_guaranteed_time_is_within_a_constant_of_the_lower_bound():
    """t(R) ceil(K / R) <= 100 T(eps), whatever the speeds and the noise, where L Delta >= eps."""
    rng, worst = np.random.default_rng(0), 0.0
    for _ in range(500):
        taus = np.exp(rng.uniform(0, 8) * rng.random(int(rng.integers(1, 300))))
        variance, target = 10 ** rng.uniform(-3, 3), 10 ** rng.uniform(-3, 0)
        gap = target * 10 ** rng.uniform(0, 3)
        threshold = bounds.threshold(variance=variance, target=target)
        given = {"smoothness": 1.0, "gap": gap, "variance": variance, "target": target}
        updates = bounds.iterations(threshold=threshold, **given)
        seconds = bounds.seconds_for_updates(taus, threshold) * math.ceil(updates / threshold)
        ratio = seconds / bounds.lower_bound(taus, **given)
        assert 1 <= ratio <= 100
        worst = max(worst, ratio)
    assert 40 < worst < 50  # the constant of the proof is not far off


@pytest.mark.parametrize(
    "call, word",
    [
        (lambda: bounds.threshold(variance=-1.0, target=1.0), "variance"),
        (lambda: bounds.threshold(variance=1.0, target=0.0), "target"),
        (lambda: bounds.seconds_for_updates([1.0], 0), "threshold"),
        (lambda: bounds.seconds_for_updates([], 1), "seconds"),
        (lambda: bounds.seconds_for_updates([1.0, 0.0], 1), "seconds"),
    ],
)
def test_wrong_arguments_are_named(call, word):
    with pytest.raises(ValueError, match=word):
        call()
