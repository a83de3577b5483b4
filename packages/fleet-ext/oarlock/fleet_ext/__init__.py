"""Distributed training on commodity networks and unreliable machines, for PaddlePaddle.

>>> job = join()
>>> optimizer = wrap(model, optimizer, job.group)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oarlock.fleet_ext.compress import wrap
    from oarlock.fleet_ext.job import Job, join

__all__ = ["Job", "join", "wrap"]


def __getattr__(name: str) -> Any:
    """Loads a name when it is asked for: stores and labs, which need no Paddle, come without it."""
    if name == "wrap":
        from oarlock.fleet_ext import compress

        return compress.wrap
    if name in ("Job", "join"):
        from oarlock.fleet_ext import job

        return getattr(job, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
