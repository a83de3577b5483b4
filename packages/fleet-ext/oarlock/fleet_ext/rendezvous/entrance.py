"""Where connections come in: those that have the job's token, each in a thread of its own."""

import logging
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from oarlock.fleet_ext.rendezvous import frames
from oarlock.fleet_ext.transport import wire
from oarlock.fleet_ext.transport.errors import Refused

_log = logging.getLogger(__name__)

SHAKING = 128  #: handshakes at a time; when more come, the oldest is given up
CLOSE_S = 5.0


class Entrance:
    """
    Args:
        serve: called in a connection's own thread, with it and the caller's address, for as long as it lasts. Its `EOFError`
            and `OSError` say that the caller left, or does not take its answers; `Refused`, that it makes no sense.
        context: of the handshake; what callers must agree on, beside the token.
        token: the job's secret.
        tls: certificates for encrypted connections, which callers must have too.
        host: address to listen on; every address with "".
        port: 0 for a free one.
        most: connections at a time.
        name: of the threads.

    Raises:
        ValueError: there is no token.
        OSError: the address cannot be listened on.
    """

    def __init__(
        self, serve: Callable[[socket.socket, str], None], *, context: str, token: str, tls: wire.Tls | None,
        host: str, port: int, most: int, name: str,
    ) -> None:  # fmt: skip
        if not token:
            raise ValueError(
                "token must not be empty: oarlock.fleet_ext.transport.new_token() makes one"
            )
        self._serve, self._context, self._token, self._tls = serve, context, token, tls
        self._most, self._name = most, name
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=512)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self.refused = 0  #: connections so far
        self.closed = False
        self._lock = threading.Lock()
        self._shaking: OrderedDict[int, socket.socket] = OrderedDict()
        self._callers: dict[socket.socket, threading.Thread] = {}
        self._accepting = threading.Thread(target=self._accept_all, name=name, daemon=True)

    def open(self) -> None:
        """Begins to let callers in, who wait until then."""
        self._accepting.start()

    def close(self) -> None:
        """Ends all connections; the port is free afterwards."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
        frames.end(self._socket)
        if self._accepting.ident is not None:
            self._accepting.join(CLOSE_S)
        self._socket.close()
        with self._lock:
            threads = list(self._callers.values())
            for connection in [*self._callers, *self._shaking.values()]:
                frames.end(connection)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(CLOSE_S)

    def _accept_all(self) -> None:
        while True:
            try:
                connection, address = self._socket.accept()
            except OSError:
                if self.closed:
                    return
                time.sleep(0.05)  # out of descriptors, or the caller went away: others may come
                continue
            caller = f"{address[0]}:{address[1]}"
            threading.Thread(
                target=self._admit, args=(connection, caller), name=f"{self._name}, {caller}", daemon=True
            ).start()  # fmt: skip

    def _admit(self, connection: socket.socket, caller: str) -> None:
        try:
            frames.prepare(connection)
            connection = self._shake(connection)
        except (Refused, OSError) as error:
            connection.close()
            self._refuse(caller, error)
            return
        try:
            with self._lock:
                welcome = not self.closed and len(self._callers) < self._most
                if welcome:
                    self._callers[connection] = threading.current_thread()
            if not welcome:
                raise Refused(f"{self._most} are connected, or the server is being closed")
            self._serve(connection, caller)
        except (EOFError, OSError):
            pass  # the caller left, or does not take its answer
        except Refused as error:
            self._refuse(caller, error)
        finally:
            with self._lock:
                self._callers.pop(connection, None)
            connection.close()

    def _shake(self, connection: socket.socket) -> socket.socket:
        # The copy is what can be shut down while TLS has the connection.
        with connection.dup() as copy:
            number = copy.fileno()
            with self._lock:
                if self.closed:
                    raise Refused("the server is being closed")
                self._shaking[number] = copy
                if len(self._shaking) > SHAKING:
                    _, oldest = self._shaking.popitem(last=False)
                    frames.end(oldest)
            try:
                return wire.welcome(connection, self._token, self._context, self._tls)
            finally:
                with self._lock:
                    if self._shaking.get(number) is copy:
                        del self._shaking[number]

    def _refuse(self, caller: str, why: Exception) -> None:
        with self._lock:
            self.refused += 1
        _log.info("%s is refused: %s", caller, why)
