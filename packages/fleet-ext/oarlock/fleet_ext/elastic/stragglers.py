"""Which ranks hold the others up, and whether these would do more without them. Pure: all ranks give the same numbers.

A step of n ranks takes

    T = max_r w_r + e

seconds: the own work w of the slowest, and what nobody works in, since even that rank waits for messages (e). Messages of
rank k are as slow as its link: s_k is the larger of the two, the least time that any other rank needs to read
from k, and the least that k needs to read from any other. A link between two others that is slow shows in neither. Without
the ranks K, a step would take

    T' = max_{r not in K} w_r + e - min(e (1 - s'/s), (n - 1) (s - s')),    s = max_r s_r,  s' = max_{r not in K} s_r

since what is waited for goes with the slowest link, and cannot shrink by more than that link is in use when its n - 1 transfers
go one after another. Messages that travel behind the computation are not in e, and nobody is put out for them. With
m ranks in the end (n where spares take the places) the job does (m / T') / (n / T) times as much.

A stall that all share makes every w longer; then T' is as long as T.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Part = Literal["link", "work"]
_WORDS = {"link": "by its link", "work": "by its own work (processor, memory or disk)"}
_MOST_DOUBLED = 7  #: times that patience with a rank is doubled
_SHORTEST_S = 1e-9  #: of a step


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """With a node that holds the others up.

    Args:
        factor: as much as the job would do in the same time without it, where a spare takes its place or the others share
            its part; above 1.
        seconds, steps: of training for which that must be so without a break, both.
        rest: seconds before a node that was put out may take part again; twice as many each further time.
        longest_rest: and never more.
    """

    factor: float = 1.5
    seconds: float = 3.0
    steps: int = 6
    rest: float = 30.0
    longest_rest: float = 3600.0

    def __post_init__(self) -> None:
        if not self.factor > 1:
            raise ValueError(f"factor must be above 1, not {self.factor}")
        if not self.seconds >= 0:
            raise ValueError(f"seconds must not be negative, not {self.seconds}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")
        if not 0 < self.rest <= self.longest_rest:
            raise ValueError(
                f"rest must be above 0 and at most longest_rest, {self.longest_rest}, not {self.rest}"
            )


@dataclass(frozen=True, slots=True)
class Slow:
    """A rank that holds the others up.

    Args:
        part: by which.
        factor: as much as the job would do without those that are slow now.
    """

    rank: int
    part: Part
    factor: float

    def told(self, node: str) -> str:
        """For reports."""
        return (
            f"node {node} holds the others up {_WORDS[self.part]}: {self.factor:.1f} times as much"
            " is done without it"
        )


def link_seconds(reading: np.ndarray) -> np.ndarray:
    """How slow the link of each rank is, [size].

    Args:
        reading: [size, size], seconds in which rank r (row) read from rank p (column).
    """
    others = np.where(np.eye(len(reading), dtype=bool), np.inf, reading)
    return np.maximum(others.min(axis=0), others.min(axis=1))


def judged(
    step: float, work: np.ndarray, reading: np.ndarray, *, spares: int, least: int, factor: float
) -> tuple[Slow, ...]:
    """The fewest ranks without which the job does `factor` times as much; none where there are none.

    Args:
        step: seconds of a step, or of several.
        work: [size], own work of each rank in it, seconds.
        reading: see `link_seconds`.
        spares: nodes that would take the places.
        least: ranks that there must be in the end.
    """
    size, links = len(work), link_seconds(reading) if len(work) > 1 else np.zeros(1)
    waited = max(0.0, step - float(work.max()))
    best: tuple[Slow, ...] = ()
    for costs in (work, links):
        order = np.argsort(-costs, kind="stable")
        for count in range(1, size):
            staying = size - max(0, count - spares)
            if staying < least:
                break
            out, rest = order[:count], order[count:]
            slowest, without = float(links.max()), float(links[rest].max())
            by_work = float(work.max() - work[rest].max())
            by_link = 0.0
            if without < slowest:
                by_link = min(waited * (1 - without / slowest), (size - 1) * (slowest - without))
            after = max(_SHORTEST_S, step - by_work - by_link)
            gain = staying / size * step / after
            if gain >= factor:
                part: Part = "work" if by_work >= by_link else "link"
                if not best or gain > best[0].factor:
                    best = tuple(Slow(int(rank), part, gain) for rank in out)
                break
    return best


class Stragglers:
    """Ranks that were slow for as long as the others have patience. Each rank has one, and all find the same.

    Steps are judged in stretches, `seconds` / `steps` long each and at least one step; a rank must be slow in `steps` of them
    in a row. If the node that took a rank is slow as well, it may be the rank's own work that is slow: each time
    that a rank was put out doubles the stretches that it has.

    Args:
        size: number of ranks.
        least: that there must be.
        before: ranks that were put out so far, each as often as it was.
    """

    def __init__(self, patience: Patience, size: int, least: int, before: Iterable[int]) -> None:
        self._patience, self._size, self._least = patience, size, least
        times = Counter(before)
        self._needed = [
            patience.steps * 2 ** min(times[rank], _MOST_DOUBLED) for rank in range(size)
        ]
        self._sums = np.zeros((size, 2 + size))
        self._slow = [0] * size  #: stretches in a row

    def add(self, steps: np.ndarray, spares: int) -> Sequence[Slow]:
        """Those who are to be put out behind this step.

        Args:
            steps: [size, 2 + size], of each rank: seconds of the step, of its own work, and of reading from each rank.
            spares: that are ready.
        """
        self._sums += steps
        seconds = float(self._sums[:, 0].max())
        if not seconds > 0 or seconds < self._patience.seconds / self._patience.steps:
            return ()
        found = judged(
            seconds, self._sums[:, 1], self._sums[:, 2:], spares=spares, least=self._least,
            factor=self._patience.factor,
        )  # fmt: skip
        self._sums[:] = 0.0
        slow = {one.rank for one in found}
        self._slow = [count + 1 if rank in slow else 0 for rank, count in enumerate(self._slow)]
        if all(self._slow[one.rank] >= self._needed[one.rank] for one in found):
            return found
        return ()
