"""What a rank knows of its own steps, and what ranks tell each other of them when they agree that a step is done."""

import time
from collections.abc import Sequence

import numpy as np

from oarlock.fleet_ext.elastic.stragglers import Slow, Stragglers
from oarlock.fleet_ext.transport import MeshGroup


class Pace:
    """Of the steps of an epoch.

    A step lasts from one commit to the next. Its own work is what a rank does until it begins its first operation with the
    others, for which it has waited for nobody; or, where the training tells how long it waited, all the rest.

    Args:
        group: of all ranks of the epoch.
        stragglers: who judges; None where nobody is put out.
    """

    def __init__(self, group: MeshGroup, stragglers: Stragglers | None) -> None:
        self._group, self._stragglers = group, stragglers
        self._begun: float | None = None  #: when the last commit was begun
        self._alone = 0.0  #: when it was over
        self._read = np.zeros(group.size)

    def commit(
        self, waiting: bool, spares: int, waited: float | None
    ) -> tuple[bool, Sequence[Slow]]:
        """Waits until all ranks have the mean of the step.

        Args:
            waiting: whether this rank knows of nodes that wait.
            spares: that are ready, as this rank knows.
            waited: seconds of the step in which this rank did nothing but wait for messages; None where it does not know.

        Returns:
            whether any of them knows of nodes that wait; and who is to be put out. The same on all ranks.

        Raises:
            TransportError: a rank is missing.
        """
        mine = np.array([waiting, spares, *self._lap(waited)])
        found = self._group.all_gather(mine).wait()  # [size, 4 + size]
        self._alone = time.monotonic()
        self._group.mesh.first_begun()
        slow: Sequence[Slow] = ()
        if self._stragglers is not None:
            slow = self._stragglers.add(found[:, 2:], int(found[:, 1].min()))
        return bool(found[:, 0].any()), slow

    def _lap(self, waited: float | None) -> np.ndarray:
        """Seconds of the step, of own work, and of reading from each rank; nothing of the first one, which has no begin."""
        now, before = time.monotonic(), self._begun
        read = np.array(self._group.mesh.reading())
        lap = np.zeros(2 + self._group.size)
        if before is not None:
            first = self._group.mesh.first_begun()
            until = now - waited if waited is not None else first or now
            lap[:2] = now - before, max(0.0, until - self._alone)
            lap[2:] = read - self._read
        self._begun, self._read = now, read
        return lap
