"""Messages with tags between all ranks of one epoch.

A message belongs to a group, has a tag that the group uses once, and goes straight into the buffer of who waits for it;
what comes before anybody waits is kept, up to a limit, behind which its sender has to wait. When a rank is lost, all
that waits in its groups fails at once.
"""

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from oarlock.fleet_ext.transport import wire
from oarlock.fleet_ext.transport.errors import Aborted, Disagreement, PeerLost, TransportError
from oarlock.fleet_ext.transport.link import Connection, Incoming, Outgoing
from oarlock.fleet_ext.transport.work import Work

EARLY_BYTES = 1 << 30  #: kept of messages that nobody waits for yet

Key = tuple[int, int, int]  #: source, group, tag


@dataclass(slots=True)
class _Member:
    """A group that this rank is in."""

    ranks: frozenset[int]
    begun: int = 0  #: operations
    error: TransportError | None = None


@dataclass(slots=True)
class _Expected:
    """A message that somebody waits for."""

    view: memoryview
    check: int
    work: Work[None]

    def takes(self, length: int, check: int) -> bool:
        return length == len(self.view) and check == self.check

    def refuse(self, source: int, length: int, check: int) -> None:
        if check != self.check:
            self.work.fail(Disagreement(source))
        else:
            self.work.fail(TransportError(
                f"rank {source} sent {length} bytes where {len(self.view)} were expected: give all ranks arrays of the"
                " same shape and type"
            ))  # fmt: skip


@dataclass(slots=True)
class _Query:
    """A question how far others are."""

    answers: dict[int, int] = field(default_factory=dict)
    change: threading.Event = field(default_factory=threading.Event)


class Mesh:
    """All connections of one rank.

    Args:
        rank, size: of this rank in the job.
        lost: called from a connection's thread when a rank is lost.
    """

    def __init__(
        self, rank: int, size: int, *, lost: Callable[[PeerLost], None] | None = None
    ) -> None:
        self.rank, self.size = rank, size
        self._tell_lost = lost
        self._outgoing: dict[int, Sequence[Outgoing]] = {}
        self._incoming: dict[int, Sequence[Incoming]] = {}
        self._change = threading.Condition()
        self._waiting: dict[Key, _Expected] = {}
        self._early: dict[Key, tuple[bytearray, int]] = {}
        self._early_bytes = 0
        #: Groups that others gave up before this rank joined them.
        self._aborted: dict[int, Aborted] = {}
        self._groups: dict[int, _Member] = {}
        self._lost: dict[int, PeerLost] = {}
        self._farewells: dict[int, int] = {}
        self._queries: dict[int, _Query] = {}
        self._query_numbers = itertools.count(1)
        self._first_begun: float | None = None
        self._closed = False

    def attach(
        self,
        outgoing: Mapping[int, Sequence[Connection]],
        incoming: Mapping[int, Sequence[Connection]],
        name: str,
    ) -> None:
        """Takes the connections to and from each other rank, and begins to read.

        Args:
            name: of the job and epoch, for the names of threads.
        """
        for peer, connections in outgoing.items():
            self._outgoing[peer] = [
                Outgoing(one, f"{name} {self.rank} to {peer}", self._peer_failed(peer))
                for one in connections
            ]
        for peer, connections in incoming.items():
            self._farewells[peer] = len(connections)
            self._incoming[peer] = [
                Incoming(one, f"{name} {self.rank} from {peer}", self._arrived_from(peer), self._ended_from(peer))
                for one in connections
            ]  # fmt: skip
        for links in self._incoming.values():
            for link in links:
                link.start()

    # Groups

    def join(self, group: int, ranks: Sequence[int]) -> None:
        """Begins to take part in a group.

        Raises:
            ValueError: this rank is in a group of that number already.
        """
        with self._change:
            if group in self._groups:
                raise ValueError(f"group {group:#x} is in use: give the new one another name")
            gone = [self._lost[one] for one in ranks if one in self._lost]
            lost = next((one for one in gone if not one.left), None)
            error = self._aborted.pop(group, lost)
            self._groups[group] = _Member(ranks=frozenset(ranks), error=error)

    def leave(self, group: int) -> None:
        """Ends this rank's part in a group; what waits in it fails."""
        self.break_group(group, Aborted("the group is closed"), tell=False)

    def begin(self, group: int) -> int:
        """Counts an operation of a group, of which others may ask; its number, from 1."""
        with self._change:
            member = self._groups[group]
            if member.error is not None:
                raise member.error
            if self._first_begun is None:
                self._first_begun = time.monotonic()
            member.begun += 1
            return member.begun

    def error(self, group: int) -> TransportError | None:
        """What broke a group, if anything."""
        with self._change:
            return self._groups[group].error

    def break_group(self, group: int, error: TransportError, *, tell: bool) -> None:
        """Fails all that waits in a group here, and on the other members if `tell`."""
        with self._change:
            member = self._groups.get(group)
            if member is None or member.error is not None:
                return
            member.error = error
            failed = self._take_waiting(lambda key: key[1] == group)
            for key in [key for key in self._early if key[1] == group]:
                self._early_bytes -= len(self._early.pop(key)[0])
            self._change.notify_all()
        for work in failed:
            work.fail(error)
        if tell:
            said = str(error).encode()[:4096]
            for rank in member.ranks - {self.rank} - self._lost.keys():
                self._send(rank, wire.Header(kind=wire.ABORT, group=group, tag=0, length=len(said)),
                           memoryview(said))  # fmt: skip

    def abort(self, reason: str) -> None:
        """Breaks all groups, here and on every rank; from any thread."""
        for group in list(self._groups):
            self.break_group(group, Aborted(f"aborted: {reason}"), tell=True)

    # Messages

    def send(self, view: memoryview, to: int, group: int, tag: int, check: int = 0) -> Work[None]:
        """Sends bytes, which must stay as they are until the work is over.

        Args:
            check: 16 bits that who receives must expect.
        """
        work: Work[None] = Work()
        header = wire.Header(kind=wire.DATA, group=group, tag=tag, length=len(view), check=check)
        if to == self.rank:
            self._deliver(header, view)
            work.finish(None)
        else:
            self._send(to, header, view, work)
        return work

    def receive(
        self, view: memoryview, source: int, group: int, tag: int, check: int = 0
    ) -> Work[None]:
        """Waits for a message of just as many bytes.

        After an error the buffer may still be written to until the mesh is closed.
        """
        expected = _Expected(view, check, Work())
        key = (source, group, tag)
        with self._change:
            member = self._groups[group]
            early = self._early.pop(key, None)
            error = member.error or (self._lost.get(source) if early is None else None)
            if error is None and early is None:
                assert key not in self._waiting, "a tag is used once"
                self._waiting[key] = expected
            elif early is not None:
                self._early_bytes -= len(early[0])
            self._change.notify_all()
        if error is not None:
            expected.work.fail(error)
        elif early is not None:
            self._hand_over(source, early[0], early[1], expected)
        return expected.work

    def unclaimed(self, group: int, below: int) -> int | None:
        """A rank whose message with a lower tag nobody has waited for, if there is one."""
        with self._change:
            found = (key[0] for key in self._early if key[1] == group and key[2] < below)
            return next(found, None)

    def progress(self, group: int, ranks: Sequence[int], within: float) -> dict[int, int]:
        """How many operations of a group other ranks have begun, of those that answer in time (seconds)."""
        number, query = next(self._query_numbers), _Query()
        asked = {rank for rank in ranks if rank != self.rank and rank not in self._lost}
        self._queries[number] = query
        try:
            for rank in asked:
                self._send(rank, wire.Header(kind=wire.PING, group=group, tag=number, length=0))
            until = time.monotonic() + within
            while len(query.answers) < len(asked):
                query.change.clear()
                if len(query.answers) < len(asked) and not query.change.wait(
                    max(0.0, until - time.monotonic())
                ):
                    break
            return dict(query.answers)
        finally:
            del self._queries[number]

    def lost(self) -> dict[int, PeerLost]:
        """Ranks that are gone."""
        with self._change:
            return dict(self._lost)

    def traffic(self) -> tuple[int, int]:
        """Bytes sent and received so far."""
        return (
            sum(one.bytes_sent for links in self._outgoing.values() for one in links),
            sum(one.bytes_received for links in self._incoming.values() for one in links),
        )

    def reading(self) -> list[float]:
        """Seconds in which payloads of each rank were on their way here so far: a slow link has many."""
        return [
            sum((one.reading_s for one in self._incoming.get(peer, ())), 0.0)
            for peer in range(self.size)
        ]

    def first_begun(self) -> float | None:
        """When the first operation behind the last call of this was begun, by `time.monotonic`; None where none was.

        All that a rank does up to there it does by itself: it has waited for nobody.
        """
        with self._change:
            found, self._first_begun = self._first_begun, None
            return found

    # The end

    def close(self, *, farewell: bool = True) -> None:
        """Ends all connections; nothing is written to anybody's buffer after this.

        Args:
            farewell: send first what is queued, and tell the others, for which this rank is not lost then.
        """
        with self._change:
            if self._closed:
                return
            self._closed = True
            self._change.notify_all()
        for outgoing in self._each(self._outgoing):
            outgoing.close(farewell=farewell)
        for incoming in self._each(self._incoming):
            incoming.close()
        for group in list(self._groups):
            self.break_group(group, Aborted("the connections are closed"), tell=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(farewell=kind is None)

    # From the threads of connections

    @staticmethod
    def _each(links: Mapping[int, Sequence]) -> list:
        return [one for many in links.values() for one in many]

    def _send(
        self,
        to: int,
        header: wire.Header,
        view: memoryview | None = None,
        work: Work[None] | None = None,
    ) -> None:
        links = self._outgoing[to]
        links[header.tag % len(links)].send(header, view, work)

    def _arrived_from(self, peer: int) -> Callable[[wire.Header, Incoming], None]:
        return lambda header, link: self._arrived(peer, header, link)

    def _ended_from(self, peer: int) -> Callable[[BaseException | None], None]:
        return lambda error: self._ended(peer, error)

    def _peer_failed(self, peer: int) -> Callable[[BaseException], None]:
        return lambda error: self._ended(peer, error)

    def _arrived(self, peer: int, header: wire.Header, link: Incoming) -> None:
        if header.kind == wire.DATA:
            self._take(peer, header, link)
            return
        payload = bytearray(min(header.length, 4096))
        link.read(memoryview(payload))
        if header.kind == wire.PING:
            with self._change:
                member = self._groups.get(header.group)
                begun = member.begun if member is not None else 0
            said = begun.to_bytes(8, "little")
            answer = wire.Header(kind=wire.PONG, group=header.group, tag=header.tag, length=8)
            self._send(peer, answer, memoryview(said))
        elif header.kind == wire.PONG:
            query = self._queries.get(header.tag)
            if query is not None:
                query.answers[peer] = int.from_bytes(payload, "little")
                query.change.set()
        elif header.kind == wire.ABORT:
            reason = payload.decode(errors="replace")
            error = Aborted(f"rank {peer} said: {reason}", elsewhere=True)
            with self._change:
                if header.group not in self._groups:  # this rank has yet to join it
                    self._aborted[header.group] = error
            self.break_group(header.group, error, tell=False)

    def _take(self, peer: int, header: wire.Header, link: Incoming) -> None:
        """Reads a message into the buffer that waits for it, or keeps it."""
        key, length = (peer, header.group, header.tag), header.length
        with self._change:
            while (
                key not in self._waiting
                and self._early_bytes + length > EARLY_BYTES
                and not self._closed
                and self._broken(header.group) is None
            ):
                self._change.wait()
            expected = self._waiting.pop(key, None)
            if expected is None:
                self._early_bytes += length
        if expected is not None and expected.takes(length, header.check):
            try:
                link.read(expected.view)
            except BaseException:
                self._not_come(key, expected)
                raise
            expected.work.finish(None)
            return
        data = bytearray(length)
        link.read(memoryview(data))
        if expected is not None:
            expected.refuse(peer, length, header.check)
            return
        with self._change:
            expected = self._waiting.pop(key, None)  # somebody may have come meanwhile
            dropped = self._broken(header.group) is not None
            if expected is None and not dropped:
                self._early[key] = (data, header.check)
                return
            self._early_bytes -= length
            self._change.notify_all()
        if expected is not None:
            self._hand_over(peer, data, header.check, expected)

    def _not_come(self, key: Key, expected: _Expected) -> None:
        """Of a message whose sender was lost in the middle of it: `_ended` fails it, with all others."""
        with self._change:
            error = self._broken(key[1]) or self._lost.get(key[0])
            if error is None and self._closed:
                error = Aborted("the connections are closed")
            if error is None:
                self._waiting[key] = expected
        if error is not None:
            expected.work.fail(error)

    def _deliver(self, header: wire.Header, view: memoryview) -> None:
        """A message of this rank to itself."""
        key = (self.rank, header.group, header.tag)
        with self._change:
            expected = self._waiting.pop(key, None)
            if expected is None:
                self._early[key] = (bytearray(view), header.check)
                self._early_bytes += len(view)
                return
        self._hand_over(self.rank, view, header.check, expected)

    @staticmethod
    def _hand_over(
        peer: int, data: bytearray | memoryview, check: int, expected: _Expected
    ) -> None:
        if expected.takes(len(data), check):
            expected.view[:] = data
            expected.work.finish(None)
        else:
            expected.refuse(peer, len(data), check)

    def _broken(self, group: int) -> TransportError | None:
        member = self._groups.get(group)
        return member.error if member is not None else None

    def _ended(self, peer: int, error: BaseException | None) -> None:
        with self._change:
            if self._closed or peer in self._lost:
                return
            if error is None:
                self._farewells[peer] -= 1
                if self._farewells[peer]:
                    return
            why = "it left" if error is None else str(error) or type(error).__name__
            lost = self._lost[peer] = PeerLost(peer, why, left=error is None)
            broken = {
                number
                for number, member in self._groups.items()
                if peer in member.ranks and member.error is None
            }
            # Who said farewell has sent all: only what waits for it fails, the rest may still end well.
            if error is None:
                failed = self._take_waiting(lambda key: key[0] == peer)
            else:
                for number in broken:
                    self._groups[number].error = lost
                failed = self._take_waiting(lambda key: key[1] in broken or key[0] == peer)
            self._change.notify_all()
        for work in failed:
            work.fail(lost)
        if self._tell_lost is not None:
            self._tell_lost(lost)

    def _take_waiting(self, chosen: Callable[[Key], bool]) -> list[Work[None]]:
        keys = [key for key in self._waiting if chosen(key)]
        return [self._waiting.pop(key).work for key in keys]
