"""Plans: made by hand, changed by pattern, written and read, put into a model and taken out."""

import os

import numpy as np
import paddle
import pytest
from oarlock.core_opt.precision import Entry, Forecast, Formats, Plan, apply
from paddle import nn

ALL_INT8 = Formats("int8", "int8", "int8")
NAMES = ("blocks.0.0", "blocks.0.2", "blocks.1.0", "blocks.1.2", "head")


@pytest.fixture(name="plan")
def plan_fixture():
    return Plan.of(dict.fromkeys(NAMES, ALL_INT8))


def test_override_by_pattern(plan):
    changed = plan.override({"blocks.*": "bf16", "blocks.0.*": {"weight_grad": "fp32"}})
    assert changed.layers["head"].formats == ALL_INT8
    assert changed.layers["blocks.1.0"].formats == Formats("bf16", "bf16", "bf16")
    assert changed.layers["blocks.0.2"].formats == Formats("bf16", "bf16", "fp32")
    assert "by hand (blocks.0.*): blocks.0.0 weight_grad" in changed.report()
    assert plan.layers["blocks.0.0"].formats == ALL_INT8


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"block.*": "fp32"}, "fits no layer"),
        ({"head": "int9"}, "did you mean.*'int8'"),
        ({"head": {"backward": "int8"}}, "role 'backward'.*did you mean 'forward'"),
    ],
)
def test_override_refuses(plan, changes, words):
    with pytest.raises(ValueError, match=words):
        plan.override(changes)


def test_a_plan_by_hand_refuses_unknown_formats():
    with pytest.raises(ValueError, match="weight_grad of head 'int7'"):
        Plan.of({"head": Formats(weight_grad="int7")})


def test_saved_and_loaded(tmp_path, plan):
    forecast = Forecast(
        step_ms=3.0, products_ms=2.0, planned_ms=0.5, loss_increase=1e-4, gradient_error=0.01
    )
    entry = Entry(formats=ALL_INT8, reasons={"forward": "int8: the fastest"})
    kept = Plan(layers={**plan.layers, "head": entry}, forecast=forecast)
    path = tmp_path / "plan.yaml"
    kept.save(path)
    assert Plan.load(path) == kept
    assert os.listdir(tmp_path) == ["plan.yaml"]
    assert forecast.gain == 0.5 and "50% of the step saved" in kept.report()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- 1",
        "version: 2\nlayers: {}\nforecast:",
        "version: 1\nlayers:\n  a: {forward: int9}",
        "{",
    ],
)
def test_a_broken_file_is_refused(tmp_path, text):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="plan.yaml is not a plan"):
        Plan.load(path)


def test_applied_and_removed(network, batch, loss, plan):
    before = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    exact = float(loss(network, batch))
    with apply(network, plan) as applied:
        rounded = float(loss(network, batch))
        assert applied.plan is plan and list(network.state_dict()) == list(before)
    assert rounded != exact and abs(rounded - exact) < 0.02 * exact
    assert float(loss(network, batch)) == exact
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])


def test_layers_that_the_plan_leaves_exact_are_untouched(network, plan):
    partly = plan.override({"blocks.*": "fp32"})
    with apply(network, partly):
        assert "forward" not in vars(network.blocks[0][0])
        assert "forward" in vars(network.head)


def test_refuses_a_second_plan_and_another_model(network, plan):
    with apply(network, plan):
        with pytest.raises(ValueError, match="remove"):
            apply(network, plan)
    apply(network, plan).remove()
    with pytest.raises(ValueError, match="search again"):
        apply(nn.Sequential(nn.Linear(3, 3)), plan)
    assert all("forward" not in vars(layer) for layer in network.sublayers())


def test_training_under_a_plan_learns_as_without(network, batch, loss, plan):
    def train(model):
        optimizer = paddle.optimizer.AdamW(0.01, parameters=model.parameters())
        for _ in range(60):
            loss(model, batch).backward()
            optimizer.step()
            optimizer.clear_grad()
        return float(loss(model, batch))

    start = {name: value.clone() for name, value in network.state_dict().items()}
    untrained, exact = float(loss(network, batch)), train(network)
    network.set_state_dict(start)
    with apply(network, plan):
        rounded = train(network)
    assert exact < 0.2 * untrained and rounded < 0.2 * untrained
