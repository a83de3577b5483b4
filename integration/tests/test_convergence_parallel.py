"""Criterion 1.1: asynchronous and local steps, their tuning and their records."""

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
import pytest
from oarlock.accept.convergence import async_sgd, local_steps
from oarlock.accept.convergence.local_steps import BEST, PLANS, START, TRIALS, Method
from oarlock.core_opt.asynchronous import Asynchronous, Ringmaster

TEXT = "the quick brown fox jumps over the lazy dog; " * 60
TINY = replace(
    PLANS["quick"],
    task=replace(
        PLANS["quick"].task, hidden_size=16, context=16, steps=8, validation_batches=2, batch=2
    ),
    inner_steps=4,
)
SWEEPS = Path(__file__).parents[1] / "results" / "sweeps"
CHAIN = async_sgd.chain_task(dimension=6, target=6e-3, noise_ratio=4)


# Asynchronous -----------------------------------------------------------------------------------


def test_tuning_finds_the_fastest_step_of_the_grid():
    """Every step size of the grid is run; none is faster than the one that was found."""
    seconds = np.array([1.0, 2.0, 5.0])
    for build in (Asynchronous, lambda lr: Ringmaster(lr, threshold=3)):
        tuned = async_sgd.tune(CHAIN, build, seconds, patience=1e4)
        found = {
            k: async_sgd.run(
                CHAIN,
                build,
                seconds,
                step=2 ** (k / 2),
                seed=async_sgd.TUNING_SEED,
                at_most=1e4,
            ).reached
            for k in range(-12, 3)
        }
        reached = {k: seconds for k, seconds in found.items() if seconds is not None}
        assert tuned.seconds == min(reached.values())
        assert found[round(2 * math.log2(tuned.step))] == tuned.seconds
        assert tuned.trials[tuned.step] == tuned.seconds


def test_a_strategy_that_does_not_arrive_has_infinite_time():
    hopeless = replace(CHAIN, target=1e-30)
    tuned = async_sgd.tune(hopeless, Asynchronous, np.array([1.0]), patience=20.0)
    assert tuned.seconds == math.inf and set(tuned.trials.values()) == {None}


def test_times_of_seeds_that_do_not_arrive_count_tenfold():
    tuned = async_sgd.Tuned(step=1e-9, seconds=3.0)
    found = async_sgd.times(CHAIN, Asynchronous, np.array([1.0]), tuned, [0, 1])
    assert found == [30.0, 30.0]


def test_best_round_is_the_best_of_all():
    seconds = np.array([5.0, 1.0, 1.5, 40.0])
    costs = [t * (1 + 8.0 / m) for m, t in enumerate(sorted(seconds), start=1)]
    assert async_sgd.best_round(seconds, 8.0) == 1 + int(np.argmin(costs))


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
        return {"loss": abs(math.log2(method.setting.learning_rate / 0.016)) + 1}

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


def test_settings_are_the_winners_of_the_committed_search():
    record = json.loads((SWEEPS / "1.1-full-local-steps.json").read_text(encoding="utf-8"))
    for name, method in BEST.items():
        assert local_steps.winner(record, name) == method
    names = [one["name"] for one in record["trials"]]
    assert {names.count(name) for name in START} == {TRIALS}, "all are tuned with equal effort"
    plan = json.loads(json.dumps(record["plan"]))
    for part, value in plan["task"].items():
        kept = getattr(PLANS["full"].task, part)
        assert json.loads(json.dumps(kept)) == value
    assert plan["inner_steps"] == PLANS["full"].inner_steps


def test_methods_survive_json():
    from dataclasses import asdict

    for method in BEST.values():
        assert Method.of(json.loads(json.dumps(asdict(method)))) == method
