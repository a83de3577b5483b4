"""Training in low precision: which product of which layer takes which format, measured and chosen.

    from oarlock.core_opt import precision
    plan = precision.search(model, batch, loss=lambda model, batch: model.loss(*batch))
    print(plan.report())
    with precision.apply(model, plan):
        train(model)

    with precision.autocast():  # bfloat16 products by Paddle's lists, on a CPU too
        loss = model.loss(*batch)

Theory: ``docs/topics/1.2.md``.
"""

from ._autocast import autocast, decorate
from .apply import Applied, apply
from .formats import FORMATS, ROLES, Format
from .linear import Formats, linear, linears
from .plan import Entry, Forecast, Plan
from .search import Budget, plan_from, search, will_it_help
from .sensitivity import Effect, Sensitivity, probe
from .timing import Shape, TimeTable, measure
from .training import MixedPrecision

__all__ = [
    "FORMATS",
    "ROLES",
    "Applied",
    "Budget",
    "Effect",
    "Entry",
    "Forecast",
    "Format",
    "Formats",
    "MixedPrecision",
    "Plan",
    "Sensitivity",
    "Shape",
    "TimeTable",
    "apply",
    "autocast",
    "decorate",
    "linear",
    "linears",
    "measure",
    "plan_from",
    "probe",
    "search",
    "will_it_help",
]
