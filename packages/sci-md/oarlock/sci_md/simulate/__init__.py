"""Simulations: dynamics through ASE, and what is read off them."""

from oarlock.sci_md.simulate.ensembles import NPT, NVE, Bussi, Ensemble, Langevin, NoseHoover
from oarlock.sci_md.simulate.records import Log
from oarlock.sci_md.simulate.driver import Run, run
from oarlock.sci_md.simulate.trajectory import Trajectory
from oarlock.sci_md.simulate.velocities import thermal_velocities
from oarlock.sci_md.simulate.verlet_list import VerletList

__all__ = [
    "NPT",
    "NVE",
    "Bussi",
    "Ensemble",
    "Langevin",
    "Log",
    "NoseHoover",
    "Run",
    "Trajectory",
    "VerletList",
    "run",
    "thermal_velocities",
]
