"""Who is put out, from numbers."""

import numpy as np
import pytest
from oarlock.fleet_ext.elastic.stragglers import Patience, Stragglers, judged, link_seconds

QUICK = Patience(factor=1.5, seconds=0.0, steps=3)


def reading(size, slow=(), up=0.0, down=0.0, usual=0.001):
    """Seconds of reading, [size, size]: what `slow` send and receive takes longer."""
    found = np.full((size, size), usual)
    for rank in slow:
        found[:, rank] += up
        found[rank, :] += down
    np.fill_diagonal(found, 0.0)
    return found


def rows(step, work, read):
    return np.column_stack([np.full(len(work), step), work, read])


def ranks(found):
    return [(one.rank, one.part) for one in found]


@pytest.mark.parametrize(
    ("step", "work", "read", "spares", "least", "who"),
    (
        # All alike.
        (0.1, [0.09] * 4, reading(4), 1, 2, []),
        # A slow processor, with a spare and without.
        (0.3, [0.1, 0.29, 0.1], reading(3), 1, 2, [(1, "work")]),
        (0.3, [0.1, 0.29, 0.1], reading(3), 0, 2, [(1, "work")]),
        (0.2, [0.1, 0.19, 0.1], reading(3), 1, 2, [(1, "work")]),
        (0.2, [0.1, 0.19, 0.1], reading(3), 0, 2, []),  # two would do 1.27 times as much
        (0.3, [0.1, 0.29, 0.1], reading(3), 0, 3, []),  # the smallest size
        # A stall that all share: a disk, say.
        (2.1, [2.0, 2.05, 2.02], reading(3), 1, 2, []),
        # A slow link: one way, the other, both.
        (0.2, [0.1] * 3, reading(3, [2], up=0.09), 1, 2, [(2, "link")]),
        (0.2, [0.1] * 3, reading(3, [0], down=0.09), 1, 2, [(0, "link")]),
        (0.2, [0.01] * 4, reading(4, [3], up=0.19, down=0.19), 0, 2, [(3, "link")]),
        # Its transfers one after the other, each a part of the time.
        (0.2, [0.01] * 4, reading(4, [3], up=0.06), 1, 2, [(3, "link")]),
        # Behind the computation it costs nothing.
        (0.2, [0.195] * 3, reading(3, [2], up=0.15), 1, 2, []),
        # All links are slow, or the way between two others is, or there are but two.
        (0.2, [0.01] * 3, reading(3, usual=0.19), 1, 2, []),
        (0.2, [0.01] * 4, np.array([[0, 0.19, 0, 0], [0.19, 0, 0, 0], [0] * 4, [0] * 4]), 1, 2, []),
        (0.2, [0.01] * 2, reading(2, [1], up=0.19), 1, 1, []),
        # Messages that take long to arrive, but not to be read, are nobody's fault.
        (0.2, [0.01] * 3, np.array([[0, 1, 2], [1, 0, 3], [2, 2, 0]]) * 1e-5, 1, 2, []),
        # Two at once, with and without two spares.
        (0.5, [0.1, 0.49, 0.48, 0.1], reading(4), 2, 2, [(1, "work"), (2, "work")]),
        (0.5, [0.1, 0.49, 0.48, 0.1], reading(4), 0, 2, [(1, "work"), (2, "work")]),
        (0.5, [0.1, 0.49, 0.48, 0.1], reading(4), 0, 3, []),
        # The slower of two first, where that is worth it.
        (0.5, [0.1, 0.49, 0.3, 0.1], reading(4), 2, 2, [(1, "work")]),
        # A slow processor reads slowly, too.
        (0.4, [0.1, 0.3, 0.1], reading(3, [1], down=0.05), 1, 2, [(1, "work")]),
        (0.1, [0.1], np.zeros((1, 1)), 1, 1, []),
    ),
)  # fmt: skip
def test_who_is_slow(step, work, read, spares, least, who):
    found = judged(step, np.array(work), read, spares=spares, least=least, factor=1.5)
    assert ranks(found) == who
    assert all(one.factor >= 1.5 for one in found)


def test_the_gain_is_what_the_others_would_do():
    (found,) = judged(0.3, np.array([0.1, 0.3, 0.1]), reading(3), spares=1, least=2, factor=1.5)
    assert found.factor == pytest.approx(3.0)
    (found,) = judged(0.3, np.array([0.1, 0.3, 0.1]), reading(3), spares=0, least=2, factor=1.5)
    assert found.factor == pytest.approx(2.0)
    assert found.told("b").startswith("node b holds the others up by its own work")


def test_a_link_is_as_slow_as_its_best_way():
    found = link_seconds(reading(3, [1], up=1.0))
    np.testing.assert_allclose(found, [0.001, 1.001, 0.001])


def test_patience_lasts_so_many_steps_in_a_row():
    slow = rows(0.3, [0.1, 0.29, 0.1], reading(3))
    fine = rows(0.1, [0.09, 0.09, 0.09], reading(3))
    stragglers = Stragglers(QUICK, 3, 2, ())
    said = [ranks(stragglers.add(one, 1)) for one in (slow, slow, fine, slow, slow, slow)]
    assert said == [[]] * 5 + [[(1, "work")]]


def test_patience_lasts_so_many_seconds():
    stragglers = Stragglers(Patience(seconds=3.0, steps=5), 3, 2, ())
    slow = rows(0.25, [0.05, 0.24, 0.05], reading(3))
    counts = [number for number in range(1, 40) if stragglers.add(slow, 1)]
    assert 0.25 * counts[0] >= 3.0 and counts[0] == 15  # five stretches of three steps


def test_one_long_stall_puts_nobody_out():
    stragglers = Stragglers(QUICK, 3, 2, ())
    fine = rows(0.1, [0.09, 0.09, 0.09], reading(3))
    stall = rows(60.0, [0.09, 59.9, 0.09], reading(3))
    assert not any(stragglers.add(one, 1) for one in [fine, stall, fine] * 5)


def test_a_rank_whose_nodes_are_slow_one_after_the_other_has_more_patience():
    slow = rows(0.3, [0.1, 0.29, 0.1], reading(3))
    for before, needed in (((), 3), ((1,), 6), ((1, 0, 1), 12), ([1] * 50, 3 * 2**7)):
        stragglers = Stragglers(QUICK, 3, 2, before)
        assert next(n for n in range(1, 10_000) if stragglers.add(slow, 1)) == needed


def test_the_first_step_of_an_epoch_says_nothing():
    stragglers = Stragglers(Patience(factor=1.5, seconds=0.0, steps=1), 3, 2, ())
    assert not stragglers.add(np.zeros((3, 5)), 1)


@pytest.mark.parametrize(
    ("options", "words"),
    (
        ({"factor": 1.0}, "factor"), ({"seconds": -1.0}, "seconds"), ({"steps": 0}, "steps"),
        ({"rest": 0.0}, "rest"), ({"rest": 9.0, "longest_rest": 8.0}, "longest_rest"),
    ),
)  # fmt: skip
def test_patience_is_checked(options, words):
    with pytest.raises(ValueError, match=words):
        Patience(**options)
