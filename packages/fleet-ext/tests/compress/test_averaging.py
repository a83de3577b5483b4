"""What every way to average must do."""

import numpy as np
import pytest
from oarlock.fleet_ext.compress.averaging import Coded, LowRank, averaging_of
from oarlock.fleet_ext.compress.codecs import CODECS, BFloat16, Blocks

from ranks import together, well

SHAPES = [(40, 30), (17,), (8, 4, 25), ()]
COUNT = 40 * 30 + 17 + 800 + 1
NAMES = ("float32", "rank-2", *CODECS)


def gradient(rank, step=0):
    rng = np.random.default_rng([rank, step])
    return rng.standard_normal(COUNT).astype(np.float32)


@pytest.fixture(params=NAMES)
def averaging(request):
    return averaging_of(request.param)


@pytest.mark.parametrize("size", (1, 2, 3))
def test_all_ranks_have_the_same_mean_and_nothing_is_lost(averaging, size):
    """The mean of what was given is what came and the mean of what is kept, by anybody."""

    def run(group):
        averager = averaging.start(SHAPES, 5, group)
        total = np.zeros(COUNT)
        for step in range(4):
            total += averager.averaged(group, step, gradient(group.rank, step))
        left = averager.state()["acc"].astype(np.float64)
        rest = averager.state().get("sum", np.zeros(0))
        return total, left, rest

    found = well(together(size, run))
    for total, _, _ in found:
        np.testing.assert_array_equal(total, found[0][0])
    left = np.mean([one for _, one, _ in found], axis=0)
    rest = np.concatenate([one for _, _, one in found])
    if rest.size:
        left += rest
    given = np.mean(
        [sum(gradient(rank, step) for step in range(4)) for rank in range(size)], axis=0
    )
    np.testing.assert_allclose(found[0][0] + left, given, atol=2e-5)


def test_state_goes_on_exactly(averaging):
    def run(group):
        one, other = (averaging.start(SHAPES, 5, group) for _ in range(2))
        for step in range(3):
            one.averaged(group, step, gradient(group.rank, step))
        other.load(one.state())
        outs = [it.averaged(group, 9, gradient(group.rank, 9)) for it in (one, other)]
        np.testing.assert_array_equal(*outs)

    well(together(2, run))


def test_traffic_is_what_is_sent(averaging):
    def run(group):
        averager = averaging.start([(4000, 300)], 0, group)
        ones = np.ones(4000 * 300, np.float32)
        group.barrier().wait()
        before = group.mesh.traffic()[0]
        averager.averaged(group, 0, ones)
        group.barrier().wait()
        return group.mesh.traffic()[0] - before

    told = averaging.traffic([(4000, 300)], 3)
    for seen in well(together(3, run)):
        assert told <= seen < 1.05 * told + 3000


def test_descent_with_feedback_reaches_the_minimum(averaging):
    """Least squares whose parts lie on two ranks; a code of one of the 16 numbers a step gets there, too."""
    rng = np.random.default_rng(3)
    parts = [(rng.standard_normal((100, 16)), rng.standard_normal(100)) for _ in range(2)]
    whole = np.concatenate([one for one, _ in parts]), np.concatenate([one for _, one in parts])
    best = np.linalg.lstsq(*whole, rcond=None)[0]

    def run(group):
        features, wanted = parts[group.rank]
        averager, point = averaging.start([(4, 4)], 0, group), np.zeros(16)
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


def test_state_of_another_model_is_refused(averaging):
    def run(group):
        state = averaging.start([(20, 20)], 0, group).state()
        with pytest.raises(ValueError, match="state must have"):
            averaging.start([(30, 30)], 0, group).load(state)

    well(together(2, run))


def test_what_is_not_possible_is_refused():
    with pytest.raises(ValueError, match="choose one of"):
        averaging_of("int3")
    with pytest.raises(ValueError, match="rank must be"):
        LowRank(rank=0)
    with pytest.raises(ValueError, match="error_feedback must be on"):
        Coded(codec=BFloat16(), error_feedback=False)
    assert Coded(codec=Blocks(bits=8, stochastic=True), error_feedback=False).name
