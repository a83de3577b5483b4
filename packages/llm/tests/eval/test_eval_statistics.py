"""Statistics against formulae written otherwise, published examples, and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from oarlock.llm.eval import statistics
from oarlock.llm.eval.statistics import compare, fit_2pl, holm, mean


def test_standard_error_is_that_of_the_sample():
    values = np.random.default_rng(0).normal(3, 2, 57)
    found = mean(values)
    assert found.value == pytest.approx(values.mean())
    assert found.standard_error == pytest.approx(stats.sem(values))
    low, high = stats.t.interval(0.95, 56, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_clustered_error_is_the_double_sum_of_its_source():
    rng = np.random.default_rng(1)
    clusters = rng.integers(0, 9, 60)
    s = rng.normal(0, 1, 9)[clusters] + rng.normal(0, 0.5, 60)
    # Miller (2411.00640), equation 4: the plain error, and all pairs of one cluster
    centred, n = s - s.mean(), len(s)
    pairs = sum(
        centred[i] * centred[j]
        for i in range(n)
        for j in range(n)
        if i == j or clusters[i] == clusters[j]
    )
    C = len(set(clusters))
    found = mean(s, clusters=clusters.tolist())
    assert found.standard_error == pytest.approx(math.sqrt(pairs * C / (C - 1)) / n)
    assert found.clusters == C
    assert found.standard_error > 1.5 * mean(s).standard_error


def test_weighted_mean_is_a_ratio_of_sums():
    rng = np.random.default_rng(2)
    w = rng.uniform(1, 9, 40)
    v = rng.normal(2, 1, 40)
    found = mean(v, weights=w)
    assert found.value == pytest.approx((w * v).sum() / w.sum())
    # leave one out: the jackknife estimates the same error otherwise
    left = [np.delete(w * v, i).sum() / np.delete(w, i).sum() for i in range(40)]
    jackknife = math.sqrt(39 / 40 * ((left - np.mean(left)) ** 2).sum())
    assert found.standard_error == pytest.approx(jackknife, rel=0.05)


def test_wilson_interval_is_that_of_scipy_and_does_not_vanish():
    values = [1.0] * 7 + [0.0] * 13
    found = mean(values)
    # the sample's error has n - 1: as many items as would give it
    size = 0.35 * 0.65 / found.standard_error**2
    assert size == pytest.approx(19)
    expected = stats.binomtest(7, 20).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)
    none = mean([0.0] * 30)
    assert none.standard_error == 0 and none.low == 0 and 0.08 < none.high < 0.15


def test_one_cluster_says_nothing_of_its_error():
    found = mean([0.0, 1.0, 1.0], clusters=["a"] * 3)
    assert math.isnan(found.standard_error) and math.isnan(found.low)


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("binary", [False, True])
def test_intervals_cover_as_often_as_they_say(clustered, binary):
    rng, covered, runs = np.random.default_rng(3), 0, 400
    for _ in range(runs):
        clusters = np.repeat(np.arange(40), 5) if clustered else np.arange(200)
        shared = rng.normal(0, 1, 200)[clusters]
        if binary:
            values, truth = (0.8 * shared + rng.normal(0, 0.6, 200) > 0).astype(float), 0.5
        else:
            values, truth = shared + rng.normal(0, 1, 200), 0.0
        found = mean(values, clusters=clusters.tolist() if clustered else None)
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / runs <= 0.98
    if clustered:  # and would not, if the clusters were not known
        plain = mean(values)
        assert plain.standard_error < 0.8 * found.standard_error


def test_paired_difference_is_scipys_and_mcnemars():
    rng = np.random.default_rng(4)
    ability = rng.normal(0, 1, 300)
    a = (ability + rng.normal(0.4, 0.5, 300) > 0).astype(float)
    b = (ability + rng.normal(0, 0.5, 300) > 0).astype(float)
    found = compare(a, b)
    assert found.p_value == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert found.difference == pytest.approx((a - b).mean())
    up, down = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    assert (found.better, found.worse) == (up, down)
    assert found.sign_p_value == pytest.approx(
        min(1, 2 * stats.binom.cdf(min(up, down), up + down, 0.5))
    )
    assert found.correlation == pytest.approx(np.corrcoef(a, b)[0, 1])
    unpaired = math.hypot(mean(a).standard_error, mean(b).standard_error)
    assert found.standard_error < 0.8 * unpaired


def test_false_alarms_are_as_rare_as_they_should_be_and_clusters_count():
    rng, runs, alarms, naive = np.random.default_rng(5), 300, 0, 0
    clusters = np.repeat(np.arange(20), 8)
    for _ in range(runs):
        shift = rng.normal(0, 1, 20)[clusters]
        a, b = shift + rng.normal(0, 1, 160), rng.normal(0, 1, 160)
        alarms += compare(a, b, clusters=clusters.tolist()).p_value < 0.05
        naive += compare(a, b).p_value < 0.05
    assert 0.02 <= alarms / runs <= 0.09 < naive / runs


def test_equal_models_are_equal():
    same = compare([1, 0, 1], [1, 0, 1])
    assert same.p_value == same.sign_p_value == 1 and same.difference == 0
    with pytest.raises(ValueError, match="second must have as many"):
        compare([1, 0], [1])


def test_holms_correction():
    # worked by hand: 4 * 0.01, max with 3 * 0.02, 2 * 0.03, 0.04
    assert holm([0.03, 0.01, 0.02, 0.04]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_power_analysis_gives_the_papers_number_and_holds_in_simulation():
    # Miller, section 5: ω² = 1/9, 3 points, no noise of answers -> 969 questions; two more for Student's test
    assert statistics.items_needed(0.03, variance=1 / 9) == 971
    needed = statistics.items_needed(0.1, variance=0.4)
    assert statistics.detectable_difference(needed, variance=0.4) == pytest.approx(0.1, rel=0.01)
    rng = np.random.default_rng(6)
    found = sum(
        compare(rng.normal(0.1, math.sqrt(0.4), needed), np.zeros(needed)).p_value < 0.05
        for _ in range(500)
    )
    assert 0.75 <= found / 500 <= 0.85


@pytest.mark.parametrize("difference", [0.4, 0.7, 1.0])
def test_few_items_have_the_power_that_was_foretold(difference):
    n = statistics.items_needed(difference, variance=1.0)
    # of Student's test, exactly
    t = stats.t.ppf(0.975, n - 1)
    power = stats.nct.sf(t, n - 1, difference * math.sqrt(n))
    assert 0.79 <= power <= 0.83
    assert stats.nct.sf(stats.t.ppf(0.975, n - 3), n - 3, difference * math.sqrt(n - 2)) < 0.8


def test_variance_of_difference_is_that_of_right_and_wrong():
    rng = np.random.default_rng(7)
    ability = rng.normal(0, 1, 200_000)
    a, b = (ability + rng.normal(0.5, 1, 200_000) > 0), (ability + rng.normal(0, 1, 200_000) > 0)
    expected = statistics.variance_of_difference(a.mean(), b.mean(), float(np.corrcoef(a, b)[0, 1]))
    assert np.var(a.astype(float) - b) == pytest.approx(expected, rel=1e-6)


@pytest.fixture(scope="module")
def simulated():
    rng = np.random.default_rng(8)
    a, b, theta = np.exp(rng.normal(0, 0.3, 25)), rng.normal(0, 1, 25), rng.normal(0, 1, 400)
    p = 1 / (1 + np.exp(-a * (theta[:, None] - b)))
    return a, b, theta, (rng.random(p.shape) < p).astype(float)


def test_irt_finds_the_items_that_made_the_answers(simulated):
    a, b, theta, answers = simulated
    found = fit_2pl(answers)
    assert np.corrcoef(found.difficulty, b)[0, 1] > 0.97
    assert np.corrcoef(found.discrimination, a)[0, 1] > 0.7
    assert np.corrcoef(found.ability, theta)[0, 1] > 0.85
    # errors are neither boasts nor excuses
    z = (found.difficulty - b) / found.difficulty_error
    assert 0.7 < math.sqrt((z**2).mean()) < 1.3
    z = (found.ability - theta) / found.ability_error
    assert 0.9 < math.sqrt((z**2).mean()) < 1.15


def test_irt_likelihood_is_at_its_maximum(simulated):
    answers = simulated[3]
    found = fit_2pl(answers)
    nodes, weights = np.polynomial.hermite_e.hermegauss(61)

    def objective(a, b):
        z = a[:, None] * (nodes - b[:, None])
        right, wrong = -np.logaddexp(0, -z), -np.logaddexp(0, z)
        joint = answers @ right + (1 - answers) @ wrong
        marginal = np.log(np.exp(joint) @ (weights / weights.sum())).sum()
        return marginal - (np.log(a) ** 2).sum() / 0.5 - ((a * b) ** 2).sum() / 18, marginal

    best, marginal = objective(found.discrimination, found.difficulty)
    assert marginal == pytest.approx(found.log_likelihood, abs=1e-4)
    for j in (0, 11):
        for change in (0.02, -0.02):
            moved = found.difficulty.copy()
            moved[j] += change
            assert objective(found.discrimination, moved)[0] < best
            moved = found.discrimination.copy()
            moved[j] += change
            assert objective(moved, found.difficulty)[0] < best


def test_irt_takes_missing_answers_and_few_models(simulated):
    a, b, theta, answers = simulated
    holes = np.where(np.random.default_rng(9).random(answers.shape) < 0.3, np.nan, answers)
    assert np.corrcoef(fit_2pl(holes).difficulty, b)[0, 1] > 0.95
    few = fit_2pl([[1, 1, 0], [1, 0, 0]], discrimination=1.0)
    assert few.difficulty[0] < few.difficulty[1] < few.difficulty[2]
    assert (few.discrimination == 1).all() and (few.difficulty_error > 0.8).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean([]), "values must be finite"),
        (lambda: mean([1.0, math.nan]), "values must be finite"),
        (lambda: mean([1.0], weights=[0.0]), "weights must be"),
        (lambda: mean([1.0, 2.0], clusters=["a"]), "clusters must be one a value"),
        (lambda: mean([1.0, 2.0], confidence=1), "confidence must be in"),
        (lambda: statistics.items_needed(0, variance=1), "difference must be above 0"),
        (lambda: statistics.items_needed(0.1, variance=-1), "variances must be"),
        (lambda: statistics.detectable_difference(0, variance=1), "items must be"),
        (lambda: statistics.variance_of_difference(2, 0.5, 0), "first must be a share"),
        (lambda: statistics.variance_of_difference(0.2, 0.5, 2), "correlation must be"),
        (lambda: fit_2pl([[1, 0]]), "answers must be"),
        (lambda: fit_2pl([[1, 2], [0, 0]]), "answers must be 0, 1 or NaN"),
        (lambda: fit_2pl([[1, math.nan], [0, math.nan]]), "item 1 are all NaN"),
    ],
)
def test_nonsense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
