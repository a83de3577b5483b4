"""Chaos drills: what is left of training when nodes are killed, stopped and cut off.

>>> report = run(Drill(nodes=3, spares=1, seconds=120.0, faults=schedule(("kill", "stop"), 30.0, 120.0, seed=0)), folder)
>>> print(report)
"""

from oarlock.fleet_ext.drill.faults import KINDS, Fault, schedule
from oarlock.fleet_ext.drill.report import Report
from oarlock.fleet_ext.drill.run import Drill, run

__all__ = ["KINDS", "Drill", "Fault", "Report", "run", "schedule"]
