"""Arms take turns in a reversing order, and times are those of a known clock."""

import pytest

from oarlock.accept.measure import timing
from oarlock.accept.measure.timing import Timings, paired


class Clock:
    """A clock that only moves when something works or sleeps."""

    def __init__(self, monkeypatch):
        self.wall = self.cpu = 0.0
        self.slept = 0.0
        self.trace = []
        monkeypatch.setattr(timing, "perf_counter", lambda: self.wall)
        monkeypatch.setattr(timing, "process_time", lambda: self.cpu)
        monkeypatch.setattr(timing, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.trace.append("sleep")
        self.wall += seconds
        self.slept += seconds

    def arm(self, name: str, wall: float, cpu: float):
        def work():
            self.trace.append(name)
            self.wall += wall
            self.cpu += cpu

        return work


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_the_order_reverses_each_round(clock):
    arms = {name: clock.arm(name, 1, 1) for name in "ABC"}
    paired(arms, rounds=3, warmup=0)
    assert "".join(clock.trace) == "ABC" "CBA" "ABC"


def test_two_arms_are_abba_whatever_the_warmup(clock):
    for warmup in (0, 1, 2):
        clock.trace.clear()
        paired({"A": clock.arm("A", 1, 1), "B": clock.arm("B", 1, 1)}, rounds=2, warmup=warmup)
        assert "".join(clock.trace)[-4:] == "ABBA"
        assert len(clock.trace) == 2 * (2 + warmup)


def test_times_are_those_of_the_clock_without_pauses_and_warmup(clock):
    seen = []
    arms = {"base": clock.arm("base", 3.0, 5.0), "ours": clock.arm("ours", 2.0, 1.0)}
    timings = paired(arms, rounds=4, warmup=1, settle_s=0.5, on_round=lambda *at: seen.append(at))
    assert timings.wall == {"base": (3.0,) * 4, "ours": (2.0,) * 4}
    assert timings.cpu["ours"] == (1.0,) * 4
    assert clock.slept == 0.5 * 2 * 5
    assert seen == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    ratio = timings.ratio("base", "ours")
    assert (ratio.value, ratio.ci, ratio.n) == (1.5, (1.5, 1.5), 4)
    assert timings.ratio("base", "ours", "cpu").value == 5.0
    assert timings.median("base", "cpu") == 5.0


def test_an_arm_may_bring_its_own_times(clock):
    def worker():
        clock.wall += 100
        return {"wall_s": 0.25, "cpu_s": 0.5, "loss": 1.0}

    timings = paired({"worker": worker}, rounds=2, warmup=0)
    assert timings.wall["worker"] == (0.25, 0.25)
    assert timings.cpu["worker"] == (0.5, 0.5)


def test_a_drift_of_the_machine_does_not_favour_an_arm(clock):
    """The machine slows down by 10 % with every call; ABBA cancels it, AB AB would not."""
    calls = 0

    def work():
        nonlocal calls
        calls += 1
        clock.wall += 1.1**calls

    timings = paired({"a": work, "b": work}, rounds=10, warmup=0)
    assert timings.ratio("a", "b").value == pytest.approx(1.0, rel=0.01)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="arms must name"):
        paired({}, rounds=1)
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        paired({"a": lambda: None}, rounds=0)
    timings = Timings(wall={"a": (1.0,)}, cpu={"a": (1.0,)})
    with pytest.raises(ValueError, match="no arm 'b'; arms are: a"):
        timings.median("b")
    with pytest.raises(ValueError, match="clock must be"):
        timings.median("a", "gpu")  # type: ignore[arg-type]


def test_real_work_is_timed():
    def work():
        return sum(range(300_000))

    timings = paired({"work": work, "nothing": lambda: None}, rounds=3)
    assert timings.ratio("work", "nothing").low > 10
    assert timings.median("work", "cpu") > 0
