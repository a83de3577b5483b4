"""Potentials as simulations call them: positions in, energies, forces and virial out, in NumPy."""

from oarlock.sci_md.evaluate.deep_potential import NativeDeepPotential
from oarlock.sci_md.evaluate.deepmd import DeepmdEvaluator
from oarlock.sci_md.evaluate.eager import EagerEvaluator
from oarlock.sci_md.evaluate.evaluator import AtomicVirials, Evaluation, Evaluator
from oarlock.sci_md.evaluate.frozen import FrozenEvaluator, freeze
from oarlock.sci_md.evaluate.opening import open_evaluator

__all__ = [
    "AtomicVirials",
    "DeepmdEvaluator",
    "EagerEvaluator",
    "Evaluation",
    "Evaluator",
    "FrozenEvaluator",
    "NativeDeepPotential",
    "freeze",
    "open_evaluator",
]
