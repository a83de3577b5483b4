"""Training under a plan: found on the first batch, renewed, given up when the loss diverges."""

import logging
import math

import paddle
import pytest
from oarlock.core_opt.precision import Budget, Formats, MixedPrecision, Plan

INT8 = Plan.of({"head": Formats("int8", "int8", "int8")})


def test_trains_and_renews_its_plan(network, batch, loss):
    training = MixedPrecision(network, loss=loss, formats=["int8"], replan_every=25)
    optimizer = paddle.optimizer.AdamW(0.01, parameters=network.parameters())
    values = []
    for _ in range(60):
        value = training.loss(batch)
        value.backward()
        optimizer.step()
        optimizer.clear_grad()
        values.append(float(value))
    assert values[-1] < 0.3 * values[0]
    assert [step for step, what in training.events if what.startswith("plan: ")] == [0, 25, 50]
    training.stop()
    assert training.plan is None and float(training.loss(batch)) == float(loss(network, batch))


def test_a_loss_that_is_not_finite_is_computed_anew(network, batch, loss, caplog):
    def overflowing(model, batch):
        low = "forward" in vars(model.head)
        return loss(model, batch) * (math.inf if low else 1.0)

    training = MixedPrecision(network, loss=overflowing, plan=INT8)
    with caplog.at_level(logging.WARNING):
        value = training.loss(batch)
    assert float(value) == float(loss(network, batch)) and training.plan is None
    assert "computed anew in full precision" in caplog.text
    assert training.events[0][0] == 0


def test_a_loss_that_rises_and_stays_gives_the_plan_up(network, batch):
    values = iter([2.0] * 15 + [3.0] * 60)

    def rising(model, batch):
        return model.head.weight.sum() * 0 + next(values)

    training = MixedPrecision(
        network, loss=rising, plan=INT8, tolerance=0.1, patience=5, budget=Budget()
    )
    for _ in range(40):
        training.loss(batch)
    assert training.plan is None
    ((step, what),) = training.events
    assert 20 <= step <= 25 and "above its lowest, 2," in what
    assert training.budget.gradient_error == Budget().gradient_error / 2


def test_a_spike_does_not(network, batch):
    values = iter([2.0] * 15 + [3.0] * 3 + [2.0] * 40)

    def spiking(model, batch):
        return model.head.weight.sum() * 0 + next(values)

    training = MixedPrecision(network, loss=spiking, plan=INT8, tolerance=0.1, patience=5)
    for _ in range(50):
        training.loss(batch)
    assert training.plan is INT8 and not training.events


@pytest.mark.parametrize("wrong", [{"replan_every": 0}, {"tolerance": 0.0}, {"patience": 0}])
def test_refuses(network, loss, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MixedPrecision(network, loss=loss, **wrong)
