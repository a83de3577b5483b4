"""Ranks that go their own ways and meet."""

import numpy as np
import paddle
import pytest
from oarlock.fleet_ext.compress import Exact, averaging_of
from oarlock.fleet_ext.compress.local_steps import LocalSteps, Walk, _divided
from oarlock.fleet_ext.transport.arrays import view_of

from ranks import together, well

SHAPES = [(8, 6), (6,), (6, 3)]


def start(rank=0):
    rng = np.random.default_rng(rank)
    return [rng.standard_normal(shape).astype(np.float32) for shape in SHAPES]


def wander(parameters, rank, step):
    """A step of a rank's own."""
    rng = np.random.default_rng([rank, step])
    for one in parameters:
        one -= 0.1 * rng.standard_normal(one.shape).astype(np.float32)


def flat(parameters):
    return np.concatenate([one.reshape(-1) for one in parameters])


def test_exact_meetings_are_means_of_parameters():
    config = LocalSteps(period=3, averaging=Exact(), decay=1.0)

    def run(group):
        parameters = start()
        walk = Walk(parameters, group, config)
        alone = start()
        for step in range(3):
            wander(parameters, group.rank, step)
            wander(alone, group.rank, step)
            walk.after_step()
        walk.close()
        return flat(parameters), flat(alone)

    found = well(together(3, run))
    mean = np.mean([alone for _, alone in found], axis=0)
    for met, _ in found:
        np.testing.assert_allclose(met, mean, atol=1e-6)
        np.testing.assert_array_equal(met, found[0][0])


def test_momentum_is_nesterovs():
    """One rank, one parameter, worked out by hand: ways of 1 each, rate 0.5, momentum 0.9."""
    config = LocalSteps(period=1, averaging=Exact(), rate=0.5, momentum=0.9, decay=1.0)

    def run(group):
        parameter = np.zeros(1, np.float32)
        walk = Walk([parameter], group, config)
        seen = []
        for _ in range(2):
            parameter -= 1.0
            walk.after_step()
            seen.append(float(parameter[0]))
        walk.close()
        return seen

    speeds = 1.0, 0.9 + 1.0
    first = -0.5 * (1.0 + 0.9 * speeds[0])
    np.testing.assert_allclose(
        well(together(1, run))[0], [first, first - 0.5 * (1.0 + 0.9 * speeds[1])], rtol=1e-6
    )


@pytest.mark.parametrize("name", ("float32", "int8", "sparseloco", "rank-2"))
@pytest.mark.parametrize(("fragments", "delay"), ((1, 0), (3, 0), (1, 2), (3, 2)))
def test_ranks_are_the_same_after_a_meeting_however_they_travel(name, fragments, delay):
    config = LocalSteps(period=4, averaging=averaging_of(name), fragments=fragments, delay=delay)

    def run(group):
        parameters = start()
        walk = Walk(parameters, group, config)
        apart = []
        for step in range(11):
            wander(parameters, group.rank, step)
            walk.after_step()
            apart.append(flat(parameters).copy())
        walk.meet()
        walk.close()
        return flat(parameters), apart

    one, other = well(together(2, run))
    np.testing.assert_array_equal(one[0], other[0])
    assert any((a != b).any() for a, b in zip(one[1], other[1]))


def test_what_a_rank_went_meanwhile_is_kept():
    """Ways that travel for a step: what came is added to what was gone since."""
    config = LocalSteps(period=3, averaging=Exact(), decay=1.0, delay=1)

    def run(group):
        parameter = np.zeros(1, np.float32)
        walk = Walk([parameter], group, config)
        for _ in range(4):
            parameter += (
                1.0 + group.rank
            )  # 3 or 6 at the meeting: 4.5, and one more step of its own
            walk.after_step()
        walk.close()
        return float(parameter[0])

    assert well(together(2, run)) == [5.5, 6.5]


def test_it_goes_on_exactly_from_its_state():
    config = LocalSteps(period=2, averaging=averaging_of("sparseloco"), momentum=0.5, rate=0.7)

    def run(group):
        ends = []
        parameters = start()
        walk = Walk(parameters, group, config)
        for step in range(3):
            wander(parameters, group.rank, step)
            walk.after_step()
        state, kept = walk.state(), [one.copy() for one in parameters]
        for again in (False, True):
            if again:
                walk.close()
                parameters = kept
                walk = Walk(parameters, group, config)
                walk.load(state)
            for step in range(3, 7):
                wander(parameters, group.rank, step)
                walk.after_step()
            ends.append(flat(parameters).copy())
        walk.close()
        np.testing.assert_array_equal(*ends)

    well(together(2, run))


def test_a_state_while_something_travels_is_refused():
    def run(group):
        parameters = start()
        walk = Walk(parameters, group, LocalSteps(period=3, averaging=Exact(), delay=2))
        for _ in range(3):
            walk.after_step()
        with pytest.raises(RuntimeError, match="travels"):
            walk.state()
        with pytest.raises(ValueError, match="another model"):
            walk.load({"step": np.array(1)})
        walk.meet()
        walk.close()

    well(together(2, run))


def test_paddles_parameters_meet_in_place():
    def run(group):
        parameters = [paddle.zeros([3, 2]), paddle.ones([4], "bfloat16")]
        walk = Walk(parameters, group, LocalSteps(period=1, averaging=Exact()))
        for one in parameters:
            view_of(one)[...] += group.rank
        walk.after_step()
        walk.close()
        return parameters[0].numpy(), parameters[1].astype("float32").numpy()

    for one, other in well(together(2, run)):
        assert (one == 0.5).all() and (other == 1.5).all()


@pytest.mark.parametrize("parts", (1, 2, 3, 5))
def test_fragments_are_of_about_one_size_and_have_all(parts):
    arrays = [np.zeros(size) for size in (1, 100, 3, 90, 2, 110, 95)]
    found = _divided(arrays, parts)
    assert [id(one) for part in found for one in part] == [id(one) for one in arrays]
    assert all(found) and len(found) == parts
    assert max(sum(one.size for one in part) for part in found) <= 401 / parts + 110


@pytest.mark.parametrize(
    ("options", "words"),
    (
        ({"period": 0}, "period"),
        ({"fragments": 40}, "fragments"),
        ({"delay": 30}, "delay"),
        ({"momentum": 1.0}, "momentum"),
        ({"decay": 0.0}, "decay"),
        ({"rate": 0.0}, "rate"),
    ),
)
def test_what_is_not_possible_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        LocalSteps(**options)
