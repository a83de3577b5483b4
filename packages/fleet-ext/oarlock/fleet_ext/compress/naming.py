"""Ways to average, by their names."""

import re

from oarlock.fleet_ext.compress.averaging import Averaging, Exact
from oarlock.fleet_ext.compress.coded import Coded
from oarlock.fleet_ext.compress.codecs import CODECS, RandomK, TopK
from oarlock.fleet_ext.compress.hierarchical import Hierarchical
from oarlock.fleet_ext.compress.low_rank import LowRank
from oarlock.fleet_ext.compress.momentum import MomentumCorrection


def averaging_of(name: str) -> Averaging:
    """An averaging by its name.

    `float32`, `rank-4`, `rank-4-bf16` (half the bytes), `rank-4-int8` (a quarter), `top-1%`, `random-1%`, `dgc-0.1%`
    (the largest, with momentum correction; or other numbers), a code's name, or one of these between hosts: `hosts-int4`.

    Raises:
        ValueError: there is none of that name.
    """
    if name == "float32":
        return Exact()
    if name.startswith("hosts-"):
        return Hierarchical(between=averaging_of(name.removeprefix("hosts-")))
    if (rank := re.fullmatch(r"rank-(\d+)(-bf16|-int8)?", name)) is not None:
        return LowRank(rank=int(rank[1]), bits={None: 32, "-bf16": 16, "-int8": 8}[rank[2]])
    share = re.fullmatch(r"(top|random|dgc)-(\d+(?:\.\d+)?)%", name)
    if share is not None:
        density = float(share[2]) / 100
        codec = RandomK(density=density) if share[1] == "random" else TopK(density=density)
        return Coded(codec=codec, correction=MomentumCorrection() if share[1] == "dgc" else None)
    if name in CODECS:
        return Coded(codec=CODECS[name])
    known = [
        *CODECS,
        "rank-4, rank-4-bf16, rank-4-int8, top-1%, random-1%, dgc-0.1% (or other numbers)",
        "hosts- and one of these",
    ]
    raise ValueError(f"{name!r} is no way to average: choose one of {', '.join(known)}")
