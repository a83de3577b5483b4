"""Active learning: a committee says where it is unsure, an oracle labels that, and it learns."""

from oarlock.sci_md.active.explorers import AseExplorer, Explorer, LammpsExplorer
from oarlock.sci_md.active.loop import ActiveLearning, ActiveSettings, Round
from oarlock.sci_md.active.oracles import CalculatorOracle, MethodOracle, Oracle
from oarlock.sci_md.active.selection import Band, Selection, select

__all__ = [
    "ActiveLearning",
    "ActiveSettings",
    "AseExplorer",
    "Band",
    "CalculatorOracle",
    "Explorer",
    "LammpsExplorer",
    "MethodOracle",
    "Oracle",
    "Round",
    "Selection",
    "select",
]
