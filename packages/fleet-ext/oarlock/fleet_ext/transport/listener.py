"""Where a rank is called by the others: one port for all epochs of a job."""

import json
import socket
import threading
import time
from collections import defaultdict
from typing import Any

from oarlock.fleet_ext.transport import wire
from oarlock.fleet_ext.transport.errors import Refused

_LENGTH = 4  #: bytes of an introduction's length
_LONGEST = 1024  #: of an introduction
_ACCEPTED = b"\x01"
_PENDING = 64  #: handshakes that go on at a time
_INSISTING_S = (
    3.0  #: how long a caller tries again that is refused, since strangers may fill the door
)


class Listener:
    """Accepts connections that have the job's token, and keeps them until their epoch is asked for.

    Args:
        job: name, which both ends must agree on.
        token: the job's secret.
        host: address to listen on; every address with "".
        port: 0 for a free one.
        tls: certificates for encrypted connections.
    """

    def __init__(
        self, *, job: str, token: str, host: str = "127.0.0.1", port: int = 0,
        tls: wire.Tls | None = None,
    ) -> None:  # fmt: skip
        if not token:
            raise ValueError(
                "token must not be empty: oarlock.fleet_ext.transport.new_token() makes one"
            )
        self.job, self._token, self._tls = job, token, tls
        self._socket = socket.create_server((host, port), backlog=256)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self._change = threading.Condition()
        self._waiting: dict[tuple[int, int], dict[int, socket.socket]] = defaultdict(dict)
        self._oldest = 0
        self._closed = False
        self._shaking = threading.BoundedSemaphore(_PENDING)
        self.refused = 0  #: connections so far
        threading.Thread(target=self._accept_all, name=f"{job} listens", daemon=True).start()

    def take(self, epoch: int, peer: int, count: int, until: float) -> list[socket.socket] | None:
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
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is over already
        self._socket.close()
        self.forget_before(1 << 62)

    def _accept_all(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
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
            connection = wire.welcome(connection, self._token, self.job, self._tls)
            said = _read_introduction(connection)
            with self._change:
                epoch, peer, index = (int(said[key]) for key in ("epoch", "rank", "index"))
                if epoch < self._oldest or self._closed:
                    raise Refused(f"epoch {epoch} is over")
                connection.sendall(_ACCEPTED)
                earlier = self._waiting[epoch, peer].pop(index, None)
                if earlier is not None:
                    earlier.close()
                self._waiting[epoch, peer][index] = connection
                self._change.notify_all()
        except (Refused, OSError, EOFError, ValueError, KeyError, TypeError):
            self.refused += 1
            connection.close()
        finally:
            self._shaking.release()


def call(
    address: tuple[str, int], *, job: str, token: str, tls: wire.Tls | None, epoch: int, rank: int,
    index: int, until: float,
) -> socket.socket:  # fmt: skip
    """Connects to a listener, trying again while nobody listens.

    Raises:
        Refused: it listens, and does not want this connection.
        TimeoutError: nobody listens there.
    """
    insisting = None
    while True:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"nobody listens at {address[0]}:{address[1]}")
        try:
            connection = socket.create_connection(address, timeout=min(left, wire.HANDSHAKE_S))
        except OSError:
            time.sleep(0.02)
            continue
        try:
            connection = wire.greet(connection, token, job, tls)
        except Refused:
            insisting = insisting or time.monotonic() + _INSISTING_S
            if time.monotonic() > min(insisting, until):
                raise
            time.sleep(0.1)
            continue
        said = json.dumps({"epoch": epoch, "rank": rank, "index": index}).encode()
        try:
            connection.sendall(len(said).to_bytes(_LENGTH, "little") + said)
            wire.read_exactly(connection, len(_ACCEPTED), time.monotonic() + wire.HANDSHAKE_S)
            connection.settimeout(None)
        except (OSError, EOFError) as error:
            connection.close()
            raise Refused(f"epoch {epoch} is over at {address[0]}:{address[1]}") from error
        return connection


def _read_introduction(connection: socket.socket) -> dict[str, Any]:
    deadline = time.monotonic() + wire.HANDSHAKE_S
    length = int.from_bytes(wire.read_exactly(connection, _LENGTH, deadline), "little")
    if length > _LONGEST:
        raise Refused("an introduction is short")
    said = json.loads(wire.read_exactly(connection, length, deadline))
    connection.settimeout(None)
    if not isinstance(said, dict):
        raise Refused("an introduction has names")
    return said
