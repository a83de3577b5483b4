"""A port at which requests are answered: a thread for each connection."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from oarlock.fleet_ext.parameter_server import messages
from oarlock.fleet_ext.parameter_server.messages import Message
from oarlock.fleet_ext.rendezvous import frames
from oarlock.fleet_ext.transport import wire
from oarlock.fleet_ext.transport.errors import Refused

_log = logging.getLogger(__name__)

SEND_S = 30.0  #: that the other side has to take an answer
CLOSE_S = 5.0
_SHAKING = 128  #: handshakes that go on at a time
_MOST = 4096  #: connections

#: Answers a request; several messages where it is a stream. The second argument is the connection's own, to keep things in.
Answer = Callable[[Message, dict[str, object]], Iterable[Message]]


class _OwnFault(Exception):
    """What went wrong here, and not on the way."""


class Port:
    """
    Args:
        answer: called from many threads. What it raises but `Refused` is the server's own fault, and goes to `failed`.
        failed: told of an error of the server's own.
        ended: told when a connection ends, with what was kept in it.
        job, token, host, port, tls: as of `TableServer`.
    """

    def __init__(
        self, answer: Answer, failed: Callable[[Exception], None], ended: Callable[[dict[str, object]], None],
        *, job: str, token: str, host: str, port: int, tls: wire.Tls | None,
    ) -> None:  # fmt: skip
        if not token:
            raise ValueError(
                "token must not be empty: oarlock.fleet_ext.transport.new_token() makes one"
            )
        self._answer, self._failed, self._ended = answer, failed, ended
        self._context, self._token, self._tls = messages.context_of(job), token, tls
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=512)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self.refused = 0  #: connections so far
        self._lock = threading.Lock()
        self._shaking = threading.BoundedSemaphore(_SHAKING)
        self._callers: dict[socket.socket, threading.Thread] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._accept_all, name="tables listen", daemon=True)

    def open(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def close(self) -> None:
        """Ends all connections."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        frames.end(self._socket)
        self._socket.close()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_S)
        with self._lock:
            threads = list(self._callers.values())
            for connection in self._callers:
                frames.end(connection)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(CLOSE_S)

    def _accept_all(self) -> None:
        while True:
            try:
                connection, address = self._socket.accept()
            except OSError:
                if self._closed:
                    return
                time.sleep(0.05)  # out of descriptors, or the caller went away: others may come
                continue
            caller = f"{address[0]}:{address[1]}"
            if not self._shaking.acquire(blocking=False):
                connection.close()
                self._refuse(caller, Refused("too many handshakes at a time"))
                continue
            threading.Thread(
                target=self._admit, args=(connection, caller), name=f"tables serve {caller}", daemon=True
            ).start()  # fmt: skip

    def _admit(self, connection: socket.socket, caller: str) -> None:
        try:
            frames.prepare(connection)
            connection = wire.welcome(connection, self._token, self._context, self._tls)
        except (Refused, OSError) as error:
            connection.close()
            self._refuse(caller, error)
            return
        finally:
            self._shaking.release()
        with self._lock:
            welcome = not self._closed and len(self._callers) < _MOST
            if welcome:
                self._callers[connection] = threading.current_thread()
        if welcome:
            self._serve(connection, caller)
        else:
            connection.close()
            self._refuse(caller, Refused("the server is being closed, or has too many connections"))

    def _serve(self, connection: socket.socket, caller: str) -> None:
        kept: dict[str, object] = {}
        try:
            while True:
                for one in self._answered(messages.receive(connection), kept):
                    messages.send(connection, one, SEND_S)
        except (EOFError, OSError):
            pass  # the caller left, or does not take its answer
        except Refused as error:
            self._refuse(caller, error)
        except _OwnFault as fault:
            assert isinstance(fault.__cause__, Exception)
            self._failed(fault.__cause__)
        finally:
            with self._lock:
                self._callers.pop(connection, None)
            connection.close()
            if not self._closed:
                self._ended(kept)

    def _answered(self, request: Message, kept: dict[str, object]) -> Iterator[Message]:
        try:
            yield from self._answer(request, kept)
        except Refused:
            raise
        except (
            Exception
        ) as error:  # whatever it is, the server must not go on with half of a change
            raise _OwnFault from error

    def _refuse(self, caller: str, why: Exception) -> None:
        with self._lock:
            self.refused += 1
        _log.info("%s is refused: %s", caller, why)
