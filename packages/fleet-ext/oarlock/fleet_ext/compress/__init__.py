"""Gradients in fewer bytes, for networks that are slower than the processors behind them.

>>> optimizer = wrap(model, optimizer, job.group, strategy="adaptive")   # or "bf16", "int8", "rank-4", "local-steps", ...
>>> print(optimizer.report())
"""

from oarlock.fleet_ext.compress.averaging import Averaging, Coded, Exact, LowRank, averaging_of
from oarlock.fleet_ext.compress.local_steps import LocalSteps
from oarlock.fleet_ext.compress.wrapping import Adaptive, Distributed, EveryStep, strategy_of, wrap

__all__ = [
    "Adaptive",
    "Averaging",
    "Coded",
    "Distributed",
    "EveryStep",
    "Exact",
    "LocalSteps",
    "LowRank",
    "averaging_of",
    "strategy_of",
    "wrap",
]
