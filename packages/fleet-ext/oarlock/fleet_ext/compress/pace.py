"""How long a step takes: what is computed in it, and what codes and messages add to that."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np

from oarlock.fleet_ext.compress.clocks import Clocks

_NOISE = 0.05  #: of a computation, by which steps differ anyway
_OVERHEADS = np.arange(1.0, 4.01, 0.05)
_HIDDEN = np.arange(0.0, 1.001, 0.025)  #: of the window


@dataclass(frozen=True, slots=True)
class Timed:
    """Of steps that were averaged in one way.

    Args:
        extra: seconds that they took beside their computation.
        coding: seconds that codes should have made them longer by.
        travel: seconds of their messages.
    """

    extra: float
    coding: float
    travel: float


@dataclass(frozen=True, slots=True)
class Pace:
    """Of a step that sends nothing, and what was found of others.

    Args:
        computed: seconds of it.
        window: seconds from the first gradient to the last, beside which messages travel.
        share: seconds that a step becomes longer by for one of a processor: 1 where all of the processor works
            anyway, 2 where this rank has half of one, less where others are idle.
        lanes: buckets that travel at once.
        hidden: the part of the window in which messages cost no time.
        overhead: how many times as long codes take beside a computation as alone.
    """

    computed: float
    window: float
    share: float = 1.0
    lanes: int = 1
    hidden: float = 1.0
    overhead: float = 1.0

    @property
    def room(self) -> float:
        """Seconds of messages that a step is not longer for."""
        return self.window * self.hidden

    @classmethod
    def of(cls, spent: Clocks, window: float, lanes: int) -> "Pace":
        """Of a step beside whose computation messages travelled.

        Args:
            spent: by it, but for the waiting at its end.
            window: seconds of it from the first gradient to the last.
            lanes: buckets that travel at once.
        """
        share = spent.wall / max(spent.process, 1e-9)
        # Codes and messages have had their share of the processor already: this thread's own time is without them.
        computed = min(spent.wall, spent.thread * max(1.0, share))
        return cls(computed, window * computed / spent.wall, share, lanes)

    @classmethod
    def typical(cls, paces: Sequence["Pace"]) -> "Pace":
        """The median of each number."""
        computed, window, share, lanes, *rest = np.median(
            [astuple(one) for one in paces], axis=0
        ).tolist()
        return cls(computed, window, share, int(lanes), *rest)

    def fitted(self, timed: Sequence[Timed]) -> "Pace":
        """With the overhead and the hidden part that tell best how long steps took.

        Codes wait for caches and locks that the computation has, and messages for threads, and threads for a processor.
        Steps of one plan cannot tell one from the other; those of several, of which some send much and some compute
        much, do. As long as both explain them, each is blamed as little as that allows.

        Args:
            timed: steps of different plans.
        """
        overhead, hidden = (one.reshape(-1) for one in np.meshgrid(_OVERHEADS, _HIDDEN))
        wrong = (overhead - 1.0) ** 2 + (1.0 - hidden) ** 2
        for one in timed:
            found = overhead * one.coding + np.maximum(0.0, one.travel - hidden * self.window)
            wrong += ((one.extra - found) / (_NOISE * self.computed)) ** 2
        best = int(np.argmin(wrong))
        return replace(self, hidden=float(hidden[best]), overhead=float(overhead[best]))
