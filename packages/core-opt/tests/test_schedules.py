"""Learning-rate schedules."""

import math

import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oarlock.core_opt.optim import schedules


def rates(scheduler, steps):
    found = []
    for _ in range(steps):
        found.append(scheduler())
        scheduler.step()
    return found


def test_wsd():
    found = rates(schedules.WSD(1.0, 10, warmup_steps=2, decay_steps=4), 12)
    assert found == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0, 0])


def test_wsd_with_a_floor_decays_over_a_fifth():
    found = rates(schedules.WSD(2.0, 10, final_factor=0.1), 11)
    assert found == pytest.approx([2.0] * 9 + [1.1, 0.2])


def test_wsd_decays_as_its_sources_do():
    root = rates(schedules.WSD(1.0, 8, decay_steps=4, decay="sqrt"), 9)
    assert root == pytest.approx([1] * 5 + [0.5, 1 - 0.5**0.5, 1 - 0.75**0.5, 0])
    curve = rates(schedules.WSD(2.0, 8, decay_steps=4, final_factor=0.0625, decay="exponential"), 9)
    assert curve == pytest.approx([2] * 5 + [1, 0.5, 0.25, 0.125])


def test_cosine():
    found = rates(schedules.WarmupCosine(1.0, 12, warmup_steps=4, final_factor=0.1), 14)
    assert found[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert found[8] == pytest.approx(0.55)
    assert found[6] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert found[12:] == pytest.approx([0.1, 0.1])


def test_linear_to_zero():
    found = rates(schedules.LinearToZero(1.0, 5, warmup_steps=1), 7)
    assert found == pytest.approx([1, 1, 0.75, 0.5, 0.25, 0, 0])


def test_power_cool():
    found = rates(schedules.PowerCool(1.0, 10, warmup_steps=2, cooldown_steps=4, power=2.0), 12)
    assert found == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.5625, 0.25, 0.0625, 0, 0])
    whole = rates(schedules.PowerCool(2.0, 4, final_factor=0.1), 5)
    assert whole == pytest.approx([0.2 + 1.8 * (left / 4) ** 1.5 for left in (4, 3, 2, 1, 0)])
    linear = schedules.PowerCool(1.0, 10, cooldown_steps=4, power=1.0)
    assert rates(linear, 11) == pytest.approx(rates(schedules.WSD(1.0, 10, decay_steps=4), 11))


@settings(max_examples=100, deadline=None)
@given(
    total=st.integers(1, 300),
    warm=st.floats(0, 0.99),
    cool=st.floats(0.01, 1.0),
    final=st.floats(0.0, 1.0),
    power=st.floats(0.1, 5.0),
)
def test_every_schedule_falls_from_the_peak_to_its_end(total, warm, cool, final, power):
    warmup = int(warm * total)
    down = max(1, int(cool * (total - warmup)))
    built = [
        (schedules.WSD(3.0, total, warmup_steps=warmup, decay_steps=down, final_factor=final), 0),
        (schedules.WarmupCosine(3.0, total, warmup_steps=warmup, final_factor=final), 0),
        (schedules.LinearToZero(3.0, total, warmup_steps=warmup), -final),
        (
            schedules.PowerCool(
                3.0, total, warmup_steps=warmup, cooldown_steps=down, power=power,
                final_factor=final,
            ),
            0,
        ),
    ]  # fmt: skip
    for schedule, shift in built:
        found = rates(schedule, total + 3)
        rising, falling = found[: warmup + 1], found[warmup:]
        assert falling[0] == pytest.approx(3.0)  # the first step after the warm-up has the peak
        assert all(a < b for a, b in zip(rising[:-1], rising[1:-1])) and max(found) <= 3.0 + 1e-9
        assert all(a >= b - 1e-12 for a, b in zip(falling, falling[1:]))
        assert found[total:] == pytest.approx([3.0 * (final + shift)] * 3)


def test_state_is_restored():
    first = schedules.WSD(1.0, 10, warmup_steps=2)
    rates(first, 9)
    second = schedules.WSD(1.0, 10, warmup_steps=2)
    second.set_state_dict(first.state_dict())
    assert second() == first() and rates(second, 2) == rates(first, 2)


def test_they_are_paddle_schedulers():
    layer = paddle.nn.Linear(2, 2)
    scheduler = schedules.WSD(0.1, 10, warmup_steps=5)
    optimizer = paddle.optimizer.SGD(scheduler, parameters=layer.parameters())
    assert optimizer.get_lr() == pytest.approx(0.02)


@pytest.mark.parametrize(
    "build,message",
    [
        (lambda: schedules.WSD(-1.0, 10), "learning_rate"),
        (lambda: schedules.WSD(1.0, 0), "total_steps"),
        (lambda: schedules.WSD(1.0, 10, warmup_steps=10), "warmup_steps"),
        (lambda: schedules.WSD(1.0, 10, warmup_steps=50), r"^warmup_steps .* \(10\), got 50"),
        (lambda: schedules.WSD(1.0, 10, warmup_steps="5"), "^warmup_steps"),
        (lambda: schedules.WSD(1.0, 10, warmup_steps=9), r"got 2 \(by default, a fifth"),
        (lambda: schedules.WSD(1.0, 10, warmup_steps=5, decay_steps=6), "decay_steps"),
        (lambda: schedules.WSD(1.0, 10, final_factor=1.5), "final_factor"),
        (lambda: schedules.WSD(1.0, 10, decay="cosine"), "^decay must be"),
        (lambda: schedules.WSD(1.0, 10, decay="exponential"), "^final_factor must be above 0"),
        (lambda: schedules.WarmupCosine(1.0, 10.0), "total_steps"),
        (lambda: schedules.WarmupCosine(1.0, 10, final_factor=-1), "final_factor"),
        (lambda: schedules.PowerCool(1.0, 10, power=0.0), "^power"),
        (lambda: schedules.PowerCool(1.0, 10, cooldown_steps=0), "^cooldown_steps"),
        (lambda: schedules.PowerCool(1.0, 10, warmup_steps=5, cooldown_steps=6), "at most .* 5"),
        (lambda: schedules.PowerCool(1.0, 10, final_factor=math.nan), "final_factor"),
        (lambda: schedules.LinearToZero("1", 10), "learning_rate"),
        (lambda: schedules.LinearToZero(1.0, 10, warmup_steps=-1), "warmup_steps"),
    ],
)
def test_wrong_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()
