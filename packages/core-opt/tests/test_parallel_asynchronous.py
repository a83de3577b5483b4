"""What every strategy must do, delays, and the order of events on the simulated clock."""

import math

import numpy as np
import pytest
from oarlock.core_opt.asynchronous import (
    Asynchronous,
    Cluster,
    DelayCompensated,
    Rennala,
    Ringmaster,
    Synchronous,
    Until,
    delays,
    problems,
    time_gradients,
)

STRATEGIES = {
    "synchronous": lambda lr: Synchronous(lr),
    "fastest": lambda lr: Synchronous(lr, gradients=3),
    "asynchronous": lambda lr: Asynchronous(lr),
    "compensated": lambda lr: DelayCompensated(lr),
    "compensated-constant": lambda lr: DelayCompensated(lr, adaptive=False, compensation=0.04),
    "ringmaster": lambda lr: Ringmaster(lr, threshold=4),
    "ringmaster-finishing": lambda lr: Ringmaster(lr, threshold=4, stops=False),
    "rennala": lambda lr: Rennala(lr, gradients=3),
    "rennala-stopping": lambda lr: Rennala(lr, gradients=3, stops=True),
}
FIVE = delays.LogNormal(seconds=(1.0, 1.5, 2.0, 4.0, 9.0), sigma=0.3)
CHAIN = problems.Chain(12, noise=0.05)
every_strategy = pytest.mark.parametrize("name", STRATEGIES)


def run(strategy, times=FIVE, *, seed=0, oracle=CHAIN, dtype="float64", updates=200, **options):
    start = np.full(12, 0.3, dtype)
    cluster = Cluster(times, seed=seed, workers=options.pop("workers", None))
    return cluster.run(strategy, oracle, start, until=Until(updates=updates), **options)


# The common suite -------------------------------------------------------------------------------


@every_strategy
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_worker_is_serial_sgd_bit_for_bit(name, dtype):
    """Without delay there is nothing to wait for, to correct or to discard."""
    strategy = STRATEGIES[name](0.2)
    if isinstance(strategy, (Synchronous, Rennala)):
        strategy = type(strategy)(0.2, gradients=1)

    class Single(problems.Chain):
        def gradient(self, parameters, worker, rng):
            return super().gradient(parameters, worker, rng).astype(dtype)

    oracle = Single(12, noise=0.05)
    for seconds in (0.0, 1.0):
        trace = run(strategy, delays.Fixed(seconds=(seconds,)), oracle=oracle, dtype=dtype)
        seen = []

        class Recorder(Single):
            def gradient(self, parameters, worker, rng):
                seen.append(super().gradient(parameters, worker, rng))  # noqa: B023
                return seen[-1]  # noqa: B023

        again = run(
            strategy, delays.Fixed(seconds=(seconds,)), oracle=Recorder(12, noise=0.05), dtype=dtype
        )
        x = np.full(12, 0.3, dtype)
        for gradient in seen:
            x = x - 0.2 * gradient
        assert len(seen) == 200 and trace.parameters.dtype == dtype
        np.testing.assert_array_equal(trace.parameters, x)
        np.testing.assert_array_equal(again.parameters, x)
        assert trace.delays == {0: 200} and trace.discarded == trace.stopped == 0
        assert trace.seconds_used == 200 * seconds


@every_strategy
def test_same_seed_same_bits_other_seed_other_run(name):
    strategy = STRATEGIES[name](0.2)
    first, again = run(strategy), run(strategy)
    fresh, other = run(STRATEGIES[name](0.2)), run(strategy, seed=1)
    for same in (again, fresh):
        np.testing.assert_array_equal(first.parameters, same.parameters)
        assert (first.seconds_used, first.delays) == (same.seconds_used, same.delays)
        assert first.seconds == same.seconds
    assert other.seconds_used != first.seconds_used
    assert not np.array_equal(other.parameters, first.parameters)


@every_strategy
def test_every_gradient_is_accounted_for(name):
    strategy = STRATEGIES[name](0.2)
    trace = run(strategy, updates=300)
    finished = sum(len(times) for times in trace.seconds)
    assert finished == trace.applied + trace.discarded
    assert trace.applied == sum(trace.delays.values())
    assert trace.updates == 300
    needed = {"synchronous": 5, "fastest": 3, "rennala": 3, "rennala-stopping": 3}.get(name, 1)
    assert trace.applied == needed * trace.updates
    if strategy.limit is not None:
        assert max(trace.delays) < strategy.limit
    if strategy.limit is None or name == "synchronous":
        assert trace.discarded == trace.stopped == 0
    elif strategy.stops:
        assert trace.stopped > 0 and trace.discarded == 0
    else:
        assert trace.stopped == 0 and trace.discarded > 0


@every_strategy
def test_it_descends_and_leaves_its_arguments_alone(name):
    start = np.zeros(12)
    trace = Cluster(FIVE).run(
        STRATEGIES[name](0.15),
        CHAIN,
        start,
        until=Until(updates=5000),
        observe=CHAIN.value,
        every=100,
    )
    assert not start.any() and trace.parameters is not start
    assert trace.values[0] == 0.0 and len(trace.values) == len(trace.times) == 51
    gap = CHAIN.value(start) - CHAIN.minimum
    assert np.mean(trace.values[-10:]) - CHAIN.minimum < 0.2 * gap
    assert trace.times == sorted(trace.times) and not trace.diverged


@every_strategy
@pytest.mark.parametrize("wrong", [0.0, -1.0, math.inf, math.nan, "0.1", True])
def test_a_wrong_learning_rate_is_refused(name, wrong):
    with pytest.raises(ValueError, match="learning_rate must"):
        STRATEGIES[name](wrong)


@every_strategy
def test_divergence_ends_the_run(name):
    with np.errstate(all="ignore"):
        trace = run(STRATEGIES[name](1e30), updates=10**6, observe=CHAIN.value)
    assert trace.diverged and trace.updates < 10**4


# Each strategy by itself ------------------------------------------------------------------------


def gradients_by_worker(seconds, strategy, updates):
    """Which worker's gradient came when: 1 in the coordinate of the worker."""

    class Who:
        def gradient(self, parameters, worker, rng):
            log.append((worker, parameters.copy()))
            return -np.eye(len(seconds))[worker]

    log = []
    cluster = Cluster(delays.Fixed(seconds=seconds))
    return cluster.run(strategy, Who(), np.zeros(3), until=Until(updates=updates)), log


def test_asynchronous_applies_in_the_order_of_time():
    trace, log = gradients_by_worker((1.0, 2.2, 5.1), Asynchronous(1.0), 8)
    assert [worker for worker, _ in log] == [0, 0, 1, 0, 0, 1, 0, 2]
    np.testing.assert_array_equal(trace.parameters, [5, 2, 1])
    assert trace.seconds_used == 5.1
    np.testing.assert_array_equal(log[-1][1], [0, 0, 0])  # worker 2 began at the start
    assert trace.delays == {0: 3, 1: 2, 2: 2, 7: 1}


def test_ringmaster_discards_what_comes_too_late():
    trace, log = gradients_by_worker((1.0, 2.2, 5.1), Ringmaster(1.0, threshold=3, stops=False), 20)
    assert 2 not in [worker for worker, _ in log]
    assert trace.discarded >= 2 and trace.stopped == 0


def test_ringmaster_stops_what_would_come_too_late():
    """Worker 2 is begun anew at every third update, and so never delivers."""
    trace, log = gradients_by_worker((1.0, 2.2, 5.1), Ringmaster(1.0, threshold=3), 20)
    assert {worker for worker, _ in log} == {0, 1}
    assert trace.stopped == pytest.approx(20 / 3, abs=2) and trace.discarded == 0


def test_rennala_lets_fast_workers_give_more():
    trace, log = gradients_by_worker((1.0, 2.2, 50.0), Rennala(3.0, gradients=3), 1)
    np.testing.assert_array_equal(trace.parameters, [2, 1, 0])
    assert trace.seconds_used == 2.2 and all(not x.any() for _, x in log)


def test_synchronous_waits_for_the_slowest_or_for_the_first():
    trace, _ = gradients_by_worker((1.0, 2.2, 5.1), Synchronous(3.0), 2)
    np.testing.assert_array_equal(trace.parameters, [2, 2, 2])
    assert trace.seconds_used == pytest.approx(10.2)
    trace, _ = gradients_by_worker((1.0, 2.2, 5.1), Synchronous(2.0, gradients=2), 2)
    np.testing.assert_array_equal(trace.parameters, [2, 2, 0])
    assert trace.seconds_used == pytest.approx(4.4) and trace.stopped == 2


@pytest.mark.parametrize("adaptive", [False, True])
def test_compensation_is_that_of_the_paper(adaptive):
    strategy = DelayCompensated(0.1, compensation=0.5, adaptive=adaptive, decay=0.9)
    strategy.reset(1)
    rng = np.random.default_rng(0)
    mean_square = np.zeros(4)
    for _ in range(3):
        now, then, g = rng.standard_normal([3, 4])
        mean_square = 0.9 * mean_square + 0.1 * g**2
        factor = 0.5 / np.sqrt(mean_square + 1e-7) if adaptive else 0.5
        wanted = now - 0.1 * (g + factor * g * g * (now - then))
        np.testing.assert_allclose(strategy.apply(now, g, worker=0, then=then), wanted)


def test_compensation_corrects_a_stale_gradient():
    """For -log p of a logistic model g g is the curvature in expectation, so the error shrinks."""
    rng = np.random.default_rng(0)
    x, then = rng.standard_normal([20000, 1]), np.zeros(1)
    now = np.array([0.3])
    labels = (rng.random(20000) < 1 / (1 + np.exp(-x[:, 0] * 0.15))).astype(float)

    def single(w):
        return (1 / (1 + np.exp(-x @ w)) - labels)[:, None] * x

    stale, fresh = single(then).mean(0), single(now).mean(0)
    compensated = (single(then) + single(then) ** 2 * (now - then)).mean(0)
    assert np.abs(compensated - fresh) < 0.2 * np.abs(stale - fresh)


class Bounded(problems.Chain):
    """Fails where a run would go on for ever."""

    left = 1000

    def gradient(self, parameters, worker, rng):
        self.left -= 1
        assert self.left > 0
        return super().gradient(parameters, worker, rng)


@every_strategy
@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda g: g[:, None], r"shape of the parameters, \(12,\), got \(12, 1\)"),
        (lambda g: g[:1], r"shape of the parameters, \(12,\), got \(1,\)"),
        (lambda g: g.sum(keepdims=True)[0], "gradient of worker 0 must be a NumPy array"),
        (lambda g: g.astype("float64"), "float64.*float32.*astype"),
        (lambda g: g.astype("int32"), "int32.*float32.*astype"),
        (lambda g: g.tolist(), "gradient of worker 0 must be a NumPy array"),
    ],
)
def test_a_gradient_that_does_not_fit_the_parameters_is_refused(name, wrong, message):
    class Wrong(problems.Chain):
        def gradient(self, parameters, worker, rng):
            return wrong(super().gradient(parameters, worker, rng))

    with pytest.raises(ValueError, match=message):
        run(STRATEGIES[name](0.1), oracle=Wrong(12), dtype="float32")


@every_strategy
def test_a_narrower_gradient_leaves_the_parameters_their_dtype(name):
    class Narrow(problems.Chain):
        def gradient(self, parameters, worker, rng):
            return super().gradient(parameters, worker, rng).astype("float32")

    assert run(STRATEGIES[name](0.1), oracle=Narrow(12)).parameters.dtype == "float64"


@pytest.mark.parametrize(
    "strategy, seconds",
    [
        (Asynchronous(0.1), (0.0, 0.0)),
        (Asynchronous(0.1), (0.0, 1.0)),
        (DelayCompensated(0.1), (1.0, 0.0)),
        (Ringmaster(0.1, threshold=2), (0.0, 1.0)),
        (Rennala(0.1, gradients=2), (0.0, 1.0)),
        (Synchronous(0.1), (0.0, 0.0)),
        (Synchronous(0.1, gradients=1), (0.0, 1.0)),
    ],
)
def test_a_run_in_which_no_time_would_pass_is_refused(strategy, seconds):
    cluster, oracle = Cluster(delays.Fixed(seconds=seconds)), Bounded(12)
    with pytest.raises(ValueError, match="until needs updates.*no time passes"):
        cluster.run(strategy, oracle, np.zeros(12), until=Until(seconds=1.0))
    trace = cluster.run(strategy, oracle, np.zeros(12), until=Until(seconds=1.0, updates=5))
    assert trace.updates == 5


@pytest.mark.parametrize("gradients", [None, 2])
def test_workers_without_delay_wait_for_one_that_has_some(gradients):
    cluster = Cluster(delays.Fixed(seconds=(0.0, 2.0, 5.0)))
    strategy = Synchronous(0.1, gradients=gradients)
    trace = cluster.run(strategy, Bounded(12), np.zeros(12), until=Until(seconds=10.0))
    assert trace.updates == (2 if gradients is None else 5)


@pytest.mark.parametrize(
    "build, word",
    [
        (lambda: Ringmaster(0.1, threshold=0), "threshold"),
        (lambda: Ringmaster(0.1, threshold=2, stops=1), "stops"),
        (lambda: Rennala(0.1, gradients=0), "gradients"),
        (lambda: Synchronous(0.1, gradients=1.5), "gradients"),
        (lambda: DelayCompensated(0.1, compensation=-1), "compensation"),
        (lambda: DelayCompensated(0.1, adaptive="yes"), "adaptive"),
        (lambda: DelayCompensated(0.1, decay=1.0), "decay"),
        (lambda: run(Synchronous(0.1, gradients=6)), "gradients must be at most"),
        (lambda: run("asynchronous"), "strategy"),
        (lambda: Until(), "until"),
        (lambda: Until(updates=0), "updates"),
        (lambda: Until(seconds=0.0), "seconds"),
        (lambda: Until(updates=1, window=0), "window"),
        (lambda: Until(updates=1, value=math.nan), "value"),
        (lambda: run(Asynchronous(0.1), every=0), "every"),
        (lambda: Cluster(3.0), "delays"),
        (lambda: Cluster(delays.Fixed(seconds=1.0)), "workers"),
        (lambda: Cluster(FIVE, workers=4), "workers is 4"),
        (lambda: Cluster(FIVE, seed=-1), "seed"),
        (lambda: problems.Chain(1), "dimension"),
        (lambda: problems.Chain(3, noise=-1), "noise"),
    ],
)
def test_wrong_arguments_are_named(build, word):
    with pytest.raises(ValueError, match=word):
        build()


def test_a_value_to_reach_needs_an_observer_and_parameters_an_array():
    cluster = Cluster(FIVE)
    with pytest.raises(ValueError, match="observe"):
        cluster.run(Asynchronous(0.1), CHAIN, np.zeros(12), until=Until(updates=1, value=0.1))
    for wrong in ([0.0] * 12, np.zeros(12, int)):
        with pytest.raises(ValueError, match="parameters"):
            cluster.run(Asynchronous(0.1), CHAIN, wrong, until=Until(updates=1))


def test_a_run_ends_at_its_value_or_at_its_time():
    target = 0.3 * CHAIN.squared_norm(np.zeros(12))
    trace = Cluster(FIVE).run(
        Ringmaster(0.2, threshold=3),
        CHAIN,
        np.zeros(12),
        until=Until(updates=10**5, value=target, window=3),
        observe=CHAIN.squared_norm,
        every=5,
    )
    assert trace.reached == trace.times[-1] == trace.seconds_used
    assert np.mean(trace.values[-3:]) <= target < np.mean(trace.values[-4:-1])
    timed = Cluster(FIVE).run(Asynchronous(0.1), CHAIN, np.zeros(12), until=Until(seconds=50.0))
    assert timed.seconds_used == 50.0 and timed.reached is None


# Delays -----------------------------------------------------------------------------------------

DISTRIBUTIONS = {
    "fixed": delays.Fixed(seconds=(2.0, 3.0)),
    "exponential": delays.Exponential(seconds=(2.0, 3.0)),
    "lognormal": delays.LogNormal(seconds=(2.0, 3.0), sigma=0.5),
    "pareto": delays.Pareto(seconds=(2.0, 3.0), shape=3.5),
    "measured": delays.Measured(trace=((1.0, 2.0, 6.0), (0.5,))),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_samples_have_the_mean_and_are_never_negative(name):
    distribution = DISTRIBUTIONS[name]
    assert distribution.workers == 2
    for worker in range(2):
        rng = np.random.default_rng(0)
        drawn = np.array([distribution.sample(worker, rng) for _ in range(40000)])
        assert drawn.min() >= 0
        assert drawn.mean() == pytest.approx(distribution.mean(worker), rel=0.03)


def test_pareto_has_its_tail_and_no_mean_below_one():
    rng = np.random.default_rng(0)
    heavy = delays.Pareto(seconds=1.0, shape=0.8)
    drawn = np.array([heavy.sample(0, rng) for _ in range(40000)])
    assert drawn.min() >= 1 and heavy.mean(0) == math.inf and heavy.workers is None
    for time in (2.0, 10.0, 100.0):
        assert (drawn > time).mean() == pytest.approx(time**-0.8, rel=0.1)


def test_power_law():
    assert delays.power_law(4, 0.5, fastest=2.0).seconds == (2.0, 2 * 2**0.5, 2 * 3**0.5, 4.0)
    assert set(delays.power_law(3, 0.0).seconds) == {1.0}


@pytest.mark.parametrize(
    "build, word",
    [
        (lambda: delays.Fixed(seconds=-1.0), "seconds"),
        (lambda: delays.Fixed(seconds=()), "seconds is empty"),
        (lambda: delays.Fixed(seconds=(1.0, math.nan)), r"seconds\[1\]"),
        (lambda: delays.LogNormal(seconds=1.0, sigma=-1), "sigma"),
        (lambda: delays.Pareto(seconds=1.0, shape=0), "shape"),
        (lambda: delays.Measured(trace=()), "trace is empty"),
        (lambda: delays.Measured(trace=3.0), "trace"),
        (lambda: delays.Measured(trace=((1.0,), ())), r"trace\[1\] is empty"),
        (lambda: delays.power_law(0, 1.0), "workers"),
        (lambda: delays.power_law(2, -1.0), "exponent"),
    ],
)
def test_wrong_delays_are_named(build, word):
    with pytest.raises(ValueError, match=word):
        build()


def test_timed_gradients_make_a_cluster():
    times = time_gradients(CHAIN, np.zeros(12), repetitions=5)
    assert len(times) == 5 and min(times) > 0
    measured = delays.Measured(trace=(times,) * 3)
    trace = run(Asynchronous(0.1), measured, updates=30)
    for seconds in trace.seconds[0]:
        assert min(abs(seconds - t) for t in times) < 1e-9


# The problem ------------------------------------------------------------------------------------


def test_chain_is_what_it_says():
    chain = problems.Chain(30, smoothness=3.0, noise=0.6)
    matrix = np.array([chain.true_gradient(e) - chain.true_gradient(0 * e) for e in np.eye(30)])
    eigenvalues = np.linalg.eigvalsh(matrix)
    assert eigenvalues.max() == pytest.approx(3.0 * math.sin(math.pi * 30 / 62) ** 2)
    best = np.linalg.solve(matrix, -chain.true_gradient(np.zeros(30)))
    np.testing.assert_allclose(best, -(1 - np.arange(1, 31) / 31))
    assert chain.value(best) == pytest.approx(chain.minimum)
    x, rng = np.random.default_rng(1).standard_normal(30), np.random.default_rng(0)
    step = 1e-5 * chain.true_gradient(x)
    slope = (chain.value(x + step) - chain.value(x - step)) / 2e-5
    assert slope == pytest.approx(chain.squared_norm(x))
    errors = [chain.gradient(x, 0, rng) - chain.true_gradient(x) for _ in range(4000)]
    assert np.mean([e @ e for e in errors]) == pytest.approx(0.36, rel=0.03)
    assert np.abs(np.mean(errors, axis=0)).max() < 0.01
