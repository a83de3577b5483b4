"""The training loop of a node, which survives the loss of others.

A step is computed and averaged, then all ranks agree that all of them have the mean (commit), and then each takes it.
Where anything fails before, the survivors close their connections, agree on the next epoch and connect anew, in the
running process; whoever is a step behind, or new, gets its state from one that is not. So a step whose mean some ranks
had taken is not taken twice, and one that nobody had taken is computed again.

When they agree, ranks also tell each other how long they took. Who holds the others up for a while (`stragglers`) is put
out: the next epoch is without it, and it rests.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from oarlock.fleet_ext.elastic.epochs import Epoch, Size
from oarlock.fleet_ext.elastic.membership import LEASE_S, Finished, Membership
from oarlock.fleet_ext.elastic.pace import Pace
from oarlock.fleet_ext.elastic.stragglers import Patience, Slow, Stragglers
from oarlock.fleet_ext.rendezvous import Store
from oarlock.fleet_ext.telemetry import Publisher
from oarlock.fleet_ext.transport import (
    Listener,
    Mesh,
    MeshGroup,
    NotConnected,
    TimedOut,
    Tls,
    TransportError,
    Work,
    connect,
)

OPERATION_S = 30.0  #: after which who is missing in an operation is taken for hung
JOIN_S = 600.0  #: for enough nodes to come
CONNECT_S = 5.0  #: for the nodes of an epoch to connect
PATIENCE = Patience()
_log = logging.getLogger(__name__)
_NEW = -1  #: the step of a node that has no state yet


class Training(Protocol):
    """What is trained. All nodes have the same state after the same step.

    It may have two attributes more: `loss`, of the latest step, for who looks; and `waited`, the seconds of the latest
    `compute` in which it did nothing but wait for messages, without which all behind its first operation counts as
    waiting. A training whose messages travel beside its computation should have `waited`.
    """

    def compute(self, step: int, group: MeshGroup) -> None:
        """Computes a step and averages it over the group, changing nothing that `state` has.

        Called again for the same step, with another group, where it failed.
        """

    def apply(self, step: int) -> None:
        """Takes the step, without the others."""

    def state(self) -> dict[str, np.ndarray]:
        """All that another node needs to be like this one."""

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Becomes like another node."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What happened, for reports.

    Args:
        why: what was noticed.
        step: which was to be taken next.
        epoch: that came of it.
        seconds: from when it was noticed until training went on.
    """

    why: str
    step: int
    epoch: Epoch
    seconds: float


@dataclass(frozen=True, slots=True)
class _Links:
    """The connections of an epoch, and the pace of its steps once all ranks have the same state."""

    epoch: Epoch
    mesh: Mesh
    group: MeshGroup
    pace: Pace | None = None

    def nodes(self, ranks: Collection[int]) -> set[str]:
        return {self.epoch.nodes[rank] for rank in ranks}

    def close(self) -> None:
        self.group.close()
        self.mesh.close()


class Session:
    """A node that trains with others.

    Args:
        store: which all nodes share.
        listener: of this node.
        token, tls: of the job.
        node: its name, which no other node has.
        size: how many train; more are spare.
        lease: seconds after which a node that does not move is lost.
        operation: seconds after which who is missing in an operation is taken for hung.
        join: seconds for enough nodes to come.
        patience: with nodes that hold the others up; None puts nobody out. The same on all nodes.
    """

    def __init__(
        self, store: Store, listener: Listener, *, token: str, node: str, size: Size, tls: Tls | None = None,
        lease: float = LEASE_S, operation: float = OPERATION_S, join: float = JOIN_S,
        patience: Patience | None = PATIENCE,
    ) -> None:  # fmt: skip
        self._store, self._listener, self._token, self._tls = store, listener, token, tls
        self._operation, self._join, self._patience = operation, join, patience
        self._links: _Links | None = None
        self._put_out: list[int] = []  #: ranks, one after the other; the same on all nodes
        rest = patience or PATIENCE
        self.membership = Membership(store, node, size, gone=self._gone, lease=lease, rest=rest.rest,
                                     longest_rest=rest.longest_rest)  # fmt: skip
        self.publisher = Publisher(store, node)  #: what this node says of itself to who looks
        self.recoveries: list[Recovery] = []
        self.step = _NEW  #: which is taken next

    def run(
        self,
        training: Training,
        steps: int,
        *,
        first: int = 0,
        after: Callable[[int], None] | None = None,
    ) -> None:
        """Trains until so many steps are taken, by this node or by those whose state it got.

        Args:
            first: the step at which the job begins, or that is next in the checkpoint that this node has loaded. Where
                nodes have different ones, the newest counts, and the others get its state.
            after: called after each step that this node took, with its number.

        Raises:
            TimeoutError: too few nodes came.
        """
        try:
            self._run(training, steps, first, after or (lambda step: None))
        except Finished:
            return  # a spare node that was not needed, or one that the others did without

    def _run(
        self, training: Training, steps: int, first: int, after: Callable[[int], None]
    ) -> None:
        links = self._connected("the beginning", training, (), first)
        while True:
            try:
                if self.step >= steps:
                    links.group.barrier().wait()  # nobody leaves while another needs its state
                    self.membership.finish()
                    return
                training.compute(self.step, links.group)
                moves, slow = self._commit(links, training)
            except TransportError as error:
                links = self._connected(str(error), training, self._lost(links, error), first)
                continue
            training.apply(self.step)
            self.step += 1
            self.publisher.step(
                self.step, loss=getattr(training, "loss", None), epoch=links.epoch.number
            )
            after(self.step - 1)
            if slow:
                links = self._connected(self._without(links, slow), training, (), first)
            elif moves:
                links = self._connected(
                    "nodes wait, or another size was asked for", training, (), first
                )

    def close(self) -> None:
        """Leaves the others, who go on."""
        self.publisher.close()
        self.membership.close()
        if self._links is not None:
            self._links.close()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _commit(self, links: _Links, training: Training) -> tuple[bool, Sequence[Slow]]:
        """Until all ranks have the mean of the step; whether any of them knows of nodes that wait, and who is put out."""
        assert links.pace is not None
        member = self.membership
        return links.pace.commit(member.waiting, member.spares, getattr(training, "waited", None))

    def _without(self, links: _Links, slow: Sequence[Slow]) -> str:
        """Puts nodes out; why."""
        ranks, nodes = [one.rank for one in slow], links.epoch.nodes
        why = "; ".join(one.told(nodes[one.rank]) for one in slow)
        self._put_out += ranks
        self.membership.put_out([nodes[rank] for rank in ranks])
        if links.group.rank == min(set(range(links.group.size)).difference(ranks)):
            self.publisher.event("slow", why, epoch=links.epoch.number, step=self.step)
        return why

    def _gone(self, node: str) -> None:
        links = self._links
        if links is not None and node in links.epoch.nodes:
            links.mesh.abort(f"node {node} is gone")

    @staticmethod
    def _lost(links: _Links, error: TransportError) -> set[str]:
        """Who is dead or hangs, as far as this node can tell."""
        dead = {rank for rank, lost in links.mesh.lost().items() if not lost.left}
        if isinstance(error, TimedOut):
            dead |= set(error.missing)
        return links.nodes(dead)

    def _connected(self, why: str, training: Training, lost: Collection[str], first: int) -> _Links:
        """Connections of the next epoch, in which all ranks have the same state."""
        begin = time.monotonic()
        while True:
            if self._links is not None:
                self._links.close()
                self._links = None
            epoch = self.membership.next(lost, self._join)
            try:
                links = self._links = self._connect(epoch)
                least = self._share(training, links, first)
            except NotConnected as error:
                lost = {epoch.nodes[rank] for rank in error.missing}
            except TransportError as error:
                lost = self._lost(links, error)
            else:
                _log.info(
                    "epoch %d, %s: %d nodes, step %d",
                    epoch.number,
                    why,
                    len(epoch.nodes),
                    self.step,
                )
                seconds = time.monotonic() - begin
                self.recoveries.append(Recovery(why, self.step, epoch, seconds))
                if links.group.rank == 0:
                    self.publisher.epoch(
                        epoch.number, epoch.nodes, why, step=self.step, seconds=seconds
                    )
                links = self._links = replace(links, pace=self._pace(links.group, least))
                return links

    def _connect(self, epoch: Epoch) -> _Links:
        rank = epoch.rank(self.membership.node)
        assert rank is not None
        mesh = connect(self._store, self._listener, rank=rank, size=len(epoch.nodes), token=self._token, tls=self._tls,
                       epoch=epoch.number, timeout=CONNECT_S)  # fmt: skip
        group = MeshGroup(mesh, range(mesh.size), f"epoch {epoch.number}", self._operation)
        return _Links(epoch, mesh, group)

    def _pace(self, group: MeshGroup, least: int) -> Pace:
        if self._patience is None:
            return Pace(group, None)
        return Pace(group, Stragglers(self._patience, group.size, least, self._put_out))

    def _share(self, training: Training, links: _Links, first: int) -> int:
        """Gives the state of who is farthest to all others.

        Returns:
            how many must train at least, the same on all ranks.
        """
        group = links.group
        mine = (self.step, first, self._put_out, self.membership.size.least)
        steps, firsts, put_out, least = zip(*group.all_gather_object(mine).wait())
        begins = (
            max(steps) == _NEW
        )  # nobody has taken a step: the newest checkpoint counts, or rank 0's state
        known = firsts if begins else steps
        farthest = max(known)
        source = known.index(farthest)
        behind = [
            rank
            for rank in range(group.size)
            if rank != source and (begins or known[rank] < farthest)
        ]
        if behind:
            if group.rank == source:
                state = {name: np.ascontiguousarray(one) for name, one in training.state().items()}
                shapes = {name: (one.shape, one.dtype.name) for name, one in state.items()}
                group.broadcast_object(shapes, source).wait()
                for rank in behind:
                    for number, one in enumerate(state.values()):
                        self._moved(group.send(one, rank, number), rank)
            else:
                shapes = group.broadcast_object(None, source).wait()
                if group.rank in behind:
                    training.load(self._received(group, source, shapes))
        group.barrier().wait()
        self.step, self._put_out = farthest, list(put_out[source])
        return max(least)

    def _received(
        self, group: MeshGroup, source: int, shapes: Mapping[str, tuple[tuple[int, ...], str]]
    ) -> dict[str, np.ndarray]:
        state = {}
        for number, (name, (shape, dtype)) in enumerate(shapes.items()):
            state[name] = np.empty(shape, dtype)
            self._moved(group.receive(state[name], source, number), source)
        return state

    def _moved(self, work: Work[np.ndarray], rank: int) -> None:
        if not work.over_within(self._operation):
            raise TimedOut("the transfer of a state", self._operation, [rank], [])
        work.wait()
