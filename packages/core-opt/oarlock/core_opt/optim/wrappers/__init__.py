"""Wrappers that work around any optimiser."""

from .cautious import cautious_weight_decay
from .ema import EMA
from .lookahead import Lookahead
from .sam import SAM

__all__ = ["EMA", "SAM", "Lookahead", "cautious_weight_decay"]
