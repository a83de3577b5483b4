"""What nodes say of themselves, and what is left of it in the store."""

import json
import time

import pytest
from oarlock.fleet_ext.telemetry import Events, Publisher, read_events
from oarlock.fleet_ext.telemetry.publishing import NODES, POINTS, SERIES, _Curve


def test_of_many_events_the_latest_are_kept(store):
    events = Events(store, "a", kept=3)
    for number in range(7):
        events.write("note", f"event {number}", step=number, nodes=["a", "b"])
    found = read_events(store.read("telemetry/")[1])
    assert [one.text for one in found] == ["event 4", "event 5", "event 6"]
    assert found[-1].step == 6 and found[-1].epoch is None and found[-1].nodes == ("a", "b")
    assert abs(found[-1].time - time.time()) < 60 and found[-1].node == "a"
    with pytest.raises(ValueError, match="kept"):
        Events(store, "a", kept=0)


def test_what_is_no_event_is_left_out(store):
    Events(store, "a").write("note", "x" * 10_000)
    for number, rubbish in enumerate((b"{", b"[]", b'{"time": "soon"}', b'{"time": NaN}')):
        store.set(f"telemetry/events/{number + 5:012d}", rubbish)
    found = read_events(store.read("telemetry/")[1])
    assert len(found) == 1 and len(found[0].text) == 2000


def test_steps_are_written_now_and_then_and_the_last_one_surely(store):
    before = store.read("")[0]
    with Publisher(store, "a", every=0.05) as publisher:
        for step in range(2000):
            publisher.step(step, loss=1.0 / (step + 1), epoch=3)
            if step % 100 == 0:
                time.sleep(0.01)
        publisher.epoch(4, ["a", "b"], "node c is gone", step=2000, seconds=0.02)
        publisher.event("note", "text")
    said = json.loads(store.get(NODES + "a"))
    assert said["step"] == 1999 and said["epoch"] == 3 and said["loss"] == pytest.approx(1 / 2000)
    assert said["rate"] > 0
    events = read_events(store.read("telemetry/")[1])
    assert [one.kind for one in events] == ["epoch", "note"] and events[0].nodes == ("a", "b")
    assert "node c is gone" in events[0].text and events[0].epoch == 4
    points = json.loads(store.get(SERIES + "a"))
    assert points and all(rate > 0 for _, rate, _ in points)
    assert store.read("")[0] - before < 500  # of 2000 steps


def test_a_store_that_is_away_harms_nobody(store, server):
    server.close()
    publisher = Publisher(store, "a", every=0.01)
    begin = time.monotonic()
    for step in range(1000):
        publisher.step(step, loss=float("nan"))
        publisher.event("note", str(step))
    publisher.close()
    assert time.monotonic() - begin < 30.0


def test_a_loss_that_is_not_finite_is_said_as_text(store):
    with Publisher(store, "a", every=0.01) as publisher:
        publisher.step(1, loss=float("inf"))
    assert json.loads(store.get(NODES + "a"))["loss"] == "inf"
    with pytest.raises(ValueError, match="every"):
        Publisher(store, "a", every=0.0)


@pytest.mark.parametrize("count", [1, POINTS - 1, POINTS, 5 * POINTS + 7])
def test_a_curve_is_bounded_and_keeps_the_mean(count):
    curve = _Curve()
    for number in range(count):
        curve.add(float(number), float(number), None if number % 2 else float("nan"))
    points = json.loads(curve.pack())
    assert 1 <= len(points) < POINTS and points == sorted(points, key=lambda one: one[0])
    assert points[-1][0] == count - 1 and all(loss is None for _, _, loss in points)
    mean = sum(rate for _, rate, _ in points) / len(points)
    assert mean == pytest.approx((count - 1) / 2, rel=0.02, abs=1e-6)
