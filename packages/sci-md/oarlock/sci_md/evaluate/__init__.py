"""Potentials as simulations call them: positions in, energies, forces and virial out, in NumPy."""

from oarlock.sci_md.evaluate.eager import EagerEvaluator
from oarlock.sci_md.evaluate.evaluator import Evaluation, Evaluator
from oarlock.sci_md.evaluate.frozen import FrozenEvaluator, freeze

__all__ = ["EagerEvaluator", "Evaluation", "Evaluator", "FrozenEvaluator", "freeze"]
