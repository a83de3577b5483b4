"""Modifiers: the parts of a recipe that change a model."""

from .base import Context, Data, LayerModifier, ModelModifier, Modifier, Stage
from .low_rank import LowRank
from .pruning import Magnitude, SparseGPT, Wanda
from .removal import RemoveBlocks, RemoveHeads, RemoveNeurons
from .rotation import RotateResidual
from .rounding import GPTQ, RTN
from .training import QAT, Distillation
from .transforms import AWQ, Hadamard, SmoothQuant

__all__ = [
    "AWQ",
    "Context",
    "Data",
    "Distillation",
    "GPTQ",
    "Hadamard",
    "LayerModifier",
    "LowRank",
    "Magnitude",
    "ModelModifier",
    "Modifier",
    "QAT",
    "RTN",
    "RemoveBlocks",
    "RemoveHeads",
    "RemoveNeurons",
    "RotateResidual",
    "SmoothQuant",
    "SparseGPT",
    "Stage",
    "Wanda",
]
