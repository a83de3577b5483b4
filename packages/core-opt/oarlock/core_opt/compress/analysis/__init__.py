"""Redundancy of a model on data, and what compression would cost."""

from .allocate import Allocation, allocate
from .analyse import Question, analyse
from .report import BlockFacts, Choice, LayerFacts, Report, UnitFacts

__all__ = [
    "Allocation",
    "BlockFacts",
    "Choice",
    "LayerFacts",
    "Question",
    "Report",
    "UnitFacts",
    "allocate",
    "analyse",
]
