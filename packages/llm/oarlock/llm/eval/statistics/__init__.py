"""How far scores can be trusted: standard errors, paired comparisons, power, item response theory."""

from oarlock.llm.eval.statistics.errors import Estimate, mean
from oarlock.llm.eval.statistics.irt import ItemResponse, fit_2pl
from oarlock.llm.eval.statistics.paired import Comparison, compare, holm
from oarlock.llm.eval.statistics.power import (
    detectable_difference,
    items_needed,
    variance_of_difference,
)

__all__ = [
    "Comparison",
    "Estimate",
    "ItemResponse",
    "compare",
    "detectable_difference",
    "fit_2pl",
    "holm",
    "items_needed",
    "mean",
    "variance_of_difference",
]
