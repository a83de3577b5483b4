"""The choice of codes."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from oarlock.fleet_ext.compress import averaging_of, trials
from oarlock.fleet_ext.compress.adaptive import Choice, Link, agreed, plan, time_link, timed
from oarlock.fleet_ext.compress.averaging import Layout
from oarlock.fleet_ext.compress.clocks import Clocks
from oarlock.fleet_ext.compress.pace import Pace, Timed
from oarlock.fleet_ext.compress.trials import (
    CANDIDATES,
    Sample,
    Trial,
    Trials,
    tried,
    tried_together,
)
from oarlock.fleet_ext.transport import Mesh, MeshGroup

from ranks import together, well

SHAPES = ([(256, 200)], [(128, 100), (100,)], [(64,)])


@pytest.fixture
def samples():
    found = []
    for number, shapes in enumerate(SHAPES):
        count = sum(int(np.prod(shape)) for shape in shapes)
        gradient = 10.0**-number * np.random.default_rng(number).standard_normal(count)
        found.append(Sample(shapes, gradient.astype(np.float32)))
    return found


@pytest.fixture
def steady(monkeypatch):
    """Trials whose seconds do not depend on what else the machine does."""

    def counted(averaging, sample, size):
        nanoseconds = (1 if averaging.name == "float32" else 3) * sample.gradient.size
        return replace(tried(averaging, sample, size), seconds=1e-9 * nanoseconds)

    monkeypatch.setattr(trials, "tried", counted)


def planned(samples, link, size, pace, ways=None, **limits):
    return plan([Trials.of(one, size, ways) for one in samples], link, pace, **limits)


def step(computed=0.1, window=0.0, share=1.0, buckets=len(SHAPES)):
    """One whose buckets are whole at the same time."""
    return Pace(computed, (window,) * buckets, share)


def test_a_pace_is_that_of_the_thread_that_computes():
    spent = Clocks(
        wall=1.0, process=0.5, thread=0.3
    )  # half a core, of which codes and messages had 0.2 s
    pace = Pace.of(spent, (0.5, 0.1), 2)
    assert pace.plain == pytest.approx([0.6, 2.0, 2, 1.0, 1.0, 0.0, 0.3, 0.06])
    assert Pace.of_plain(pace.plain) == pace
    alone = Pace.of(Clocks(wall=1.0, process=2.0, thread=0.9), (0.5,), 1)
    assert alone == Pace(0.9, (0.45,), 0.5, 1)
    others = [Pace(0.1, (0.1, 0.9), 1.0, 2), Pace(9.0, (9.0, 0.0), 9.0, 2)]
    assert Pace.typical([pace, *others]) == pace


def test_messages_are_late_by_those_behind_them():
    """The third bucket is whole with the last gradient; the first has time for all of its own."""
    pace = Pace(1.0, (0.6, 0.2, 0.0), hidden=0.5)
    assert pace.late([0.1, 0.3, 0.05]) == pytest.approx([0.45 - 0.3, 0.35 - 0.1, 0.05])
    both = pace.late([0.1, 0.3, 0.05], np.array([0.0, 1.0]))
    np.testing.assert_allclose(both, [[0.45, 0.35, 0.05], [-0.15, 0.15, 0.05]])


def test_what_steps_should_take_is_what_trials_say():
    """Two buckets, each with 0.1 s of a processor, of which a second costs two but for the last, and 0.3 s of messages."""
    made_of = [Trials(1, 1.0, {"one": Trial(0.08, 0.0, 300, rounds=2)})] * 2
    link, pace = Link(0.0, 1000.0, turn=0.01), Pace(1.0, (0.5, 0.0), 2.0, overhead=3.0, skew=0.2)
    found = timed(1.7, ["one", "one"], made_of, link, pace)
    assert [found.extra, found.coding, *found.travels] == pytest.approx([0.7, 0.3, 0.3, 0.3])
    made = plan(made_of, link, replace(pace, hidden=0.4, overhead=1.5))
    assert made.extra == pytest.approx(0.2 + 0.45 + 0.6 - 0.2)
    said = str(made)
    assert "codes take 1.5 times their" in said and "wait 200 ms" in said
    rooms = [line.split()[-3] for line in said.splitlines() if " one " in line]
    assert rooms == ["200", "0"]


@pytest.mark.parametrize("share", (0.5, 2.0))
def test_the_last_bucket_has_no_others_to_wait_beside(share):
    made_of = [Trials(1, 1.0, {"one": Trial(0.1, 0.0, 0, rounds=6)})] * 2
    link, pace = Link(0.01, 1000.0), Pace(1.0, (0.5, 0.0), share, lanes=4)
    found = timed(1.0, ["one", "one"], made_of, link, pace)
    assert found.travels == pytest.approx((0.015, 0.06))
    assert found.coding == pytest.approx(0.1 * share + 0.1)


@pytest.mark.parametrize("overhead, hidden, skew", [(1.0, 1.0, 0.0), (1.9, 1.0, 0.0), (1.0, 0.3, 0.0), (1.9, 0.5, 0.1), (2.0, 0.0, 0.0), (1.0, 1.0, 0.15)])  # fmt: skip
def test_steps_of_different_plans_tell_what_codes_and_messages_cost(overhead, hidden, skew):
    pace = Pace(1.0, (0.6, 0.0), 2.0)
    plans = [(0.2, (0.3, 0.1)), (0.3, (0.05, 0.0)), (0.1, (1.2, 0.0)), (0.4, (0.1, 0.0))]
    steps = [
        Timed(
            skew + overhead * coding + max(0.0, sum(travels) - hidden * 0.6, travels[1]),
            coding,
            travels,
        )
        for coding, travels in plans
    ]
    found = pace.fitted(steps)
    assert found.overhead == pytest.approx(overhead, abs=0.15)
    assert found.hidden == pytest.approx(hidden, abs=0.15)
    assert found.skew == pytest.approx(skew, abs=0.1)
    assert pace.fitted([]) == pace
    slow = Pace(1e-3, (0.6, 0.0), 2.0).fitted([Timed(100.0, 0.01, (0.0, 0.0))])
    assert slow.overhead == pytest.approx(4.0)  # and not more, whatever else took the time


def test_steps_of_one_plan_leave_open_what_was_slow():
    """Ranks are blamed for each other first; and what a plan is expected to take is what it took."""
    pace = Pace(1.0, (0.5,), 2.0)
    found = pace.fitted([Timed(0.4, 0.2, (0.3,))])
    assert found.skew == pytest.approx(0.2, abs=0.05) and found.overhead < 1.2
    again = pace.fitted([Timed(0.9, 0.2, (0.3,))])
    waiting = max(0.0, float(again.late([0.3])[0]))
    assert again.skew + again.overhead * 0.2 + waiting == pytest.approx(0.9, abs=0.05)
    assert pace.fitted([Timed(0.15, 0.2, (0.3,))]) == pace


def test_what_is_left_out_counts_by_its_weight():
    """Zeroes the small half, which is all that matters."""
    gradient = np.array([3.0, 4.0, 0.1, 0.2], np.float32)
    weights = np.array([0.0, 0.0, 1.0, 4.0], np.float32)
    sample = Sample([(4,)], gradient, weights)
    other = np.array([1.0, 1.0, 1.0, 2.0], np.float32)
    assert sample.product(gradient, other) == pytest.approx(0.1 + 1.6)
    assert Sample([(4,)], gradient).product(gradient, other) == pytest.approx(7.5)
    top = averaging_of("top-50%")
    assert tried(top, sample, 2).left == pytest.approx(1.0)
    assert tried(top, Sample([(4,)], gradient), 2).left == pytest.approx(0.05 / 25.05)


def test_a_fast_link_sends_everything(samples):
    made = planned(samples, Link(1e-5, 1e12), 4, step(10.0))
    assert [one.left for one in made.choices] == [0.0] * 3 and made.period == 1


def test_a_slow_link_gets_codes_and_says_when_that_is_not_enough(samples, steady):
    rates = (1e12, 3e6, 3e5, 1e4)
    plans = [planned(samples, Link(1e-4, rate), 4, step()) for rate in rates]
    left = [
        sum(one.left * 100.0**-number for number, one in enumerate(made.choices)) for made in plans
    ]
    assert left == sorted(left) and left[-1] > 0.1
    assert all(made.extra <= 0.11 or made.period > 1 for made in plans)
    assert plans[-1].period > 1 and "steps alone" in str(plans[-1])
    assert plans[0].period == 1 and "alone" not in str(plans[0])
    for made in plans:
        assert all(one.averaging in str(made) for one in made.choices)


def test_messages_beside_the_backward_pass_cost_nothing(samples, steady):
    link = Link(1e-4, 1e6)
    sent = sum(averaging_of("float32").traffic(one.shapes, 4) for one in samples) / link.rate
    hidden = planned(samples, link, 4, step(10.0, window=1.1 * sent), slack=0.01)
    assert all(one.averaging == "float32" for one in hidden.choices)
    assert any(one.left > 0 for one in planned(samples, link, 4, step(10.0), slack=0.001).choices)


def test_codes_cost_the_processor_that_is_short(samples, monkeypatch):
    """Two codes: one is quick to write, the other is short; a bucket that is not the last."""
    found = {"quick": Trial(0.001, 0.1, 1_000_000), "short": Trial(0.1, 0.05, 1_000)}
    monkeypatch.setattr(trials, "tried", lambda averaging, sample, size: found[averaging])
    ways = {name: name for name in found}  # stand-ins

    def chosen(rate, share):
        pace = step(1.0, share=share, buckets=2)
        made = planned(samples[:2], Link(0.0, rate), 4, pace, ways, slack=0.0)
        return made.choices[0].averaging

    assert chosen(1e7, 0.1) == "short" and chosen(1e7, 2.0) == "quick"
    assert chosen(1e6, 2.0) == "short"


@pytest.mark.parametrize("most", (0.0, 0.01, 0.5))
def test_no_more_is_left_out_than_may_be(samples, steady, most):
    made = planned(samples, Link(1e-4, 1e4), 4, step(), most_left=most)
    free = planned(samples, Link(1e-4, 1e4), 4, step())
    assert all(one.left <= max(most, 1e-12) for one in made.choices)
    assert made.period > free.period


def test_what_matters_less_is_given_up_first(samples, steady):
    """The large bucket has 10,000 times the square of the second."""
    link = Link(1e-5, 1e6)
    full = sum(averaging_of("float32").traffic(one.shapes, 4) for one in samples) / link.rate
    fastest = planned(samples, link, 4, step(1.0), slack=0.0).extra
    made = planned(samples, link, 4, step(1.0), slack=0.95 * full - fastest)
    assert made.choices[1].left > 0 and made.choices[0].left < 1e-3


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("windows", "margin"),
    (((0.0,) * 3, 0.0), ((0.03,) * 3, 0.01), ((0.05, 0.01, 0.0), 0.01), ((10.0,) * 3, 0.0)),
)
def test_nothing_that_is_as_fast_leaves_less(samples, monkeypatch, windows, margin, seed):
    """Against every combination, with the same trials; within a margin where messages just fit into their windows."""
    found, rng = {}, np.random.default_rng(seed)

    def once(averaging, sample, size):
        key = averaging.name, sample.gradient.size
        if key not in found:
            seconds = 1e-9 * sample.gradient.size * rng.uniform(1, 10)  # whatever the machine does
            found[key] = replace(tried(averaging, sample, size), seconds=seconds)
        return found[key]

    monkeypatch.setattr(trials, "tried", once)
    link, ways = Link(1e-4, 1e6), {name: averaging_of(name) for name in CANDIDATES}
    energy = [float(np.square(one.gradient, dtype=np.float64).sum()) for one in samples]
    options = [
        [
            (t.seconds, 1e-4 * t.rounds + t.traffic / 1e6, e * t.left)
            for t in (once(way, one, 4) for way in ways.values())
        ]
        for one, e in zip(samples, energy)
    ]
    all_ways = np.array(list(itertools.product(*options)))  # [combinations, buckets, 3]
    codings, travels, left = np.moveaxis(all_ways, -1, 0)
    late = np.cumsum(travels[:, ::-1], axis=1)[:, ::-1] - np.array(windows)
    costs = codings.sum(axis=1) + np.maximum(0.0, late.max(axis=1))
    lefts = left.sum(axis=1)
    for slack in (0.0, 0.05, 0.1, 0.2):
        made = planned(samples, link, 4, Pace(1.0, windows), ways, slack=slack)
        assert made.extra <= costs.min() + slack + margin + 1e-9
        lost = sum(e * one.left for e, one in zip(energy, made.choices))
        as_fast = costs <= max(costs.min(), made.extra - margin) + 1e-12
        assert lost <= lefts[as_fast].min() + 1e-9 * sum(energy)


def test_a_trial_tells_what_a_bucket_costs_a_rank_of_many(monkeypatch):
    """By a clock that goes on by 5 s for a mean, and by one for each rank's part of an element."""
    clock = [0.0]

    class Mean:
        def write(self, targets):
            clock[0] += sum(one.size for one in targets)

    class Averager:
        def __init__(self, shapes, group):
            self.layout, self.size = Layout(shapes), group.size

        def average(self, group, step, gradients):
            codes = [np.ones(10), np.ones(11)]
            came = [np.zeros(11), np.zeros(10)]
            assert group.all_to_all(codes, came).wait() is came
            assert [one.sum() for one in came] == [10, 10]
            assert group.all_gather(codes[1]).wait().shape == (group.size, 11)
            assert group.all_reduce(codes[1], "mean").wait() is codes[1]
            clock[0] += 5 + sum(one.size for one in gradients) / group.size
            return Mean()

        def close(self):
            pass

    class Way:
        def start(self, shapes, key, group):
            return Averager(shapes, group)

    monkeypatch.setattr(trials.time, "process_time", lambda: clock[0])
    sample = Sample([(100_000,)], np.ones(100_000, np.float32), others=[(900_000,)])
    assert trials._seconds_of_bucket(Way(), sample, 4) == pytest.approx(5 + 1e6 * 1.25, rel=0.03)


def test_a_single_quiet_moment_makes_no_way_fast(samples, monkeypatch):
    """Trials of one way that differ by less than the machine does are taken together, others not."""
    each = {10: 1.0, 20: 1.2, 30: 0.8, 40: 9.0}  # seconds for an element

    def run(group):
        mine = {
            number: Sample([(count,)], np.ones(count, np.float32))
            for number, count in enumerate(each)
        }
        return tried_together(group, mine)

    def tried(averaging, sample, size):
        count = sample.gradient.size
        return Trial(each[count] * count, 0.0, 4 * count)

    monkeypatch.setattr(trials, "tried", tried)
    (found,) = well(together(1, run))
    seconds = [one.ways["int8"].seconds for one in found]
    assert seconds == pytest.approx([1.1 * 10, 1.1 * 20, 1.1 * 30, 9.0 * 40])


def test_trials_leave_the_gradient_as_it_was(samples):
    before = samples[0].gradient.copy()
    found = tried(averaging_of("int4"), samples[0], 4)
    np.testing.assert_array_equal(samples[0].gradient, before)
    assert 0 < found.left < 0.05 and found.seconds > 0


def test_what_comes_late_counts_and_rounding_less():
    """Low rank and the largest leave what they do not send, int4 next to nothing but rounding."""
    rng = np.random.default_rng(3)
    gradient, earlier = (rng.standard_normal(4096).astype(np.float32) for _ in range(2))
    sample = Sample([(64, 64)], gradient, earlier=[earlier])
    codes = {
        name: tried(averaging_of(name), sample, 2).left for name in ("int4", "top-25%", "rank-8")
    }

    def square(name):
        """Of what is left, beside the gradient's."""
        with Mesh(0, 1) as mesh, MeshGroup(mesh, [0], "square") as alone:
            one = averaging_of(name).start(sample.shapes, 0, alone)
            for step, given in enumerate((earlier, gradient)):
                one.averaged(alone, step, given)
            left = one.left(alone).unsent
            one.close()
        return float(np.sum(left**2) / np.sum(gradient**2))

    for name in ("top-25%", "rank-8"):
        assert codes[name] == pytest.approx(square(name), rel=0.02) and codes[name] > 0.3
    assert 0.2 * square("int4") < codes["int4"] < 0.4 * square("int4")


def test_trials_know_what_adds_up_where_gradients_change():
    """A product of low rank follows directions that stay, of new ones it sends those of the step before."""
    rng, sizes = np.random.default_rng(0), 0.7 ** np.arange(50)
    turns = [np.linalg.qr(rng.standard_normal((2, 60, 50)))[0] for _ in range(3)]
    gradients = [((a * sizes) @ b.T).astype(np.float32).reshape(-1) for a, b in turns]
    last, shapes = gradients[-1], [(60, 60)]
    stay = Sample(shapes, last, earlier=[last, last])
    turn = Sample(shapes, last, earlier=gradients[:2])

    def left(way, sample):
        return tried(averaging_of(way), sample, 4).left

    assert left("rank-8", turn) > 3 * left("rank-8", stay)
    assert left("rank-8", Sample(shapes, last)) == pytest.approx(0.7**16, rel=0.2)
    assert left("int4", turn) == pytest.approx(left("int4", stay), rel=0.5)
    assert left("float32", turn) == 0.0


def test_ranks_share_the_trials(samples):
    def run(group):
        mine = {number: one for number, one in enumerate(samples) if number % 2 == group.rank}
        return tried_together(group, mine)

    found = well(together(2, run))
    assert found[0] == found[1]
    for shared, sample in zip(found[0], samples, strict=True):
        alone = Trials.of(sample, 2)
        assert (shared.elements, shared.square) == (alone.elements, pytest.approx(alone.square))
        assert list(shared.ways) == list(CANDIDATES)
        for name, one in shared.ways.items():
            assert one.left == pytest.approx(alone.ways[name].left)
            assert one.traffic == alone.ways[name].traffic and one.seconds > 0


def test_ranks_agree_on_a_plan_and_a_link():
    def run(group):
        link = time_link(group)
        again = time_link(group, before=link)
        assert link.rate / 30 < again.rate < 30 * link.rate and again.latency < 0.5
        made = None
        if group.rank == 0:
            sample = Sample([(50, 40)], np.ones(2000, np.float32))
            made = planned([sample], link, group.size, step(1.0, buckets=1))
        shared = agreed(group, made)
        return link, shared

    found = well(together(3, run))
    assert found[0] == found[1] == found[2]
    assert found[0][0].rate > 1e6 and 0 < found[0][0].latency < 0.5
    assert (
        isinstance(found[1][1].choices[0], Choice) and min(found[0][0].work, found[0][0].turn) > 0
    )
