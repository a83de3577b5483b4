"""Intervals cover what they promise on known distributions, and tests keep their level."""

import numpy as np
import pytest

from oarlock.accept.measure import stats


def coverage(make, true: float, *, trials: int = 300, **options) -> float:
    """How often the interval of `bootstrap_ratio` holds the true ratio."""
    hits = 0
    for trial in range(trials):
        base, ours = make(np.random.default_rng([7, trial]))
        low, high = stats.bootstrap_ratio(base, ours, seed=trial, **options).ci
        hits += low <= true <= high
    return hits / trials


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 1000)


@pytest.mark.parametrize(("n", "least"), [(3, 0.85), (5, 0.92), (30, 0.92)])
def test_unpaired_means_are_covered(n, least):
    def make(rng):
        return rng.normal(3.0, 0.3, n), rng.normal(2.0, 0.2, n)

    share = coverage(make, 1.5, paired=False, statistic="mean")
    assert least <= share <= 0.995


@pytest.mark.parametrize("n", [7, 25])
def test_medians_of_pairs_are_covered_despite_common_disturbances(n):
    def make(rng):
        machine = rng.lognormal(0, 1, n)  # each pair shares it
        noise = rng.lognormal(0, 0.1, n)
        return 1.5 * machine * noise, machine

    share = coverage(make, 1.5, paired=True, statistic="median")
    assert 0.90 <= share


def test_pairing_removes_what_both_share():
    rng = np.random.default_rng(0)
    machine = rng.lognormal(0, 1, 20)
    base, ours = 1.5 * machine * rng.lognormal(0, 0.02, 20), machine
    paired = stats.bootstrap_ratio(base, ours, paired=True)
    loose = stats.bootstrap_ratio(base, ours, paired=False)
    assert paired.value == pytest.approx(1.5, rel=0.02)
    assert paired.high - paired.low < 0.1 < loose.high - loose.low


def test_the_ratio_is_reproducible_and_above_one_when_ours_is_faster():
    first = stats.bootstrap_ratio([2, 2.1, 2.2], [1, 1.1, 1.0], paired=True, seed=3)
    assert first == stats.bootstrap_ratio([2, 2.1, 2.2], [1, 1.1, 1.0], paired=True, seed=3)
    assert first.low > 1
    assert first.low <= first.value <= first.high
    assert first.n == 3
    one = stats.bootstrap_ratio([2.0], [1.0], paired=True)
    assert (one.value, one.low, one.high, one.n) == (2.0, 2.0, 2.0, 1)


@pytest.mark.parametrize(
    ("base", "ours", "message"),
    [
        ([], [], "base must hold at least 1"),
        ([1, 2], [1], "as many base as ours, got 2 and 1"),
        ([1, 0], [1, 1], "above 0"),
        ([1, float("nan")], [1, 1], "base must be finite"),
        ([[1, 2]], [1, 2], "base must hold"),
    ],
)
def test_wrong_samples_are_refused(base, ours, message):
    with pytest.raises(ValueError, match=message):
        stats.bootstrap_ratio(base, ours, paired=True)


@pytest.mark.parametrize("paired", [True, False])
def test_the_one_sided_test_keeps_its_level(paired):
    rng = np.random.default_rng(1)
    null = [
        stats.one_sided_p(rng.normal(0, 1, 6), rng.normal(0, 3, 6), paired=paired) < 0.05
        for _ in range(1000)
    ]
    assert 0.03 < np.mean(null) < 0.07


def test_the_one_sided_test_has_a_side():
    low, high = [1.0, 1.1, 0.9, 1.05], [2.0, 2.1, 1.9, 2.05]
    assert stats.one_sided_p(high, low) < 0.001
    assert stats.one_sided_p(low, high) > 0.999
    assert stats.one_sided_p([1, 2, 3], [0.9, 1.9, 2.8], paired=True) < 0.05
    assert stats.one_sided_p([1, 2, 3], [0.9, 1.9, 2.8]) > 0.4


def test_values_without_spread():
    assert stats.one_sided_p([2, 2], [1, 1]) == 0.0
    assert stats.one_sided_p([1, 1], [2, 2], paired=True) == 1.0
    assert stats.one_sided_p([1, 1], [1, 1]) == 0.5
    with pytest.raises(ValueError, match="a must hold at least 2"):
        stats.one_sided_p([1], [1, 2])


def test_the_interval_of_a_mean():
    mean, low, high = stats.mean_ci([1.0, 2.0, 3.0])  # t(2) = 4.3027, standard error 0.57735
    assert (mean, low, high) == pytest.approx((2.0, 2.0 - 2.4841, 2.0 + 2.4841), abs=1e-3)
    narrow = stats.mean_ci([1.0, 2.0, 3.0], level=0.5)
    assert narrow[2] < high
