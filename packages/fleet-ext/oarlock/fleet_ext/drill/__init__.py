"""Chaos drills: what is left of training when processes, links, disks and the store fail.

>>> report = run(Drill(nodes=3, spares=1, seconds=120.0, faults=schedule(("kill", "stop"), 30.0, 120.0, seed=0)), folder)
>>> print(report)
"""

from oarlock.fleet_ext.drill.faults import KINDS, WITHOUT_LAB, Fault, schedule
from oarlock.fleet_ext.drill.report import Outcome, Report
from oarlock.fleet_ext.drill.run import CPUS, Drill, run

__all__ = ["CPUS", "KINDS", "WITHOUT_LAB", "Drill", "Fault", "Outcome", "Report", "run", "schedule"]
