"""Several processes ("ranks") that run one model: the first leads, the others follow what it computes.

The leader cuts and packs the model, sends each follower its part, and then every batch; sums over ranks go through
``oarlock.native.ranks``. Followers need neither the model's files nor Paddle: nothing here imports it.
"""

from oarlock.llm.ranks.config import RanksConfig

__all__ = ["RanksConfig"]
