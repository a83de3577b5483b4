"""Potentials: energies of atoms from their surroundings, on Paddle."""

from oarlock.sci_md.potentials.base import Potential
from oarlock.sci_md.potentials.config import PotentialConfig
from oarlock.sci_md.potentials.convert_schnetpack import load_schnetpack
from oarlock.sci_md.potentials.deep_potential import DeepPotential
from oarlock.sci_md.potentials.deep_potential_config import DeepPotentialConfig
from oarlock.sci_md.potentials.equivariant import Equivariant, EquivariantConfig
from oarlock.sci_md.potentials.painn import PaiNN, PaiNNConfig
from oarlock.sci_md.potentials.registry import build, config_from_dict, names
from oarlock.sci_md.potentials.schnet import SchNet, SchNetConfig
from oarlock.sci_md.potentials.spherenet import SphereNet, SphereNetConfig
from oarlock.sci_md.potentials.storage import load, save

__all__ = [
    "DeepPotential",
    "DeepPotentialConfig",
    "Equivariant",
    "EquivariantConfig",
    "PaiNN",
    "PaiNNConfig",
    "Potential",
    "PotentialConfig",
    "SchNet",
    "SchNetConfig",
    "SphereNet",
    "SphereNetConfig",
    "build",
    "config_from_dict",
    "load",
    "load_schnetpack",
    "names",
    "save",
]
