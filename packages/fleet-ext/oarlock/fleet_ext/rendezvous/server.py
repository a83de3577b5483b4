"""The built-in store: a server of threads and sockets, which needs nothing but this package."""

import logging
import socket
import threading
import time
from collections import OrderedDict
from pathlib import Path
from types import TracebackType
from typing import Any

from oarlock.fleet_ext.rendezvous import frames
from oarlock.fleet_ext.rendezvous.errors import StoreError
from oarlock.fleet_ext.rendezvous.service import Limits, Service, Stopped
from oarlock.fleet_ext.transport import wire
from oarlock.fleet_ext.transport.errors import Refused

_log = logging.getLogger(__name__)

SHAKING = 128  #: handshakes at a time; when more come, the oldest is given up
SEND_S = 10.0  #: that a client has to take its answer
CLOSE_S = 5.0


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
        if not token:
            raise ValueError(
                "token must not be empty: oarlock.fleet_ext.transport.new_token() makes one"
            )
        if durable and journal is None:
            raise ValueError("durable needs a journal: give its path")
        self._context, self._token, self._tls, self._limits = frames.handshake_context(job), token, tls, limits  # fmt: skip
        self._socket = socket.create_server((host, port), backlog=512)
        try:
            self._service = Service(None if journal is None else Path(journal), durable, limits)
        except BaseException:
            self._socket.close()
            raise
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self.refused = 0  #: connections so far
        self._lock = threading.Lock()
        self._shaking: OrderedDict[int, socket.socket] = OrderedDict()
        self._clients: dict[socket.socket, threading.Thread] = {}
        self._closed = False
        self._accepting = threading.Thread(
            target=self._accept_all, name=f"store of {job}", daemon=True
        )
        self._accepting.start()

    def close(self) -> None:
        """Ends all connections; the port is free afterwards."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        frames.end(self._socket)
        self._accepting.join(CLOSE_S)
        self._socket.close()
        self._service.stop()
        with self._lock:
            threads = list(self._clients.values())
            for connection in [*self._clients, *self._shaking.values()]:
                frames.end(connection)
        for thread in threads:
            thread.join(CLOSE_S)

    def __enter__(self) -> "StoreServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def _accept_all(self) -> None:
        while True:
            try:
                connection, address = self._socket.accept()
            except OSError:
                if self._closed:
                    return
                time.sleep(0.05)  # out of descriptors, or the caller went away: others may come
                continue
            threading.Thread(
                target=self._serve, args=(connection, f"{address[0]}:{address[1]}"), daemon=True
            ).start()

    def _serve(self, connection: socket.socket, caller: str) -> None:
        try:
            frames.prepare(connection)
            connection = self._shake(connection)
        except (Refused, OSError) as error:
            connection.close()
            self._refuse(caller, error)
            return
        try:
            with self._lock:
                welcome = not self._closed and len(self._clients) < self._limits.connections
                if welcome:
                    self._clients[connection] = threading.current_thread()
            if not welcome:
                self._refuse(caller, StoreError(f"{self._limits.connections} are connected"))
                return
            while True:
                request = frames.receive(connection, frames.REQUEST_BYTES)
                frames.send(connection, self._answer(request), SEND_S)
        except (EOFError, OSError, Stopped):
            pass  # the client left, does not take its answer, or the server is being closed
        except (Refused, KeyError, TypeError) as error:
            self._refuse(caller, error)
        finally:
            with self._lock:
                self._clients.pop(connection, None)
            connection.close()

    def _shake(self, connection: socket.socket) -> socket.socket:
        # The copy is what can be shut down while TLS has the connection.
        with connection.dup() as copy:
            with self._lock:
                if self._closed:
                    raise Refused("the server is being closed")
                self._shaking[copy.fileno()] = copy
                if len(self._shaking) > SHAKING:
                    frames.end(next(iter(self._shaking.values())))
                    self._shaking.popitem(last=False)
            number = copy.fileno()
            try:
                return wire.welcome(connection, self._token, self._context, self._tls)
            finally:
                with self._lock:
                    if self._shaking.get(number) is copy:
                        del self._shaking[number]

    def _answer(self, request: Any) -> bytes:
        if not isinstance(request, dict):
            raise Refused("a request has names")
        try:
            return frames.pack({"answer": self._service.handle(request)})
        except tuple(frames.ERRORS.values()) as error:
            kind = next(name for name, one in frames.ERRORS.items() if isinstance(error, one))
            return frames.pack({"error": kind, "message": str(error)})

    def _refuse(self, caller: str, why: Exception) -> None:
        with self._lock:
            self.refused += 1
        _log.info("%s is refused: %s", caller, why)
