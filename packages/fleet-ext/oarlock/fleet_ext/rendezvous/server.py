"""The built-in store: a server of threads and sockets, which needs nothing but this package."""

import socket
from pathlib import Path
from types import TracebackType
from typing import Any

from oarlock.fleet_ext.rendezvous import frames
from oarlock.fleet_ext.rendezvous.entrance import Entrance
from oarlock.fleet_ext.rendezvous.service import Limits, Service, Stopped
from oarlock.fleet_ext.transport import wire
from oarlock.fleet_ext.transport.errors import Refused

SEND_S = 10.0  #: that a client has to take its answer


class StoreServer:
    """Serves `TcpStore`s that have the token, until it is closed.

    Args:
        job: name, which clients must agree on.
        token: the job's secret (`oarlock.fleet_ext.transport.new_token`).
        host: address to listen on; every address with "".
        port: 0 for a free one.
        tls: certificates for encrypted connections, which clients must have too.
        journal: path of a file from which a restarted server has its keys, revisions, leases (which begin anew) and
            last answers again; without, they live as long as the server.
        durable: wait for the disk on each change, so that a power failure loses nothing.
        limits: what it takes.

    Raises:
        JournalError: the journal is damaged, is none, or is used by another server.
        OSError: the address cannot be listened on, or the journal not be opened.
    """

    def __init__(
        self, *, job: str, token: str, host: str = "127.0.0.1", port: int = 0,
        tls: wire.Tls | None = None, journal: str | Path | None = None, durable: bool = False,
        limits: Limits = Limits(),
    ) -> None:  # fmt: skip
        if durable and journal is None:
            raise ValueError("durable needs a journal: give its path")
        self._entrance = Entrance(
            self._serve, context=frames.handshake_context(job), token=token, tls=tls, host=host, port=port,
            most=limits.connections, name=f"store of {job}",
        )  # fmt: skip
        try:
            self._service = Service(None if journal is None else Path(journal), durable, limits)
        except BaseException:
            self._entrance.close()
            raise
        self.address = self._entrance.address
        self._entrance.open()

    @property
    def refused(self) -> int:
        """Connections so far."""
        return self._entrance.refused

    def close(self) -> None:
        """Ends all connections; the port is free afterwards."""
        if not self._entrance.closed:
            self._service.stop()  # nobody waits for an answer any more
            self._entrance.close()

    def __enter__(self) -> "StoreServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def _serve(self, connection: socket.socket, caller: str) -> None:
        try:
            while True:
                request = frames.receive(connection, frames.REQUEST_BYTES)
                frames.send(connection, self._answer(request), SEND_S)
        except Stopped:
            return
        except (KeyError, TypeError) as error:
            raise Refused(f"a request is none: {type(error).__name__}: {error}") from error

    def _answer(self, request: Any) -> bytes:
        if not isinstance(request, dict):
            raise Refused("a request has names")
        try:
            return frames.pack({"answer": self._service.handle(request)})
        except tuple(frames.ERRORS.values()) as error:
            kind = next(name for name, one in frames.ERRORS.items() if isinstance(error, one))
            return frames.pack({"error": kind, "message": str(error)})
