"""Asynchronous SGD over workers of any speeds, on a simulated clock or over real processes.

from oarlock.core_opt.asynchronous import Cluster, Ringmaster, Until, delays, problems
cluster = Cluster(delays.power_law(100, 0.5))
chain = problems.Chain(100, noise=0.1)
trace = cluster.run(Ringmaster(0.05, threshold=10), chain, x0, until=Until(updates=10_000))

Needs NumPy only, so that a worker imports Paddle only if its gradients do.
"""

from . import bounds, delays, problems
from .cluster import Cluster, time_gradients
from .processes import Interrupted, Processes, WorkerFailed
from .server import Oracle, Trace, Until
from .strategies import (
    Asynchronous,
    DelayCompensated,
    Rennala,
    Ringmaster,
    Strategy,
    Synchronous,
)

__all__ = [
    "Asynchronous",
    "Cluster",
    "DelayCompensated",
    "Interrupted",
    "Oracle",
    "Processes",
    "Rennala",
    "Ringmaster",
    "Strategy",
    "Synchronous",
    "Trace",
    "Until",
    "WorkerFailed",
    "bounds",
    "delays",
    "problems",
    "time_gradients",
]
