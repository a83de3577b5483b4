"""The probe against brute force, the choice of formats against all choices, and who it tells."""

import itertools

import numpy as np
import paddle
import pytest
from oarlock.core_opt.precision import (
    ROLES,
    Budget,
    Effect,
    Formats,
    Plan,
    Sensitivity,
    Shape,
    TimeTable,
    apply,
    measure,
    plan_from,
    probe,
    search,
    will_it_help,
)
from paddle import nn

FORMATS = ("bf16", "int8", "fp8")


def gradients(model, batch, loss):
    for parameter in model.parameters():
        parameter.clear_gradient(False)
    loss(model, batch).backward()
    return [parameter.grad.numpy().copy() for parameter in model.parameters()]


@pytest.mark.parametrize("layer", ["blocks.0.2", "head"])
@pytest.mark.parametrize("role", ROLES)
def test_gradient_error_is_what_the_format_does(network, batch, loss, layer, role):
    exact = gradients(network, batch, loss)
    with apply(network, Plan.of({layer: Formats(**{role: "int8"})})):
        changed = gradients(network, batch, loss)
    matrices = [(a, b) for a, b in zip(exact, changed) if a.ndim > 1]
    errors = [a.size * ((a - b) ** 2).sum() / (a**2).sum() for a, b in matrices]
    true = sum(errors) / sum(a.size for a, _ in matrices)
    found = probe(network, batch, loss, ["int8"]).of(layer, role, "int8").gradient_error
    assert true > 0 and found == pytest.approx(true, rel=1e-3)


def test_other_formats_are_scaled_from_the_coarsest(network, batch, loss):
    alone = probe(network, batch, loss, ["int8"])
    among = probe(network, batch, loss, FORMATS)
    for layer, role in itertools.product(alone.shapes, ROLES):
        true = alone.of(layer, role, "int8").gradient_error
        assert 0.5 < among.of(layer, role, "int8").gradient_error / true < 2


def test_loss_increase_is_the_mean_rise_under_such_errors():
    """Of a least-squares problem, whose second-order term is known: the Fisher of unit variance."""
    paddle.seed(0)
    model = nn.Sequential(nn.Linear(32, 16))
    x = paddle.randn([512, 32])
    # With noise of unit variance on the targets the empirical Fisher matrix is the Hessian.
    target = model(x).detach() + paddle.randn([512, 16])

    def loss(model, batch):
        return 0.5 * paddle.square(model(x) - target).sum(axis=1).mean()

    found = probe(model, None, loss, ["fp8"]).of("0", "forward", "fp8")
    error = found.product_error * float(paddle.square(model[0](x) - model[0].bias).sum())
    assert found.loss_increase == pytest.approx(0.5 * error / 512, rel=0.15)


def test_the_probe_leaves_everything_as_it_was(network, batch, loss):
    network.dropout = nn.Dropout(0.5)

    def with_dropout(model, batch):
        return loss(model, batch) + 0 * model.dropout(paddle.ones([4])).sum()

    gradients(network, batch, loss)
    held = [p.grad.numpy().copy() for p in network.parameters()]
    paddle.seed(5)
    expected = paddle.rand([3]).numpy()
    paddle.seed(5)
    probe(network, batch, with_dropout, ["int8"])
    np.testing.assert_array_equal(paddle.rand([3]).numpy(), expected)
    for parameter, gradient in zip(network.parameters(), held):
        np.testing.assert_array_equal(parameter.grad.numpy(), gradient)
    assert all("forward" not in vars(layer) for layer in network.sublayers())


def test_the_probe_refuses(network, batch, loss):
    with pytest.raises(ValueError, match="no paddle.nn.Linear"):
        probe(nn.Sequential(nn.ReLU()), batch, loss, ["int8"])
    with pytest.raises(ValueError, match="besides fp32"):
        probe(network, batch, loss, ["fp32"])
    with pytest.raises(ValueError, match="scalar"):
        probe(network, batch, lambda model, batch: model(batch[0]), ["int8"])
    with pytest.raises(ValueError, match="is nan"):
        probe(network, batch, lambda *both: loss(*both) * float("nan"), ["int8"])
    network.spare = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="layer spare.*no gradient"):
        probe(network, batch, loss, ["int8"])
    assert all("forward" not in vars(layer) for layer in network.sublayers())


@pytest.fixture(name="measured")
def measured_fixture():
    """Made-up effects and times of two layers, drawn at random."""
    rng = np.random.default_rng(7)
    names = ("fp32", *FORMATS)
    shapes = {f"layer{i}": Shape(tokens=8, inputs=4 + i, outputs=4) for i in range(2)}
    effects, seconds = {}, {}
    for (layer, shape), role, name in itertools.product(shapes.items(), ROLES, names):
        seconds[shape, role, name] = rng.uniform(0.2, 1.0) * (1.5 if name == "fp32" else 1)
        effects[layer, role, name] = Effect(rng.exponential(1.0), rng.exponential(1.0), 0.1)
    found = Sensitivity(loss=2.0, shapes=shapes, effects=effects)
    return found, TimeTable(seconds), names


@pytest.mark.parametrize("loss_increase", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("gradient_error", [0.0, 0.4, 1.0])
def test_the_choice_is_the_best_of_all(measured, loss_increase, gradient_error):
    found, table, names = measured
    budget = Budget(loss_increase=loss_increase, gradient_error=gradient_error)
    plan = plan_from(found, table, budget, names, step_seconds=10.0)
    products = list(itertools.product(found.shapes, ROLES))
    best = np.inf
    for choice in itertools.product(names, repeat=len(products)):
        cost = increase = error = 0.0
        for (layer, role), name in zip(products, choice):
            cost += table.of(found.shapes[layer], role, name)
            if name != "fp32":
                increase += found.of(layer, role, name).loss_increase / found.loss
                error += found.of(layer, role, name).gradient_error
        if increase <= loss_increase and error <= gradient_error:
            best = min(best, cost)
    assert plan.forecast.planned_ms == pytest.approx(1e3 * best, rel=0.02)
    assert plan.forecast.loss_increase <= loss_increase + 1e-6
    assert plan.forecast.gradient_error <= gradient_error + 1e-6
    if not gradient_error:
        assert set(plan.count()) == {"fp32"} and "kept fp32" in plan.report()


def test_a_format_that_saves_no_time_is_not_taken(measured):
    found, table, names = measured
    for key in table.seconds:
        table.seconds[key] = 1.0 if key[2] == "fp32" else 0.99
    plan = plan_from(found, table, Budget(loss_increase=1, gradient_error=1), names, 10.0)
    assert set(plan.count()) == {"fp32"} and "fp32 is the fastest here" in plan.report()


def test_measured_times_are_in_turns_and_of_every_product():
    shape = Shape(tokens=16, inputs=8, outputs=4)
    table = measure([shape, shape], ["int8"])
    assert set(table.seconds) == {
        (shape, role, name) for role in ROLES for name in ("fp32", "int8")
    }
    assert all(seconds > 0 for seconds in table.seconds.values())
    assert "16 x 8 x 4" in str(table)
    with pytest.raises(ValueError, match="did you mean 'int8'"):
        measure([shape], ["int18"])


def test_search_and_forecast(network, batch, loss):
    told = []
    plan = search(
        network, batch, loss=loss, formats=FORMATS, on_progress=lambda *done: told.append(done)
    )
    assert set(plan.layers) == {"blocks.0.0", "blocks.0.2", "blocks.1.0", "blocks.1.2", "head"}
    assert told[10] == ("probe", 11, 11) and told[-1][0] == "times"
    forecast = will_it_help(network, batch, loss=loss, formats=FORMATS)
    assert 0 < forecast.products_ms and forecast.planned_ms <= forecast.products_ms
    assert "of the step saved" in str(forecast)
