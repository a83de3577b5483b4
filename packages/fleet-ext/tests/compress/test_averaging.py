"""What every way to average must do."""

from dataclasses import replace

import numpy as np
import pytest
from oarlock.fleet_ext.compress import Coded, Hierarchical, LowRank, averaging_of
from oarlock.fleet_ext.compress.codecs import CODECS, BFloat16, Blocks

from ranks import together, well

SHAPES = [(40, 30), (17,), (8, 4, 25), ()]
COUNT = 40 * 30 + 17 + 800 + 1
NAMES = (
    "float32",
    "rank-2",
    "rank-2-bf16",
    "rank-2-int8",
    *CODECS,
    "hosts-float32",
    "hosts-int4",
    "hosts-rank-2",
    "hosts-top-1%",
)
WITH_MOMENTUM = (
    "dgc-2%",
    "hosts-dgc-2%",
)  #: whose means are not those of gradients: test_momentum.py
HOSTS = "aba"  #: of ranks


def gradient(rank, step=0):
    rng = np.random.default_rng([rank, step])
    return rng.standard_normal(COUNT).astype(np.float32)


def on_hosts(averaging, size):
    if isinstance(averaging, Hierarchical):
        return replace(averaging, hosts=tuple(HOSTS[:size]))
    return averaging


@pytest.fixture(params=NAMES)
def averaging(request):
    return averaging_of(request.param)


@pytest.fixture(params=(*NAMES, *WITH_MOMENTUM))
def any_averaging(request):
    return averaging_of(request.param)


@pytest.mark.parametrize("size", (1, 2, 3))
def test_all_ranks_have_the_same_mean_and_nothing_is_lost(averaging, size):
    """The mean of what was given is what came and the mean of what is kept, by anybody."""

    def run(group):
        averager = on_hosts(averaging, size).start(SHAPES, 5, group)
        total = np.zeros(COUNT)
        for step in range(4):
            total += averager.averaged(group, step, gradient(group.rank, step))
        left = averager.left(group).unsent.astype(np.float64)
        averager.close()
        return total, left

    found = well(together(size, run))
    for total, _ in found:
        np.testing.assert_array_equal(total, found[0][0])
    left = np.mean([one for _, one in found], axis=0)
    given = np.mean(
        [sum(gradient(rank, step) for step in range(4)) for rank in range(size)], axis=0
    )
    np.testing.assert_allclose(found[0][0] + left, given, atol=2e-5)


@pytest.mark.parametrize("size", (2, 3))
def test_state_goes_on_exactly(any_averaging, size):
    def run(group):
        one, other = (on_hosts(any_averaging, size).start(SHAPES, 5, group) for _ in range(2))
        for step in range(3):
            one.averaged(group, step, gradient(group.rank, step))
        other.load(one.state())
        for step in (9, 10):
            outs = [it.averaged(group, step, gradient(group.rank, step)) for it in (one, other)]
            np.testing.assert_array_equal(*outs)
        for it in (one, other):
            it.close()

    well(together(size, run))


@pytest.mark.parametrize("size", (2, 3))
def test_what_is_left_goes_on_in_another_group(any_averaging, size):
    """As it does for whom nothing happened, to rounding; the power method begins with other directions."""

    def run(group):
        chosen = on_hosts(any_averaging, size)
        again = group.subgroup(range(size), "again")
        one = chosen.start(SHAPES, 5, group)
        for step in range(3):
            one.averaged(group, step, gradient(group.rank, step))
        other = chosen.start(SHAPES, 5, again)
        other.inherit(one.left(group))
        for name in ("unsent", "velocity"):
            before, after = (getattr(it.left(group), name) for it in (one, other))
            np.testing.assert_array_equal(before, after)
        one.fade(0.5)
        other.fade(0.5)
        outs = [it.averaged(group, 3, gradient(group.rank, 3)) for it in (one, other)]
        lefts = [it.left(group) for it in (one, other)]
        for it in (one, other):
            it.close()
        again.close()
        return outs, lefts

    found = well(together(size, run))
    for part in ("unsent", "velocity"):
        if getattr(found[0][1][0], part) is None:
            continue
        wholes = [
            np.mean([getattr(lefts[it], part) for _, lefts in found], axis=0) for it in (0, 1)
        ]
        if part == "unsent":
            wholes = [whole + found[0][0][it] for it, whole in enumerate(wholes)]
        np.testing.assert_allclose(*wholes, atol=1e-5)


def test_traffic_is_what_is_sent(any_averaging):
    """Of ranks that lead their host, to others; plain averagings take each rank for a host of its own."""
    chosen = on_hosts(any_averaging, 3)
    hosts = HOSTS if isinstance(chosen, Hierarchical) else "abc"

    def run(group):
        def sent():
            there = [rank for rank in range(3) if hosts[rank] != hosts[group.rank]]
            return sum(one.bytes_sent for rank in there for one in group.mesh._outgoing[rank])

        averager = chosen.start([(4000, 300)], 0, group)
        ones = np.ones(4000 * 300, np.float32)
        group.barrier().wait()
        before = sent()
        averager.averaged(group, 0, ones)
        group.barrier().wait()
        averager.close()
        return sent() - before

    told = chosen.traffic([(4000, 300)], 3)
    for rank, seen in enumerate(well(together(3, run))):
        if hosts.index(hosts[rank]) == rank:
            assert told <= seen < 1.05 * told + 3000
        else:
            assert seen < 3000


def test_descent_with_feedback_reaches_the_minimum(averaging):
    """Least squares whose parts lie on two ranks; a code of one of the 16 numbers a step gets there, too."""
    rng = np.random.default_rng(3)
    parts = [(rng.standard_normal((100, 16)), rng.standard_normal(100)) for _ in range(2)]
    whole = np.concatenate([one for one, _ in parts]), np.concatenate([one for _, one in parts])
    best = np.linalg.lstsq(*whole, rcond=None)[0]

    def run(group):
        features, wanted = parts[group.rank]
        averager, point = on_hosts(averaging, 2).start([(4, 4)], 0, group), np.zeros(16)
        for step in range(1000):
            slope = (features.T @ (features @ point - wanted) / 100).astype(np.float32)
            mean = averager.averaged(group, step, slope)
            point -= 0.03 / (1 + step / 200) * mean  # feedback circles, as wide as steps are
        return np.linalg.norm(point - best) / np.linalg.norm(best)

    assert max(well(together(2, run))) < 0.05


def test_low_rank_finds_the_range_of_a_matrix():
    rng = np.random.default_rng(0)
    matrix = (rng.standard_normal((60, 3)) @ rng.standard_normal((3, 50))).astype(np.float32)

    def run(group):
        averager = LowRank(rank=3).start([(60, 50)], 0, group)
        return averager.averaged(group, 0, matrix.reshape(-1)).reshape(60, 50)

    for one in well(together(2, run)):
        np.testing.assert_allclose(one, matrix, atol=1e-3)


def test_state_of_another_model_is_refused(any_averaging):
    def run(group):
        one, other = (
            on_hosts(any_averaging, 2).start([shape], 0, group) for shape in ((20, 20), (30, 30))
        )
        with pytest.raises(ValueError, match="state must have"):
            other.load(one.state())
        for it in (one, other):
            it.close()

    well(together(2, run))


def test_what_is_not_possible_is_refused():
    with pytest.raises(ValueError, match="choose one of"):
        averaging_of("int3")
    with pytest.raises(ValueError, match="rank must be"):
        LowRank(rank=0)
    with pytest.raises(ValueError, match="error_feedback must be on"):
        Coded(codec=BFloat16(), error_feedback=False)
    assert Coded(codec=Blocks(bits=8, stochastic=True), error_feedback=False).name
