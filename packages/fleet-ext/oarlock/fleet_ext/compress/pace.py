"""How long a step takes: what is computed in it, and what codes and messages add to that."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from oarlock.fleet_ext.compress.clocks import Clocks

_NOISE = 0.05  #: of a computation, by which steps differ anyway
_OVERHEADS = np.arange(1.0, 4.01, 0.05)
_HIDDEN = np.arange(0.0, 1.001, 0.05)  #: of the windows
_SKEWS = np.arange(0.0, 0.301, 0.01)  #: of a computation
_LIKELY = 4.0  #: computations that ranks wait for each other are as unlikely as codes that take twice as long


@dataclass(frozen=True, slots=True)
class Timed:
    """Of steps that were averaged in one way.

    Args:
        extra: seconds that they took beside their computation.
        coding: seconds that codes should have made them longer by.
        travels: seconds of each bucket's messages.
    """

    extra: float
    coding: float
    travels: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Pace:
    """Of a step that sends nothing, and what was found of others.

    Args:
        computed: seconds of it.
        windows: seconds from when each bucket is whole to the last gradient, beside which its messages travel.
        share: seconds that a step becomes longer by for one of a processor: 1 where all of the processor works
            anyway, 2 where this rank has half of one, less where others are idle.
        lanes: buckets that travel at once.
        hidden: the part of the windows in which messages cost no time.
        overhead: how many times as long codes take beside a computation as alone.
        skew: seconds that ranks wait for each other, whatever they send.
    """

    computed: float
    windows: tuple[float, ...]
    share: float = 1.0
    lanes: int = 1
    hidden: float = 1.0
    overhead: float = 1.0
    skew: float = 0.0

    @classmethod
    def of(cls, spent: Clocks, windows: Sequence[float], lanes: int) -> "Pace":
        """Of a step beside whose computation messages travelled.

        Args:
            spent: by it, but for the waiting at its end.
            windows: seconds of it from when each bucket was whole to the last gradient.
            lanes: buckets that travel at once.
        """
        share = spent.wall / max(spent.process, 1e-9)
        # Codes and messages have had their share of the processor already: this thread's own time is without them.
        computed = min(spent.wall, spent.thread * max(1.0, share))
        return cls(computed, tuple(one * computed / spent.wall for one in windows), share, lanes)

    @classmethod
    def of_plain(cls, plain: Sequence[float]) -> "Pace":
        """The pace of which `plain` was made."""
        computed, share, lanes, hidden, overhead, skew, *windows = plain
        return cls(computed, tuple(windows), share, int(lanes), hidden, overhead, skew)

    @property
    def plain(self) -> list[float]:
        """Numbers, to send or to write."""
        return [
            self.computed, self.share, self.lanes, self.hidden, self.overhead, self.skew, *self.windows
        ]  # fmt: skip

    @classmethod
    def typical(cls, paces: Sequence["Pace"]) -> "Pace":
        """The median of each number."""
        return cls.of_plain(np.median([one.plain for one in paces], axis=0).tolist())

    def late(
        self, travels: Sequence[float], hidden: float | np.ndarray | None = None
    ) -> np.ndarray:
        """How long behind the last gradient all messages are there, if the link is busy from when each bucket is whole.

        Buckets travel one behind the other. The largest of these numbers, or 0, is what a step waits for messages.

        Args:
            travels: seconds of each bucket's messages.
            hidden: parts of the windows, [n] or one; None for the pace's own.

        Returns:
            float64 [n, buckets], or [buckets].
        """
        part = np.asarray(self.hidden if hidden is None else hidden)[..., None]
        return np.cumsum(travels[::-1])[::-1] - part * np.array(self.windows)

    def fitted(self, timed: Sequence[Timed]) -> "Pace":
        """With the overhead, the hidden part and the skew that tell best how long steps took.

        Codes wait for caches and locks that the computation has, messages for threads, threads for a processor, and
        ranks for the slowest. Steps of one plan cannot tell one from the other; those of several, of which some send
        much and some compute much, do. As long as all explain them, each is blamed as little as that allows.

        Args:
            timed: steps of different plans.
        """
        overhead, hidden, skew = (
            one.reshape(-1) for one in np.meshgrid(_OVERHEADS, _HIDDEN, _SKEWS * self.computed)
        )
        wrong = (overhead - 1.0) ** 2 + (1.0 - hidden) ** 2 + (skew / self.computed / _LIKELY) ** 2
        for one in timed:
            waiting = np.maximum(0.0, self.late(one.travels, hidden).max(axis=-1))
            found = skew + overhead * one.coding + waiting
            wrong += ((one.extra - found) / (_NOISE * self.computed)) ** 2
        best = int(np.argmin(wrong))
        return replace(
            self, hidden=float(hidden[best]), overhead=float(overhead[best]), skew=float(skew[best])
        )
