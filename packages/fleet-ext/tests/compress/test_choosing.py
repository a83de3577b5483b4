"""Training in which each bucket's code is chosen, and chosen anew."""

import time

import numpy as np
import paddle
import pytest
from oarlock.fleet_ext.compress import Adaptive, wrap
from oarlock.fleet_ext.compress.adaptive import Link
from oarlock.fleet_ext.compress.pace import Pace, Timed

from one_model import again, flat, loss_of, model, more, trained
from ranks import together, well


@pytest.mark.parametrize("until", (1, 2, 5, 7))
@pytest.mark.parametrize("period", (1, 3))
def test_adaptive_goes_on_exactly_from_its_state(period, until, monkeypatch):
    """What is sent differs from look to look; looks see what they would have seen."""
    from oarlock.fleet_ext.compress import adaptive

    seen = []

    def planned(trials, link, pace, **limits):
        assert pace.computed > 0
        seen.append([one.ways["int4"].left for one in trials])
        way = "int4" if all(one.ways["int4"].left > 0 for one in trials) else "bf16"
        choices = [adaptive.Choice(1, way, 0.0, 0.0, 0.0) for _ in trials]
        return adaptive.Plan(choices, period, link, pace)

    monkeypatch.setattr(adaptive, "time_link", lambda group, before: Link(1e-6, 1e9))
    monkeypatch.setattr(adaptive, "plan", planned)
    strategy = Adaptive(look=2, again=4)  # behind steps 2, 4, 8

    def run(group):
        net, optimizer = trained(group, strategy, until)
        more(net, optimizer, group, range(until, 10))
        optimizer.close()
        other, optimizer = trained(group, strategy, until)
        optimizer = again(other, optimizer, group, strategy)
        more(other, optimizer, group, range(until, 10))
        assert "int4" in optimizer.report()
        optimizer.close()
        np.testing.assert_array_equal(flat(net), flat(other))

    well(together(2, run))
    assert len(seen) == 6
    assert seen[:3] == seen[3:]


def test_ranks_that_went_alone_are_one_again(monkeypatch):
    from oarlock.fleet_ext.compress import adaptive

    periods = iter((3, 1, 1))

    def planned(trials, link, pace, **limits):
        choices = [adaptive.Choice(1, "float32", 0.0, 0.0, 0.0) for _ in trials]
        return adaptive.Plan(choices, next(periods), link, pace)

    monkeypatch.setattr(adaptive, "time_link", lambda group, before: Link(1e-6, 1e9))
    monkeypatch.setattr(adaptive, "plan", planned)

    def run(group):
        net, optimizer = trained(group, Adaptive(look=2, again=10), 3)
        alone = flat(net)
        more(net, optimizer, group, range(3, 10))
        optimizer.close()
        return alone, flat(net)

    (one, here), (other, there) = well(together(2, run))
    assert (one != other).any()
    np.testing.assert_array_equal(here, there)


def test_what_steps_took_is_remembered_by_their_plans(monkeypatch):
    from oarlock.fleet_ext.compress import adaptive

    ways, seen = iter(("int4", "bf16", "int4", "int4")), []

    def timed(whole, ways, trials, link, pace):
        assert whole > 0
        return Timed(len(seen), 0.0, ()) if set(ways) == {"int4"} else Timed(0.5, 0.0, ())

    def fitted(pace, timed):
        seen.append([one.extra for one in timed])
        return pace

    def planned(trials, link, pace, **limits):
        way = next(ways)
        choices = [adaptive.Choice(1, way, 0.0, 0.0, 0.0) for _ in trials]
        return adaptive.Plan(choices, 1, link, pace)

    monkeypatch.setattr(adaptive, "time_link", lambda group, before: Link(1e-6, 1e9))
    monkeypatch.setattr(adaptive, "timed", timed)
    monkeypatch.setattr(Pace, "fitted", fitted)
    monkeypatch.setattr(adaptive, "plan", planned)

    def run(group):
        net, optimizer = trained(group, Adaptive(look=6, again=7), 30)  # behind 6, 12, 19, 26
        optimizer.close()

    well(together(1, run))
    # As int8; then of int4, of bf16, and of int4 again, which is the last one then.
    assert seen == [[0.5], [0.5, 1], [0.5, 1, 0.5], [0.5, 0.5, 3]]


@pytest.mark.parametrize("rate", (1e12, 1e2))
def test_an_adaptive_run_sends_what_the_link_has_time_for(rate, monkeypatch):
    from oarlock.fleet_ext.compress import adaptive

    monkeypatch.setattr(adaptive, "time_link", lambda group, before: Link(1e-6, rate))

    def run(group):
        net, optimizer = trained(group, Adaptive(look=2, again=6), 14, rate=0.01)
        optimizer.finish()
        plan = optimizer.plan
        optimizer.close()
        return flat(net), plan

    found = well(together(2, run))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    plan = found[0][1]
    assert plan == found[1][1]
    nothing_left = not any(
        one.left for one in plan.choices
    )  # low rank sends small matrices as they are
    assert nothing_left == (rate == 1e12) and (plan.period > 1) == (rate == 1e2)


def test_a_later_look_is_at_gradients_not_at_what_a_code_left_of_them(monkeypatch):
    from oarlock.fleet_ext.compress import adaptive, wrapping

    seen, tried_together = [], wrapping.tried_together

    def tried(group, samples):
        seen.extend(one.gradient.copy() for one in samples.values())
        return tried_together(group, samples)

    def planned(trials, link, pace, **limits):
        choices = [adaptive.Choice(1, "1-bit", 0.0, 0.0, 0.0) for _ in trials]
        return adaptive.Plan(choices, 1, link, pace)

    monkeypatch.setattr(wrapping, "tried_together", tried)
    monkeypatch.setattr(adaptive, "plan", planned)

    def run(group):
        _, optimizer = trained(group, Adaptive(look=1), 3)
        optimizer.close()

    well(together(2, run))
    assert len(seen) >= 2  # behind steps 1 and 2
    for one in seen:
        assert len(np.unique(np.abs(one))) > 0.5 * one.size  # a bit has few magnitudes


def test_looks_are_soon_at_first(monkeypatch):
    from oarlock.fleet_ext.compress import adaptive

    def run(group):
        looks = []
        timed = lambda group, before: looks.append(step) or Link(1e-6, 1e9)  # noqa: E731
        monkeypatch.setattr(adaptive, "time_link", timed)
        net = model()
        made = paddle.optimizer.SGD(parameters=net.parameters())
        optimizer = wrap(net, made, group, Adaptive(look=2, again=10))
        for step in range(1, 41):
            loss_of(net, [0], step).backward()
            optimizer.step()
            optimizer.clear_grad()
        optimizer.close()
        return looks

    assert well(together(1, run)) == [[2, 4, 8, 16, 26, 36]]


def test_a_first_step_does_not_set_the_pace():
    def run(group):
        net = model()
        made = paddle.optimizer.AdamW(parameters=net.parameters())
        optimizer = wrap(net, made, group, Adaptive(look=3))
        until = time.thread_time() + 0.5
        while time.thread_time() < until:
            pass  # what a first step does beside: memory, kernels
        for step in range(3):
            loss_of(net, [0], step).backward()
            optimizer.step()
            optimizer.clear_grad()
        optimizer.close()
        return optimizer.plan.pace.computed

    assert well(together(1, run))[0] < 0.25
