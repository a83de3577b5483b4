"""Simulations: dynamics through ASE, and what is read off them."""

from oarlock.sci_md.simulate.barriers import EnergyPath, minimum_energy_path
from oarlock.sci_md.simulate.defects import Vacancy, vacancy_formation
from oarlock.sci_md.simulate.diffusion import (
    Diffusion,
    MeanSquaredDisplacement,
    diffusion_coefficient,
    mean_squared_displacement,
)
from oarlock.sci_md.simulate.drift import EnergyDrift, energy_drift
from oarlock.sci_md.simulate.driver import Run, run
from oarlock.sci_md.simulate.elasticity import ElasticConstants, elastic_constants
from oarlock.sci_md.simulate.ensembles import NPT, NVE, Bussi, Ensemble, Langevin, NoseHoover
from oarlock.sci_md.simulate.equation_of_state import EquationOfState, equation_of_state
from oarlock.sci_md.simulate.radial import RadialDistribution, radial_distribution
from oarlock.sci_md.simulate.records import Log
from oarlock.sci_md.simulate.relaxation import relaxed
from oarlock.sci_md.simulate.spectra import (
    Spectrum,
    VelocityAutocorrelation,
    velocity_autocorrelation,
    vibrations,
)
from oarlock.sci_md.simulate.statistics import Estimate, block_mean, block_slope
from oarlock.sci_md.simulate.trajectory import Trajectory
from oarlock.sci_md.simulate.velocities import thermal_velocities
from oarlock.sci_md.simulate.verlet_list import VerletList

__all__ = [
    "NPT",
    "NVE",
    "Bussi",
    "Diffusion",
    "ElasticConstants",
    "EnergyDrift",
    "EnergyPath",
    "Ensemble",
    "EquationOfState",
    "Estimate",
    "Langevin",
    "Log",
    "MeanSquaredDisplacement",
    "NoseHoover",
    "RadialDistribution",
    "Run",
    "Spectrum",
    "Trajectory",
    "Vacancy",
    "VelocityAutocorrelation",
    "VerletList",
    "block_mean",
    "block_slope",
    "diffusion_coefficient",
    "elastic_constants",
    "energy_drift",
    "equation_of_state",
    "mean_squared_displacement",
    "minimum_energy_path",
    "radial_distribution",
    "relaxed",
    "run",
    "thermal_velocities",
    "vacancy_formation",
    "velocity_autocorrelation",
    "vibrations",
]
