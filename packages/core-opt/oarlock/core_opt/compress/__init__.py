"""Compression of models: what is redundant, and methods that remove it.

from oarlock.core_opt import compress
report = compress.analyse(model, batches, loss)
bits = compress.allocate(report, bits_per_weight=4.0).bits
recipe = compress.Recipe(modifiers=(compress.GPTQ(layer_bits=bits),))
compress.oneshot(model, recipe, compress.Data(batches=batches, loss=loss))
compress.save(model, "model.npz")
"""

from .analysis import Allocation, Choice, Question, Report, allocate, analyse
from .layers import PrunedLinear, QuantizedLinear, QuantizedSpec, Skip
from .modifiers import (
    AWQ,
    GPTQ,
    QAT,
    RTN,
    Data,
    Distillation,
    Hadamard,
    LowRank,
    Magnitude,
    Modifier,
    RemoveBlocks,
    RemoveHeads,
    RemoveNeurons,
    RotateResidual,
    SmoothQuant,
    SparseGPT,
    Wanda,
)
from .observers import MSE, AbsMax, Percentile
from .pipeline import LayerResult, Result, model_bytes, oneshot
from .recipe import Recipe
from .saving import load, save
from .structure import Structure, structure

__all__ = [
    "AWQ",
    "AbsMax",
    "Allocation",
    "Choice",
    "Data",
    "Distillation",
    "GPTQ",
    "Hadamard",
    "LayerResult",
    "LowRank",
    "MSE",
    "Magnitude",
    "Modifier",
    "Percentile",
    "PrunedLinear",
    "QAT",
    "QuantizedLinear",
    "QuantizedSpec",
    "Question",
    "RTN",
    "Recipe",
    "RemoveBlocks",
    "RemoveHeads",
    "RemoveNeurons",
    "Report",
    "Result",
    "RotateResidual",
    "Skip",
    "SmoothQuant",
    "SparseGPT",
    "Structure",
    "Wanda",
    "allocate",
    "analyse",
    "load",
    "model_bytes",
    "oneshot",
    "save",
    "structure",
]
