"""Criterion 1.1: asynchronous and local steps, their tuning and their records."""

import gzip
import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import paddle
import pytest
from oarlock.accept.convergence import async_sgd, local_steps
from oarlock.accept.convergence.local_steps import BEST, PLANS, START, TRIALS, Method
from oarlock.accept.experiment import Run
from oarlock.accept.topics.t1_1_async import SPREAD, asynchrony
from oarlock.accept.topics.t1_1_local_steps import local_steps as local_steps_experiment
from oarlock.core_opt.asynchronous import Asynchronous, Ringmaster, Synchronous, delays

TEXT = "the quick brown fox jumps over the lazy dog; " * 60
TINY = replace(
    PLANS["quick"],
    task=replace(
        PLANS["quick"].task, hidden_size=16, context=16, steps=8, validation_batches=2, batch=2
    ),
    inner_steps=4,
    shorter=(4,),
)
SWEEPS = Path(__file__).parents[1] / "results" / "sweeps"
ONE = delays.Fixed(seconds=(1.0,))
CHAIN = async_sgd.chain_task(dimension=6, target=6e-3, noise_ratio=4)


# Asynchronous -----------------------------------------------------------------------------------


def test_tuning_finds_the_fastest_step_of_the_grid():
    """Every step size of the grid is run; none is faster than the one that was found."""
    seconds = delays.Fixed(seconds=(1.0, 2.0, 5.0))
    for build in (Asynchronous, lambda lr: Ringmaster(lr, threshold=3)):
        tuned = async_sgd.tune(CHAIN, build, seconds, patience=1e4)

        def mean(k, build=build):
            each = [
                async_sgd.run(CHAIN, build, seconds, step=2 ** (k / 2), seed=seed, at_most=1e4)
                for seed in async_sgd.TUNING_SEEDS
            ]
            if any(one.reached is None for one in each):
                return math.inf
            return sum(one.reached for one in each) / len(each)

        found = {k: mean(k) for k in range(-12, 3)}
        assert tuned.seconds == min(found.values()) < math.inf
        assert found[round(2 * math.log2(tuned.step))] == tuned.seconds
        assert tuned.trials[tuned.step] == tuned.seconds


def test_a_strategy_that_does_not_arrive_has_infinite_time():
    hopeless = replace(CHAIN, target=1e-30)
    tuned = async_sgd.tune(hopeless, Asynchronous, ONE, patience=20.0)
    assert tuned.seconds == math.inf and set(tuned.trials.values()) == {None}


def test_times_of_seeds_that_do_not_arrive_count_tenfold():
    tuned = async_sgd.Tuned(step=1e-9, seconds=3.0)
    found = async_sgd.times(CHAIN, Asynchronous, ONE, tuned, [0, 1])
    assert found == [30.0, 30.0]


def test_best_round_is_the_best_of_all():
    seconds = np.array([5.0, 1.0, 1.5, 40.0])
    costs = [t * (1 + 8.0 / m) for m, t in enumerate(sorted(seconds), start=1)]
    assert async_sgd.best_round(seconds, 8.0) == 1 + int(np.argmin(costs))


def test_profiles_are_what_their_words_say():
    given = async_sgd.profiles(9)
    assert set(given) == set(async_sgd.PROFILES) == {"equal", *SPREAD}
    number = np.arange(1, 10.0)
    np.testing.assert_allclose(async_sgd.means(given["equal"]), 1)
    np.testing.assert_allclose(async_sgd.means(given["square root"]), np.sqrt(number))
    np.testing.assert_allclose(async_sgd.means(given["linear"]), number)
    np.testing.assert_allclose(async_sgd.means(given["random"]), number)
    assert async_sgd.means(given["log-normal"])[0] == 1
    rng = np.random.default_rng(0)
    for name, one in given.items():
        drawn = np.array([[one.sample(k, rng) for k in range(9)] for _ in range(20_000)])
        np.testing.assert_allclose(drawn.mean(axis=0), async_sgd.means(one), rtol=0.06)
        deviation = np.log(drawn).std(axis=0)
        np.testing.assert_allclose(deviation, float(name == "random"), atol=0.03)


def test_bound_of_random_delays_is_that_of_their_means():
    given = async_sgd.profiles(9)
    assert CHAIN.lower_bound(given["random"]) == pytest.approx(CHAIN.lower_bound(given["linear"]))
    assert CHAIN.lower_bound(given["linear"]) > 1.2 * CHAIN.lower_bound(given["square root"])
    with pytest.raises(ValueError, match="each worker"):
        CHAIN.lower_bound(delays.Fixed(seconds=1.0))


def test_arrivals_are_the_times_of_a_round():
    fixed = delays.Fixed(seconds=(3.0, 1.0, 2.0))
    np.testing.assert_allclose(async_sgd.arrivals(fixed), [1, 2, 3])
    memoryless = async_sgd.arrivals(delays.Exponential(seconds=(1.0,) * 3))
    np.testing.assert_allclose(memoryless, [1 / 3, 1 / 3 + 1 / 2, 1 / 3 + 1 / 2 + 1], rtol=0.2)


def test_a_run_ends_at_the_first_look_that_finds_the_target():
    """No window: a round that arrives counts at once, however long rounds take."""
    seen = []

    class Watched:
        smoothness = CHAIN.problem.smoothness
        gradient = CHAIN.problem.gradient

        def squared_norm(self, parameters):
            seen.append(CHAIN.problem.squared_norm(parameters))
            return seen[-1]

    given = delays.Fixed(seconds=(1.0, 7.0))
    task = replace(CHAIN, problem=Watched())
    found = async_sgd.run(task, Synchronous, given, step=0.3, seed=0, at_most=1e4)
    assert found.reached == 7.0 * found.updates
    assert seen[-1] <= task.target < min(seen[:-1])


# Evidence of the full tier, from times that are given -----------------------------------------------


def run_full(experiment):
    evidence = list(getattr(experiment, "function", experiment)(Run(tier="full", seed=0)))
    assert len({one.name for one in evidence}) == len(evidence)
    return {one.name: one for one in evidence}


KINDS = ["Ringmaster", "Synchronous", "fastest", "Rennala", "Asynchronous", "DelayCompensated"]
OVER_BOUND = dict(zip(KINDS, (0.1, 0.9, 0.3, 0.2, 0.4, 0.15)))
TIMES = dict(zip(KINDS, (2.0, 8.0, None, None, 3.0, None)))


def _kind(build):
    strategy = build(0.1)
    name = type(strategy).__name__
    return "fastest" if name == "Synchronous" and strategy.gradients else name


@pytest.fixture
def fabricated_times(census, monkeypatch):
    """Every strategy takes its multiple of the bound, a quarter more with random delays."""

    def factor(given):
        return {delays.LogNormal: 1.25}.get(type(given), 1.0) * (
            1 + (async_sgd.means(given)[-1] == 1)
        )

    def times(task, build, given, tuned, seeds):
        even = OVER_BOUND[_kind(build)] * factor(given) * task.lower_bound(given)
        return [even * (1 + 0.02 * (-1) ** seed) for seed in seeds]

    def over_processes(task, build, given, *, step, seed):
        took = TIMES[_kind(build)] * (1 + 0.01 * seed)
        return took, took / 1.05

    from oarlock.accept import data

    monkeypatch.setattr(data, "path", lambda name: name)
    monkeypatch.setattr(data, "origin", lambda name: "fabricated")
    monkeypatch.setattr(async_sgd, "census_task", lambda *args, **options: census)
    found = async_sgd.Tuned(step=0.1, seconds=1.0)
    monkeypatch.setattr(async_sgd, "tune", lambda *args, patience: found)
    monkeypatch.setattr(async_sgd, "times", times)
    monkeypatch.setattr(async_sgd, "over_processes", over_processes)


def test_evidence_of_asynchrony_from_given_times(fabricated_times, monkeypatch):
    found = run_full(asynchrony)
    ratios = {
        "async-bound-variation": (1.2, 1.0, "met"),
        "async-bound-equal": (1.25**0.25 / 2, None, "info"),
        "async-processes-synchronous": (4.0, 1.0, "met"),
        "async-processes-asynchronous": (1.5, None, "info"),
        "async-simulation-error": (2.0, 1.0, "met"),
    }
    opponents = {"synchronous": (9, 1.0, "met"), "fastest": (3, None, "info")}
    opponents |= {"asynchronous": (4, 1.0, "met"), "rennala": (2, None, "info")}
    opponents["compensated"] = (1.5, None, "info")
    for task in ("chain", "census"):
        ratios |= {f"async-{task}-{name}": expected for name, expected in opponents.items()}
    assert set(found) == set(ratios)
    for name, (ratio, target, verdict) in ratios.items():
        one = found[name]
        assert (one.direction, one.target, one.verdict) == ("lower", target, verdict), name
        assert one.ratio == pytest.approx(ratio), name
        assert one.baseline / one.ours == pytest.approx(ratio), name
        assert one.ci is None or one.ci[0] <= ratio * (1 + 1e-9) and ratio <= one.ci[1] * (1 + 1e-9)
        assert one.exclusive == (
            name.split("-")[-1] in ("synchronous", "asynchronous") and bool(target)
        )
    for one in found.values():
        assert "stops=False" in one.notes
    for name in ("async-chain-asynchronous", "async-census-asynchronous"):
        assert "128 workers at sqrt(i)" in found[name].notes
    variation = found["async-bound-variation"]
    assert variation.n == 10 and variation.ours == pytest.approx(1.25)
    for words in ("mean delay", "first look", "up to a constant", "async-bound-equal"):
        assert words in variation.notes

    monkeypatch.setitem(OVER_BOUND, "Ringmaster", 0.95)  # slower than waiting for all
    monkeypatch.setitem(TIMES, "Ringmaster", 9.0)
    slow = run_full(asynchrony)
    for name in ("chain-synchronous", "census-asynchronous", "processes-synchronous"):
        assert slow[f"async-{name}"].verdict == "short", name


@pytest.fixture
def census(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["age,job,income-per-year"]
    for _ in range(200):
        age, job = int(rng.integers(20, 60)), ("a", " b", "c ")[int(rng.integers(3))]
        rich = age + 10 * (job == "a") + rng.normal(0, 8) > 45
        lines.append(f"{age},{job},{'>50K' if rich else '<=50K'}")
    with gzip.open(tmp_path / "adult.csv.gz", "wt", encoding="utf-8") as out:
        out.write("\n".join(lines) + "\n")
    return async_sgd.census_task(tmp_path, batch=4, target=1e-4)


def test_logistic_regression_has_the_constants_it_says(census):
    problem, rng = census.problem, np.random.default_rng(0)
    assert census.dimension == 1 + 3 + 1
    x, start = rng.standard_normal(5), np.zeros(5)
    np.testing.assert_allclose(np.linalg.norm(problem.signed, axis=1), 1)
    true = problem._mean_gradient(problem.signed, x)
    for direction in np.eye(5):
        slope = (problem.value(x + 1e-6 * direction) - problem.value(x - 1e-6 * direction)) / 2e-6
        assert slope == pytest.approx(true @ direction, abs=1e-8)
    assert problem.squared_norm(x) == pytest.approx(true @ true)
    drawn = np.array([problem.gradient(start, 0, rng) for _ in range(4000)])
    mean = problem._mean_gradient(problem.signed, start)
    assert np.square(drawn - mean).sum(1).mean() == pytest.approx(census.variance, rel=0.05)
    for _ in range(50):  # L bounds the change of the gradient
        a, b = rng.standard_normal([2, 5])
        change = problem._mean_gradient(problem.signed, a) - problem._mean_gradient(
            problem.signed, b
        )
        assert np.linalg.norm(change) <= problem.smoothness * np.linalg.norm(a - b)
    assert 0 < census.gap < problem.value(start)
    step = 1 / problem.smoothness
    for _ in range(3000):
        start = start - step * problem._mean_gradient(problem.signed, start)
    assert problem.value(np.zeros(5)) - problem.value(start) == pytest.approx(census.gap, abs=1e-6)


# Local steps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(START))
def test_every_method_trains_and_counts_its_bytes(name):
    found = local_steps.train(TINY, START[name], TEXT, seed=0)
    assert [step for step, _ in found["curve"]] == [4, 8]
    assert found["loss"] == found["curve"][-1][1] < math.log(256)
    exchanges = TINY.rounds if START[name].local else TINY.task.steps
    assert found["bytes"] % (4 * exchanges) == 0
    again = local_steps.train(TINY, START[name], TEXT, seed=0)
    assert again == found


def test_a_step_together_takes_the_batches_of_all_workers():
    def streams():
        return [iter([(paddle.full([2, 3], k), paddle.full([2, 3], -k))] * 2) for k in range(4)]

    tokens, targets = next(local_steps._together(streams()))
    assert tokens.shape == targets.shape == [8, 3]
    np.testing.assert_array_equal(tokens.numpy()[:, 0], [0, 0, 1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(targets.numpy(), -tokens.numpy())


def test_bits_shorten_what_is_sent():
    whole = local_steps.train(TINY, START["muloco"], TEXT, seed=0)
    few = local_steps.train(TINY, replace(START["muloco"], bits=4), TEXT, seed=0)
    assert 3 < whole["bytes"] / few["bytes"] < 8 and few["loss"] != whole["loss"]


def test_search_keeps_its_record_and_goes_on(tmp_path, monkeypatch):
    ran = []

    def fake(plan, method, text, *, seed):
        ran.append(method)
        if method.setting.learning_rate > 0.1:
            raise FloatingPointError("diverged")
        rate = abs(math.log2(method.setting.learning_rate / 0.016))
        return {"loss": rate + abs(method.outer_momentum - 0.5) + 1}

    monkeypatch.setattr(local_steps, "train", fake)
    path = tmp_path / "record.json"
    first = local_steps.Search(path, "quick", TEXT, "a text")
    for name in START:
        assert first.run(name) == local_steps.winner(first.record, name)
    trials = [one["name"] for one in first.record["trials"]]
    assert {trials.count(name) for name in START} == {TRIALS}
    count = len(ran)
    again = local_steps.Search(path, "quick", TEXT, "a text")
    for name in START:
        again.run(name)
    assert len(ran) == count
    with pytest.raises(ValueError, match="another search"):
        local_steps.Search(path, "quick", TEXT, "another text")


def check_record(record, methods, plan):
    """The methods are the winners of a search with equal effort, of what the plan trains."""
    assert set(methods) == set(START)
    for name, method in methods.items():
        assert local_steps.winner(record, name) == method
    names = [one["name"] for one in record["trials"]]
    assert {names.count(name) for name in START} == {TRIALS}, "all are tuned with equal effort"
    for part, value in record["plan"]["task"].items():
        assert json.loads(json.dumps(getattr(plan.task, part))) == value
    assert record["plan"]["inner_steps"] == plan.inner_steps


@pytest.mark.parametrize("tier", ["fabricated", *BEST])
def test_settings_are_the_winners_of_the_committed_search(tier, tmp_path, monkeypatch):
    if tier != "fabricated":
        path = SWEEPS / f"1.1-{tier}-local-steps.json"
        check_record(json.loads(path.read_text(encoding="utf-8")), BEST[tier], PLANS[tier])
        return

    def fake(plan, method, text, *, seed):
        return {"loss": 1 + method.setting.table_learning_rate + method.outer_momentum}

    monkeypatch.setattr(local_steps, "train", fake)
    search = local_steps.Search(tmp_path / "record.json", "full", TEXT, "a text")
    methods = {name: search.run(name) for name in START}
    check_record(search.record, methods, PLANS["full"])
    with pytest.raises(AssertionError):
        check_record(search.record, methods | {"muon": START["muon"]}, PLANS["full"])
    with pytest.raises(AssertionError):
        check_record(search.record, methods, PLANS["quick"])
    del search.record["trials"][0]
    with pytest.raises(AssertionError):
        check_record(search.record, methods, PLANS["full"])


def test_search_tries_rates_first_then_as_many_other_changes(tmp_path, monkeypatch):
    ran = []

    def fake(plan, method, text, *, seed):
        ran.append(method)
        return {"loss": 1.0 / len(ran)}  # each better than the last, so that it always moves

    monkeypatch.setattr(local_steps, "train", fake)
    search = local_steps.Search(tmp_path / "record.json", "quick", TEXT, "a text")
    for name, start in START.items():
        ran.clear()
        search.run(name)
        assert ran[0] == start and len(ran) == TRIALS
        for method in ran[1 : local_steps.RATE_TRIALS]:
            setting = replace(
                method.setting,
                learning_rate=start.setting.learning_rate,
                table_learning_rate=start.setting.table_learning_rate,
            )
            assert replace(method, setting=setting) == start
        for method in ran[local_steps.RATE_TRIALS :]:
            outer = method.outer_learning_rate, method.outer_momentum
            changed = outer != (start.outer_learning_rate, start.outer_momentum)
            assert changed == start.local


def test_both_rates_are_also_changed_together():
    start = START["muloco"]
    found = [
        (
            one.setting.learning_rate / start.setting.learning_rate,
            one.setting.table_learning_rate / start.setting.table_learning_rate,
        )
        for one in local_steps.rates(start)
    ]
    assert set(found) == {(1, 2), (1, 0.5), (2, 1), (0.5, 1), (2, 2), (0.5, 0.5)}


def test_a_search_of_tiny_size_trains(tmp_path, monkeypatch):
    monkeypatch.setitem(PLANS, "quick", TINY)
    monkeypatch.setattr(local_steps, "RATE_TRIALS", 2)
    monkeypatch.setattr(local_steps, "TRIALS", 3)
    search = local_steps.Search(tmp_path / "record.json", "quick", TEXT, "a text")
    winners = {name: search.run(name) for name in ("muon", "muloco")}
    record = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert len(record["trials"]) == 6
    assert {name: local_steps.winner(record, name) for name in winners} == winners


def test_a_tier_that_was_not_searched_is_refused(monkeypatch):
    monkeypatch.setattr(local_steps, "BEST", {})
    assert local_steps.best("quick") == START
    with pytest.raises(ValueError, match=r"local_steps --tier full.* into BEST"):
        local_steps.best("full")
    with pytest.raises(ValueError, match="no settings yet"):
        run_full(local_steps_experiment)


def test_shorter_schedules_are_whole_rounds():
    for plan in PLANS.values():
        for steps in plan.shorter:
            assert plan.of_length(steps).task.steps == steps < plan.task.steps
    with pytest.raises(ValueError, match="whole rounds of 4"):
        TINY.of_length(6)


@pytest.fixture
def fabricated_losses(monkeypatch):
    """Loss 4 - log2(steps / 30) together; local steps keep so much of the length; bits cost a little."""
    kept = {"muloco": 0.97, "diloco": 0.8}
    lower = {"muon": 0.5, "muloco": 0.5, "adamw": 0.0, "diloco": 0.0}

    def train(plan, method, text, *, seed):
        arm = {"muon": "muloco", "adamw": "diloco"}[method.setting.optimizer]
        length = plan.task.steps * (kept[arm] if method.local else 1.0)
        loss = 4 - lower[arm] - math.log2(length / 30) + 0.01 * seed
        loss *= {None: 1.0, 4: 1.01, 2: 1.25}[method.bits]
        sent = 4000 * plan.task.steps if not method.local else 4000 * plan.rounds
        sent = sent * (method.bits or 32) / 32
        return {"curve": [[plan.task.steps, loss]], "loss": loss, "bytes": sent}

    from oarlock.accept import data
    from oarlock.native import paddle as native

    monkeypatch.setattr(native, "accelerate", lambda: "not needed")
    monkeypatch.setattr(data, "load_text", lambda name: TEXT)
    monkeypatch.setattr(data, "origin", lambda name: "fabricated")
    monkeypatch.setattr(local_steps, "BEST", {"full": START})
    monkeypatch.setattr(local_steps, "train", train)
    return kept


def test_evidence_of_local_steps_from_given_losses(fabricated_losses):
    def loss(arm, length):
        values = [4 - 0.5 * (arm == "mu") - math.log2(length / 30) + 0.01 * k for k in range(5)]
        return np.array(values)

    mu, di = loss("mu", 0.97 * 120), loss("di", 0.8 * 120)
    expected = {
        "local-muloco-tokens": (0.97, 0.95, False, "met"),
        "local-diloco-tokens": (0.8, 0.95, False, "short"),
        "local-muloco-loss": (np.mean(loss("mu", 120) / mu), None, False, "info"),
        "local-diloco-loss": (np.mean(loss("di", 120) / di), None, False, "info"),
        "local-muloco-against-diloco": (np.mean(di / mu), 1.0, True, "met"),
        "local-muloco-4-bits": (1 / 1.01, 0.98, False, "met"),
        "local-diloco-4-bits": (1 / 1.01, 0.98, False, "met"),
        "local-muloco-2-bits": (0.8, None, False, "info"),
        "local-bytes": (8 * 15, 6 * 15, False, "met"),
    }
    found = run_full(local_steps_experiment)
    assert set(found) == set(expected)
    for name, (ratio, target, exclusive, verdict) in expected.items():
        one = found[name]
        assert one.direction == "lower" and one.ratio == pytest.approx(ratio), name
        assert (one.target, one.exclusive, one.verdict) == (target, exclusive, verdict), name
        assert one.baseline / one.ours == pytest.approx(ratio, rel=0.01), name
    tokens = found["local-diloco-tokens"]
    assert (tokens.baseline, tokens.ours) == (pytest.approx(96), 120)
    assert tokens.ci == (pytest.approx(0.8), pytest.approx(0.8)) and tokens.n == 5
    assert "60 steps" in tokens.notes and "90 steps" in tokens.notes


def test_local_steps_that_end_higher_fall_short(fabricated_losses):
    fabricated_losses.update(muloco=0.5, diloco=1.2)
    found = run_full(local_steps_experiment)
    assert found["local-muloco-tokens"].verdict == "short"
    assert found["local-muloco-tokens"].ratio == pytest.approx(0.5)
    assert found["local-diloco-tokens"].ratio == pytest.approx(1.2)  # beyond the longest run
    assert found["local-muloco-against-diloco"].verdict == "short"


def test_methods_survive_json():
    for method in START.values():
        assert Method.of(json.loads(json.dumps(asdict(method)))) == method
