"""Gradients in fewer bytes, for networks that are slower than the processors behind them.

>>> optimizer = wrap(model, optimizer, job.group, strategy="adaptive")   # or "bf16", "int8", "rank-4", "local-steps", ...
>>> print(optimizer.report())
"""

from oarlock.fleet_ext.compress.averaging import Averaging, Exact
from oarlock.fleet_ext.compress.coded import Coded
from oarlock.fleet_ext.compress.hierarchical import Hierarchical
from oarlock.fleet_ext.compress.local_steps import LocalSteps
from oarlock.fleet_ext.compress.low_rank import LowRank
from oarlock.fleet_ext.compress.momentum import MomentumCorrection
from oarlock.fleet_ext.compress.naming import averaging_of
from oarlock.fleet_ext.compress.wrapping import Adaptive, Distributed, EveryStep, strategy_of, wrap

__all__ = [
    "Adaptive",
    "Averaging",
    "Coded",
    "Distributed",
    "EveryStep",
    "Exact",
    "Hierarchical",
    "LocalSteps",
    "LowRank",
    "MomentumCorrection",
    "averaging_of",
    "strategy_of",
    "wrap",
]
