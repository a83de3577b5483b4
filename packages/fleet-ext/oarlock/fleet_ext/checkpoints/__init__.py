"""Checkpoints of distributed training: written in the background, read by any number of ranks, found when damaged.

>>> with Checkpoints(folder, job.group, keep=3) as checkpoints:
...     loaded = checkpoints.restore(state)                      # the newest good one, or None
...     saving = checkpoints.save(state, step, metadata=plain)   # copies, and returns; training goes on
...     saving.wait()                                            # its folder, or what went wrong on any rank
"""

from oarlock.fleet_ext.checkpoints.agreement import CheckpointError, Mismatch
from oarlock.fleet_ext.checkpoints.checking import Found, examine, latest, prune
from oarlock.fleet_ext.checkpoints.keeping import Checkpoints
from oarlock.fleet_ext.checkpoints.layout import Sharded
from oarlock.fleet_ext.checkpoints.loading import Loaded, load
from oarlock.fleet_ext.checkpoints.saving import Saving, save

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "Found",
    "Loaded",
    "Mismatch",
    "Saving",
    "Sharded",
    "examine",
    "latest",
    "load",
    "prune",
    "save",
]
