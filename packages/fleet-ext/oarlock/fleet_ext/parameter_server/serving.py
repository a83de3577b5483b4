"""A port at which requests are answered: a thread for each connection."""

import socket
from collections.abc import Callable, Iterable, Iterator

from oarlock.fleet_ext.parameter_server import messages
from oarlock.fleet_ext.parameter_server.messages import Message
from oarlock.fleet_ext.rendezvous.entrance import Entrance
from oarlock.fleet_ext.transport import wire
from oarlock.fleet_ext.transport.errors import Refused

SEND_S = 30.0  #: that the other side has to take an answer
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
        self._answer, self._failed, self._ended = answer, failed, ended
        self._entrance = Entrance(
            self._serve, context=messages.context_of(job), token=token, tls=tls, host=host, port=port, most=_MOST,
            name="tables",
        )  # fmt: skip
        self.address = self._entrance.address

    def open(self) -> None:
        """Begins to answer."""
        self._entrance.open()

    def close(self) -> None:
        """Ends all connections."""
        self._entrance.close()

    def _serve(self, connection: socket.socket, caller: str) -> None:
        kept: dict[str, object] = {}
        try:
            while True:
                for one in self._answered(messages.receive(connection), kept):
                    messages.send(connection, one, SEND_S)
        except _OwnFault as fault:
            assert isinstance(fault.__cause__, Exception)
            self._failed(fault.__cause__)
        finally:
            connection.close()
            if not self._entrance.closed:
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
