r"""The plan that takes the least time within a budget of quality.

With a choice :math:`x_{pf} \in \{0, 1\}` of one format :math:`f` for each product :math:`p`, measured
times :math:`t_{pf}`, predicted loss increases :math:`\ell_{pf}` and gradient errors :math:`e_{pf}`,

.. math::
    \min \sum_{pf} t_{pf} x_{pf} \quad\text{so that}\quad
    \sum_{pf} \ell_{pf} x_{pf} \le \ell, \quad \sum_{pf} e_{pf} x_{pf} \le e, \quad
    \sum_f x_{pf} = 1,

an integer linear programme of two knapsacks, solved exactly by HiGHS (``scipy.optimize.milp``).
"""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from paddle import nn
from scipy import optimize, sparse

from .._checks import real
from . import timing
from .formats import ROLES
from .linear import Formats, linears
from .plan import Entry, Forecast, Plan
from .sensitivity import Loss, Passes, Sensitivity, probe
from .timing import TimeTable

WORTHWHILE = 0.02  #: a format that saves a smaller share of a product's time is not taken
STEPS = 3  #: that are timed


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much worse a step may get.

    Attributes:
        loss_increase: predicted, relative to the loss of the probe's batch.
        gradient_error: squared error of the gradient over its square; about the share of further
            steps that it costs.
    """

    loss_increase: float = 2e-3
    gradient_error: float = 2e-2

    def __post_init__(self) -> None:
        real("loss_increase", self.loss_increase, 0.0, 1.0)
        real("gradient_error", self.gradient_error, 0.0, 1.0)


def search(
    model: nn.Layer,
    batch: Any,
    *,
    loss: Loss,
    formats: Iterable[str] = ("bf16", "int8", "int8_block"),
    budget: Budget = Budget(),
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Plan:
    """Probe the model, time its products, and choose a format for each.

    Args:
        model: whose ``paddle.nn.Linear`` layers are planned; it is left as it was.
        batch: of the size that training uses, since times and errors depend on it.
        loss: ``loss(model, batch)``, a scalar.
        formats: that may be taken besides ``fp32``.
        budget: what the plan may cost in quality, by prediction.
        on_progress: is told what is being done, and how much of it is.

    Returns:
        A plan with a reason for each choice and a forecast.

    Raises:
        ValueError: a format has no such name, or the model cannot be probed (see ``probe``).
    """
    names = tuple(dict.fromkeys(("fp32", *formats)))
    found = probe(
        model, batch, loss, names, on_pass=lambda done, total: on_progress("probe", done, total)
    )
    table = timing.measure(
        found.shapes.values(),
        names,
        on_shape=lambda done, total: on_progress("times", done, total),
    )
    step_s = step_seconds(model, batch, loss)
    return plan_from(found, table, budget, names, step_s)


def will_it_help(
    model: nn.Layer,
    batch: Any,
    *,
    loss: Loss,
    formats: Iterable[str] = ("bf16", "int8", "int8_block"),
) -> Forecast:
    """The most that any plan could save here, measured in a second or so without a probe.

    The forecast takes the fastest format for each product, whatever its quality: where even that
    saves little, there is nothing to search for.

    Returns:
        A forecast with zero predicted errors; ``gain`` is the most there is, ``most`` what free
        products would give.
    """
    names = tuple(dict.fromkeys(("fp32", *formats)))
    shapes = _shapes(model, batch, loss)
    table = timing.measure(shapes.values(), names)
    now = sum(table.of(s, role, "fp32") for s in shapes.values() for role in ROLES)
    best = sum(min(table.of(s, role, n) for n in names) for s in shapes.values() for role in ROLES)
    return Forecast(
        step_ms=1e3 * step_seconds(model, batch, loss),
        products_ms=1e3 * now,
        planned_ms=1e3 * best,
        loss_increase=0.0,
        gradient_error=0.0,
    )


def plan_from(
    found: Sensitivity,
    table: TimeTable,
    budget: Budget,
    formats: Iterable[str],
    step_seconds: float,
) -> Plan:
    """The best plan for effects and times that were measured; see the module's formula."""
    names = tuple(dict.fromkeys(("fp32", *formats)))
    products = [(layer, role) for layer in found.shapes for role in ROLES]
    size = len(products), len(names)
    cost, increase, error = np.zeros(size), np.zeros(size), np.zeros(size)
    for i, (layer, role) in enumerate(products):
        for j, name in enumerate(names):
            cost[i, j] = table.of(found.shapes[layer], role, name)
            if name != "fp32":
                effect = found.of(layer, role, name)
                increase[i, j] = effect.loss_increase / found.loss
                error[i, j] = effect.gradient_error
    allowed = cost < (1 - WORTHWHILE) * cost[:, :1]
    allowed[:, 0] = True
    chosen = _solve(cost, increase, error, allowed, budget)
    rows = np.arange(len(products))
    entries: dict[str, Entry] = {}
    for layer in found.shapes:
        places = [products.index((layer, role)) for role in ROLES]
        entries[layer] = Entry(
            formats=Formats(*(names[chosen[i]] for i in places)),
            reasons={
                role: _reason(names, cost[i], increase[i], error[i], chosen[i], budget)
                for role, i in zip(ROLES, places)
            },
        )
    forecast = Forecast(
        step_ms=1e3 * step_seconds,
        products_ms=1e3 * float(cost[:, 0].sum()),
        planned_ms=1e3 * float(cost[rows, chosen].sum()),
        loss_increase=float(increase[rows, chosen].sum()),
        gradient_error=float(error[rows, chosen].sum()),
    )
    return Plan(layers=entries, forecast=forecast)


def _solve(cost, increase, error, allowed, budget: Budget) -> np.ndarray:
    """Index of the chosen format of each product; format 0 is exact, so there is a solution."""
    products, formats = cost.shape
    one_each = sparse.kron(sparse.identity(products), np.ones((1, formats)))
    constraints = [optimize.LinearConstraint(one_each, 1, 1)]
    for values, limit in ((increase, budget.loss_increase), (error, budget.gradient_error)):
        allowed = allowed & (values <= limit)
        if limit:  # scaled to 1, since HiGHS's tolerance is absolute
            row = np.minimum(values / limit, 2.0).reshape(1, -1)
            constraints.append(optimize.LinearConstraint(row, -np.inf, 1))
    found = optimize.milp(
        cost.ravel() / cost[:, 0].sum(),
        constraints=constraints,
        integrality=np.ones(cost.size),
        bounds=optimize.Bounds(0, allowed.ravel().astype(float)),
        options={"mip_rel_gap": 1e-4},
    )
    assert found.x is not None, found.message  # the exact formats satisfy every constraint
    return found.x.reshape(products, formats).argmax(axis=1)


def _reason(names, cost, increase, error, chosen: int, budget: Budget) -> str:
    """Why this format, in a few words."""
    name = names[chosen]
    fastest = int(cost.argmin()) if cost.min() < (1 - WORTHWHILE) * cost[0] else 0
    faster = f"{cost[0] / cost[chosen]:.1f} times as fast as fp32"
    if chosen == fastest:
        return "fp32 is the fastest here" if name == "fp32" else f"{name}: the fastest"
    kept = f"kept {name}" if name == "fp32" else f"{name}: {faster}"
    shares = {
        "loss": increase[fastest] / max(budget.loss_increase, 1e-30),
        "gradient error": error[fastest] / max(budget.gradient_error, 1e-30),
    }
    what, share = max(shares.items(), key=lambda one: one[1])
    return f"{kept}; {names[fastest]} is faster but would take much of the budget of {what}"


def _shapes(model: nn.Layer, batch: Any, loss: Loss) -> dict[str, timing.Shape]:
    shapes: dict[str, timing.Shape] = {}

    def note(name: str):
        def hook(layer, inputs, output):
            features, outputs = layer.weight.shape
            shapes[name] = timing.Shape(
                tokens=inputs[0].size // features, inputs=features, outputs=outputs
            )

        return hook

    state = paddle.get_rng_state()
    hooks = [layer.register_forward_post_hook(note(name)) for name, layer in linears(model)]
    try:
        with paddle.no_grad():
            loss(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
        paddle.set_rng_state(state)
    if not shapes:
        raise ValueError("model has no paddle.nn.Linear that the loss uses: nothing to plan.")
    return shapes


def step_seconds(model: nn.Layer, batch: Any, loss: Loss) -> float:
    """Median seconds of a forward and backward pass; the model is left as it was."""
    times = []
    with Passes(model, batch, loss) as passes:
        for _ in range(STEPS):
            begin = time.perf_counter()
            passes.run()
            times.append(time.perf_counter() - begin)
    return statistics.median(times)
