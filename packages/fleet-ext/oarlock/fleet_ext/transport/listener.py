"""Where a rank is called by the others: one port for all epochs of a job."""

import json
import os
import secrets
import socket
import threading
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from oarlock.fleet_ext.transport import wire
from oarlock.fleet_ext.transport.errors import Refused
from oarlock.fleet_ext.transport.link import Connection
from oarlock.fleet_ext.transport.ring import Ring

_LENGTH = 4  #: bytes of an introduction's length
_LONGEST = 1024  #: of an introduction
_ACCEPTED = b"\x01"
_PENDING = 64  #: handshakes that go on at a time


@dataclass(frozen=True, slots=True)
class Address:
    """Where a rank listens.

    Args:
        host, port: for everybody.
        machine: which kernel and network namespace it is in.
        path: of the socket for ranks of the same machine, in Linux' abstract names; "" without one.
    """

    host: str
    port: int
    machine: str = ""
    path: str = ""

    def pack(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def unpack(cls, packed: bytes) -> "Address":
        return cls(**json.loads(packed))


class Listener:
    """Accepts connections that have the job's token, and keeps them until their epoch is asked for.

    Args:
        job: name, which both ends must agree on.
        token: the job's secret.
        host: address to listen on, by which others call; with "0.0.0.0" or "::" give `advertise` too.
        port: 0 for a free one.
        advertise: what others call, where that is not `host`.
        tls: certificates for encrypted connections.
        shared: whether ranks of the same machine use memory that they share.
    """

    def __init__(
        self,
        *,
        job: str,
        token: str,
        host: str = "127.0.0.1",
        port: int = 0,
        advertise: str | None = None,
        tls: wire.Tls | None = None,
        shared: bool = True,
    ) -> None:
        if not token:
            raise ValueError(
                "token must not be empty: oarlock.fleet_ext.transport.new_token() makes one"
            )
        if host in ("", "0.0.0.0", "::") and advertise is None:
            raise ValueError(
                f"advertise must say how others reach a listener on {host or 'all addresses'}"
            )
        self.job, self._token, self._tls = job, token, tls
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sockets = [socket.create_server((host, port), family=family, backlog=256)]
        path = f"oarlock-{secrets.token_hex(16)}" if shared else ""
        if shared:
            local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            local.bind(f"\0{path}")
            local.listen(256)
            sockets.append(local)
        self.address = Address(advertise or host, sockets[0].getsockname()[1], this_machine(), path)
        self._sockets = sockets
        self._change = threading.Condition()
        self._waiting: dict[tuple[int, int], dict[int, Connection]] = defaultdict(dict)
        self._oldest = 0
        self._closed = False
        self._shaking = threading.BoundedSemaphore(_PENDING)
        self.refused = 0  #: connections so far
        for one in sockets:
            threading.Thread(
                target=self._accept_all, args=(one,), name=f"{job} listens", daemon=True
            ).start()

    def take(self, epoch: int, peer: int, count: int, until: float) -> list[Connection] | None:
        """The connections of a rank in an epoch, in their order.

        Args:
            until: on the monotonic clock.

        Returns:
            None if they have not come by then.
        """
        with self._change:
            while len(self._waiting[epoch, peer]) < count:
                left = until - time.monotonic()
                if left <= 0 or self._closed:
                    return None
                self._change.wait(left)
            found = self._waiting.pop((epoch, peer))
            return [found[index] for index in range(count)]

    def forget_before(self, epoch: int) -> None:
        """Refuses what belongs to earlier epochs from now on."""
        with self._change:
            self._oldest = max(self._oldest, epoch)
            for key in [key for key in self._waiting if key[0] < epoch]:
                for connection in self._waiting.pop(key).values():
                    connection.close()

    def close(self) -> None:
        with self._change:
            self._closed = True
            self._change.notify_all()
        for one in self._sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is over already
            one.close()
        self.forget_before(1 << 62)

    def _accept_all(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                if self._closed:
                    return
                time.sleep(
                    0.05
                )  # out of descriptors, or the caller went away: others may still come
                continue
            if not self._shaking.acquire(blocking=False):
                connection.close()
                self.refused += 1
                continue
            threading.Thread(target=self._admit, args=(connection,), daemon=True).start()

    def _admit(self, connection: socket.socket) -> None:
        try:
            local = connection.family == socket.AF_UNIX
            connection = wire.welcome(
                connection, self._token, self.job, None if local else self._tls
            )
            said = _read_introduction(connection)
            epoch, peer, index = (int(said[key]) for key in ("epoch", "rank", "index"))
            ring = Ring(_received_file(connection)) if local else None
            with self._change:
                if epoch < self._oldest or self._closed:
                    raise Refused(f"epoch {epoch} is over")
                connection.sendall(_ACCEPTED)
                connection.settimeout(None)
                earlier = self._waiting[epoch, peer].pop(index, None)
                if earlier is not None:
                    earlier.close()
                self._waiting[epoch, peer][index] = Connection(connection, ring)
                self._change.notify_all()
        except (Refused, OSError, EOFError, ValueError, KeyError, TypeError):
            self.refused += 1
            connection.close()
        finally:
            self._shaking.release()


def this_machine() -> str:
    """The same for processes that can reach each other by a local socket, and for no others."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.stat('/proc/self/ns/net').st_ino}"


def _read_introduction(connection: socket.socket) -> dict[str, Any]:
    deadline = time.monotonic() + wire.HANDSHAKE_S
    length = int.from_bytes(wire.read_exactly(connection, _LENGTH, deadline), "little")
    if length > _LONGEST:
        raise Refused("an introduction is short")
    said = json.loads(wire.read_exactly(connection, length, deadline))
    if not isinstance(said, dict):
        raise Refused("an introduction has names")
    return said


def _received_file(connection: socket.socket) -> int:
    """The descriptor that comes behind an introduction."""
    connection.settimeout(wire.HANDSHAKE_S)
    data, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
    if not data or len(descriptors) != 1:
        for one in descriptors:
            os.close(one)
        raise Refused("a local connection brings a file")
    return descriptors[0]


def introduce(
    connection: socket.socket, *, epoch: int, rank: int, index: int, ring: int | None
) -> None:
    """What a caller says behind the handshake, and waits for the answer.

    Args:
        ring: a file in memory that is handed over.

    Raises:
        Refused: the epoch is over there.
    """
    said = json.dumps({"epoch": epoch, "rank": rank, "index": index}).encode()
    try:
        connection.sendall(len(said).to_bytes(_LENGTH, "little") + said)
        if ring is not None:
            socket.send_fds(connection, [b"\x00"], [ring])
        wire.read_exactly(connection, len(_ACCEPTED), time.monotonic() + wire.HANDSHAKE_S)
        connection.settimeout(None)
    except (OSError, EOFError) as error:
        connection.close()
        raise Refused(f"epoch {epoch} is over there, or the listener is closed") from error
