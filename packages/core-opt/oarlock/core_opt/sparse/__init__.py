"""Sparse weights and activations: formats, layers, mask schedulers, files, and where they pay.

from oarlock.core_opt import sparse
sparse.replace_linear(model, block=(16, 16), where="ffn")
scheduler = sparse.RigL(model, density=0.25, total_steps=1000)
loss.backward(); scheduler.step(); optimizer.step(); optimizer.clear_grad()
sparse.freeze_masks(model); sparse.export("model", model)
"""

from ._base import SparseMatrix
from .activations import ReLU2FFN
from .checkpoint import export, load, restore, save
from .crossover import Crossover, crossover
from .formats import BSR, COO, CSR, NM
from .growth import SET, RigL
from .layers import MaskedLinear, SparseLinear
from .pruning import GradualPruning
from .replace import freeze_masks, replace_linear
from .scheduler import MaskScheduler
from .tail import DenseTail
from .two_of_four import SSTE

__all__ = [
    "BSR",
    "COO",
    "CSR",
    "Crossover",
    "DenseTail",
    "GradualPruning",
    "MaskScheduler",
    "MaskedLinear",
    "NM",
    "ReLU2FFN",
    "RigL",
    "SET",
    "SSTE",
    "SparseLinear",
    "SparseMatrix",
    "crossover",
    "export",
    "freeze_masks",
    "load",
    "replace_linear",
    "restore",
    "save",
]
