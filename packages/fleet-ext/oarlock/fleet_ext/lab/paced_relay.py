"""The links of a paced network: a program through which the TCP connections between its hosts go.

A byte from host i to host j passes the upload of i and then the download of j, one behind the other
with all others on that link, and arrives after the delay. A link is a clock that says until when it
is taken: a piece of n bytes takes it for 8 n / rate seconds from then on. The clock of a link that was
idle may begin a little before now, as in a token bucket; that of one that was not goes on where it was,
however late this program gets the processor. While an upload is taken nothing is read from its host, so
that the kernel lets senders wait. Connections take turns.

It is run by its path, ``paced_relay.py <rate in bit/s> <delay in s> <hosts> <control socket>``, and
writes its port when it is ready. With its standard input it ends, and removes the socket's folder.
`paced_connect.c` has the other end of the control socket.
"""

import errno
import gc
import heapq
import itertools
import select
import shutil
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

#: Seconds of traffic that may pass at once, and that may wait for a download; those of the lab's links.
BURST, QUEUE = 0.0025, 0.05
#: Seconds that a link's clock may be behind because this program was.
LATE = 0.05
#: Bytes of a piece, which takes a link for `BURST` or less.
LEAST_PIECE, LARGEST_PIECE = 1448, 1 << 18
#: Of bytes on a link of Ethernet, those that TCP carries.
CARRIED = 1448 / 1514
#: Bytes that the kernel keeps of what a host sends, and that wait here for one that does not read.
KEPT, WAITING = 1 << 20, 1 << 18
#: Seconds within which a port that listens accepts.
ACCEPTED_S = 1.0
#: What `connect` is told where the other end is on the same host, whose own traffic has no link.
DIRECT = -1
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by a reset


class Descriptor(Protocol):
    """What has one."""

    def fileno(self) -> int: ...


class Link:
    """One direction of a host's cable.

    Args:
        rate: payload, byte/s.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self.free = 0.0  #: from when on, on the monotonic clock

    def carry(self, size: int, since: float) -> tuple[float, float]:
        """When the first and the last of so many bytes pass, where the first is there since then."""
        begin = max(self.free, since - BURST)
        self.free = begin + size / self._rate
        return max(begin, since), max(self.free, since)


class Relay:
    """All connections.

    Args:
        rate: bit/s of each direction of each host's link.
        delay: s, one way.
        hosts: how many.
        control: path of the socket on which processes ask.
    """

    def __init__(self, rate: float, delay: float, hosts: int, control: str) -> None:
        payload = rate / 8 * CARRIED
        self.delay = delay
        self.piece = round(min(max(payload * BURST, LEAST_PIECE), LARGEST_PIECE))
        self.poller = select.epoll()
        self.handlers: dict[int, Callable[[], None]] = {}
        self.hosts = [Host(self, Link(payload), Link(payload)) for _ in range(hosts)]
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._serials = itertools.count()
        self._owners: dict[int, int] = {}  # hosts of ports
        self._expected: dict[int, tuple[int, int, socket.socket]] = {}  # by the caller's port
        self._door = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KEPT)
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.bind(control)
        self._control.listen(256)
        self.port = self._door.getsockname()[1]
        self.watch(self._door, self._admit)
        self.watch(self._control, self._hear)
        self.watch(sys.stdin, partial(self._end, Path(control).parent))

    def run(self) -> None:
        """Carries until the standard input ends, as it does with the process that has the network."""
        while True:
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2]()
            wait = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            select.select([self.poller], [], [], wait)
            for descriptor, _ in self.poller.poll(0):
                if descriptor in self.handlers:  # else one before has ended it
                    self.handlers[descriptor]()

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Calls at a time of the monotonic clock; those of one time in their order."""
        heapq.heappush(self._timers, (when, next(self._serials), call))

    def watch(
        self, what: Descriptor, call: Callable[[], None], events: int = select.EPOLLIN
    ) -> None:
        """Calls when something can be read, or as `events` say."""
        self.handlers[what.fileno()] = call
        self.poller.register(what, events)

    def forget(self, what: Descriptor) -> None:
        if self.handlers.pop(what.fileno(), None) is not None:
            self.poller.unregister(what)

    def _end(self, folder: Path) -> None:
        """Ends all connections, since nobody has the network any more, and removes what it had."""
        shutil.rmtree(folder)
        sys.exit()

    def _hear(self) -> None:
        line, _ = self._control.accept()
        line.setblocking(False)
        self.watch(line, partial(self._answer, line))

    def _answer(self, line: socket.socket) -> None:
        try:
            words = line.recv(128).decode().split()
            if words:  # else who asks has ended
                line.send(b"%d" % self._done(*words))
        except BlockingIOError:
            return
        except OSError:
            pass  # who asked has ended
        self.forget(line)
        line.close()

    def _done(self, what: str, host: str, port: str, address: str = "", wanted: str = "") -> int:
        """An error number, 0, or `DIRECT`."""
        if what == "listen":
            self._owners[int(port)] = int(host)
            return 0
        owner = self._owners.get(int(wanted))
        if owner is None:
            return errno.ECONNREFUSED
        if owner == int(host):
            return DIRECT
        onward = socket.socket()
        onward.settimeout(ACCEPTED_S)
        onward.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KEPT)
        try:
            onward.connect((address, int(wanted)))
        except OSError as error:
            onward.close()
            return error.errno or errno.ETIMEDOUT
        self._expected[int(port)] = int(host), owner, onward
        return 0

    def _admit(self) -> None:
        caller, address = self._door.accept()
        if address[1] not in self._expected:
            caller.close()  # a stranger
            return
        here, there, onward = self._expected.pop(address[1])
        Connection(self, (self.hosts[here], caller), (self.hosts[there], onward))


class Host:
    """One host's link.

    Attributes:
        up, down: its directions.
        ready: of the sockets that it sends on, those where there is something to read.
    """

    def __init__(self, relay: Relay, up: Link, down: Link) -> None:
        self._relay, self.up, self.down = relay, up, down
        self.ways: dict[int, Way] = {}
        self.ready = select.epoll()
        relay.watch(self.ready, self._begin)

    def _begin(self) -> None:
        """Carries on, now that there is something to read."""
        self._relay.forget(self.ready)
        self._carry(time.monotonic())

    def _go_on(self) -> None:
        """Carries on, now that the link is free."""
        self._carry(max(self.up.free, time.monotonic() - LATE))

    def _carry(self, since: float) -> None:
        """One piece of one connection; the kernel puts that behind the others."""
        found = self.ready.poll(0, 1)
        if found:
            self.ways[found[0][0]].carry(since)
            self._relay.at(self.up.free, self._go_on)
        else:
            self._relay.watch(self.ready, self._begin)


class Connection:
    """Two sockets, and a way from each to the other."""

    def __init__(
        self, relay: Relay, first: tuple[Host, socket.socket], second: tuple[Host, socket.socket]
    ) -> None:
        self._sockets = first[1], second[1]
        for one in self._sockets:
            one.setblocking(False)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ways = Way(relay, self, first, second), Way(relay, self, second, first)

    def finish(self) -> None:
        """Closes what has ended both ways."""
        if all(way.over for way in self._ways):
            for one in self._sockets:
                one.close()

    def abort(self) -> None:
        """Ends both ways at once, as the one that broke did."""
        for way in self._ways:
            way.close()
        for one in self._sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            one.close()


class Way:
    """From one host to another, for one connection.

    Attributes:
        over: nothing more will arrive.
    """

    def __init__(
        self, relay: Relay, connection: Connection, here: tuple[Host, socket.socket], there: tuple[Host, socket.socket]
    ) -> None:  # fmt: skip
        self.over = False
        self._relay, self._connection = relay, connection
        self._here, self._source = here
        self._there, self._sink = there
        self._waiting: deque[bytes] = deque()  # for a sink that takes no more; b"" is the end
        self._reading = self._ended = False
        self._passed = 0.0  # when the last piece was through both links
        self._read()

    def carry(self, since: float) -> None:
        """Sends a piece from the source, or its end, on the way; it could have been sent since then."""
        try:
            data = self._source.recv(self._relay.piece)
        except BlockingIOError:
            return
        except OSError:
            self._connection.abort()
            return
        first, last = self._here.up.carry(len(data), since)
        # What may count from earlier does not overtake what was sent before.
        self._passed = max(self._passed, last, self._there.down.carry(len(data), first)[1])
        self._relay.at(self._passed + self._relay.delay, partial(self._arrive, data))
        if not data:
            self._ended = True
            self._pause()
        elif (behind := self._there.down.free - QUEUE) > time.monotonic():
            self._pause()
            self._relay.at(behind, self._read)

    def close(self) -> None:
        """Drops what has not arrived."""
        self.over = True
        self._pause()
        self._relay.forget(self._sink)

    def _read(self) -> None:
        if not (self._reading or self._ended or self.over or self._full()):
            self._reading = True
            self._here.ways[self._source.fileno()] = self
            self._here.ready.register(self._source, select.EPOLLIN)

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._here.ready.unregister(self._source)
            del self._here.ways[self._source.fileno()]

    def _full(self) -> bool:
        return sum(map(len, self._waiting)) > WAITING

    def _arrive(self, data: bytes) -> None:
        if self.over:
            return
        self._waiting.append(data)
        if len(self._waiting) == 1:
            self._hand_over()
        if self._full():
            self._pause()

    def _hand_over(self) -> None:
        """Gives the sink what it takes."""
        self._relay.forget(self._sink)
        try:
            while self._waiting:
                data = self._waiting[0]
                if not data:
                    self.over = True
                    self._sink.shutdown(socket.SHUT_WR)
                    self._connection.finish()
                    return
                sent = self._sink.send(data)
                if sent < len(data):
                    self._waiting[0] = data[sent:]
                else:
                    self._waiting.popleft()
        except BlockingIOError:
            self._relay.watch(self._sink, self._hand_over, select.EPOLLOUT)
        except OSError:
            self._connection.abort()
            return
        self._read()


if __name__ == "__main__":
    gc.disable()  # cycles are few, and small: two for each connection
    relay = Relay(float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    print(relay.port, flush=True)
    relay.run()
