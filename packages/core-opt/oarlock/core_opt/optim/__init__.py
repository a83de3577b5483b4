"""Optimisers for Paddle, chosen by evidence.

from oarlock.core_opt import optim
optimizer = optim.create("muon", model, learning_rate=0.02)
loss.backward(); optimizer.step(); optimizer.clear_grad()
"""

from . import parallel, schedules
from ._base import Optimizer
from ._checks import NonFiniteGradient
from ._registry import OptimizerInfo, create, info, list
from ._roles import Role, Roles, roles
from .adafactor import Adafactor
from .adam_mini import AdamMini
from .adamw import AdamW
from .lamb import Lamb
from .lars import Lars
from .lion import Lion
from .mars import MARS
from .muon import Muon, NorMuon
from .noise_scale import GradientNoiseScale, Recommendation
from .schedule_free import ScheduleFreeAdamW
from .shampoo import Shampoo
from .soap import SOAP
from .soap_muon import SOAPMuon
from .sophia import SophiaG
from .wrappers import EMA, SAM, Lookahead, cautious_weight_decay

__all__ = [
    "Adafactor",
    "AdamMini",
    "AdamW",
    "EMA",
    "GradientNoiseScale",
    "Lamb",
    "Lars",
    "Lion",
    "Lookahead",
    "MARS",
    "Muon",
    "NonFiniteGradient",
    "NorMuon",
    "Optimizer",
    "OptimizerInfo",
    "Recommendation",
    "Role",
    "Roles",
    "SAM",
    "SOAP",
    "SOAPMuon",
    "ScheduleFreeAdamW",
    "Shampoo",
    "SophiaG",
    "cautious_weight_decay",
    "create",
    "info",
    "list",
    "parallel",
    "roles",
    "schedules",
]
