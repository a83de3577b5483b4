"""How a process that an agent started takes part in training."""

import signal
import threading
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any

from oarlock.fleet_ext.agent.place import NodePlace
from oarlock.fleet_ext.agent.progress import Phase, ProgressFile
from oarlock.fleet_ext.elastic import Patience, Session, Training
from oarlock.fleet_ext.elastic.membership import LEASE_S
from oarlock.fleet_ext.elastic.session import JOIN_S, OPERATION_S, PATIENCE
from oarlock.fleet_ext.job import tls_of, use_threads
from oarlock.fleet_ext.rendezvous import TcpStore
from oarlock.fleet_ext.transport import Listener

STORE_S = 60.0  #: that the store may be away, while nodes come or go


class Drained(SystemExit):
    """This process was told to end (SIGTERM), and left the others after a step. Uncaught, it ends the process well."""


class NodeSession(Session):
    """A `Session` that tells its agent how far it is, and leaves when it is told to end; made by `enter`.

    Args:
        place: what the agent said.
        lease, operation, join, patience: of `Session`.
    """

    def __init__(
        self, place: NodePlace, *, lease: float, operation: float, join: float, patience: Patience | None
    ) -> None:  # fmt: skip
        self._phase, self._leaving = Phase.OUTSIDE, False
        tls = tls_of(place.tls) if place.tls is not None else None
        self._progress = ProgressFile(place.progress)
        self._progress.write(Phase.OUTSIDE, 0, 0)
        use_threads(place.threads)
        store = TcpStore(*place.store, job=place.job, token=place.token, tls=tls, timeout=STORE_S)
        listener = Listener(job=place.job, token=place.token, host=place.host, tls=tls)
        self._before: Any = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._told)
        super().__init__(store, listener, token=place.token, node=place.node, size=place.size, tls=tls, lease=lease,
                         operation=operation, join=join, patience=patience)  # fmt: skip

    def run(
        self,
        training: Training,
        steps: int,
        *,
        first: int = 0,
        after: Callable[[int], None] | None = None,
    ) -> None:
        """See `Session.run`.

        Raises:
            Drained: this process was told to end.
        """

        def took(step: int) -> None:
            self._tell(Phase.TRAINING)
            if after is not None:
                after(step)
            if self._leaving:
                raise Drained

        super().run(training, steps, first=first, after=took)
        self._tell(Phase.OUTSIDE)

    def close(self) -> None:
        self._tell(Phase.OUTSIDE)
        super().close()
        self._store.close()
        self._progress.close()
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None

    def _connected(self, why: str, training: Training, lost: Collection[str], first: int) -> Any:
        self._tell(Phase.WAITING)
        if self._leaving:
            raise Drained
        links = super()._connected(why, training, lost, first)
        self._tell(Phase.TRAINING)
        return links

    def _tell(self, phase: Phase) -> None:
        self._phase = phase
        epoch = self._links.epoch.number if self._links is not None else 0
        self._progress.write(phase, epoch, self.step)

    def _told(self, number: int, frame: FrameType | None) -> None:
        self._leaving = True
        if self._phase is not Phase.TRAINING:  # nobody waits for a step of this process
            raise Drained


def enter(
    place: NodePlace | None = None, *, lease: float = LEASE_S, operation: float = OPERATION_S,
    join: float = JOIN_S, patience: Patience | None = PATIENCE,
) -> NodeSession:  # fmt: skip
    """Takes part in the training that this process's agent belongs to.

    Told to end (SIGTERM), the process leaves the others behind its present step, and ends by `Drained`.

    Args:
        place: what the agent said where this is None.
        lease: seconds after which a process that does not move is lost.
        operation: seconds after which who is missing in an operation is taken for hung.
        join: seconds for enough nodes to come.
        patience: with nodes that hold the others up; None for no end of it.

    Raises:
        ValueError: no agent started this process.
        StoreError: the store cannot be reached, or refuses this process.
    """
    return NodeSession(
        place or NodePlace.read(), lease=lease, operation=operation, join=join, patience=patience
    )
