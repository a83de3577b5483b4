"""A server process: from its first connection to its last answer."""

import asyncio
import errno
import logging
import signal
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from oarlock.llm.server.context import Context
from oarlock.llm.server.protocol import with_limits

LOG = logging.getLogger("oarlock.llm.server")
GRACE_S = 1.0  # for clients to be told
STEP_S = 0.1


def listeners(host: str, port: int) -> list[socket.socket]:
    """Sockets at all addresses of a host, taken before a model is read; ``Server.run`` listens with them.

    Args:
        host: a name or address of this machine.
        port: 0 for any that is free.

    Raises:
        ValueError: the port is in use or may not be had, or the host is not this machine.
    """
    found: list[socket.socket] = []
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, place in dict.fromkeys(places):
            found.append(socket.socket(family, kind, protocol))
            found[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                found[-1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            found[-1].bind(place)
    except (OSError, OverflowError) as error:
        for one in found:
            one.close()
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise ValueError(
                f"port must be free, but {port} is in use at {host}: choose another, or 0 for any that is free."
            ) from error
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"host and port must be this machine's, got {host} and {port}: {reason}.") from error  # fmt: skip
    return found


class Server(uvicorn.Server):
    """Uvicorn that stops in order.

    ``run`` listens at host and port, or with the sockets of ``listeners``.

    On SIGTERM or SIGINT it is no longer ready, and new requests are refused with 503, while those
    in flight end, for ``limits.drain_s`` at most; the rest is aborted, and told so. A second signal
    aborts them at once.

    Args:
        app: of `create_app`.
        host: to listen at.
        port: to listen at; 0 for any that is free.
    """

    def __init__(self, app: FastAPI, *, host: str = "127.0.0.1", port: int = 8000):
        self._context: Context = app.state.context
        limits = self._context.limits
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http=with_limits(limits),
                ws="none",
                loop="asyncio",
                log_config=None,
                access_log=False,  # we have our own, which tells no address with secrets in it
                server_header=False,
                timeout_keep_alive=max(1, round(limits.idle_s)),
                timeout_graceful_shutdown=max(1, round(limits.write_s)),
                lifespan="off",
            )
        )

    @property
    def address(self) -> str:
        """Where it listens, once ``started``."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        if sockets is not None:  # of others Uvicorn says it
            LOG.info("serving at %s (Ctrl-C ends it)", self.address)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, and at the second signal at once."""
        LOG.info("%s: stopping", signal.Signals(sig).name)
        self.force_exit = self.should_exit
        self.should_exit = True
        self._context.gate.stopping = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then close the connections."""
        gate = self._context.gate
        drained = await self._drained()
        gate.turn_away()
        # The engine has nothing more to do, or nothing more that may be finished.
        await self._context.service.drain(GRACE_S if drained else 0.0)
        await gate.emptied(GRACE_S)
        LOG.info("all requests have ended" if drained else "requests had to be aborted")
        await self._close_listeners()
        await super().shutdown(sockets)

    async def _close_listeners(self) -> None:
        """Accept no more, and let those who just came say what they want: they are refused in words."""
        loop = asyncio.get_running_loop()
        listeners = [listener for server in self.servers for listener in server.sockets]
        kept = [listener.dup() for listener in listeners]
        for listener in listeners:
            loop.remove_reader(listener.fileno())
        await asyncio.sleep(STEP_S)  # connections that were accepted last become ours
        for server in self.servers:
            server.close()
        # The kernel has taken further ones: closing their listener would reset them.
        for listener in kept:
            for connection in _accept_all(listener):
                await loop.connect_accepted_socket(self._new_protocol, connection)
        left = GRACE_S
        while left > 0 and any(_silent(one) for one in self.server_state.connections):
            await asyncio.sleep(STEP_S)
            left -= STEP_S

    def _new_protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg,return-value]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    async def _drained(self) -> bool:
        """Wait in short steps, as a second signal may end it."""
        gate, left = self._context.gate, self._context.limits.drain_s
        gate.stopping = True
        while left > 0 and not self.force_exit:
            if await gate.emptied(min(STEP_S, left)):
                return True
            left -= STEP_S
        return gate.running == 0


def _silent(connection: object) -> bool:
    """Whether no request has come over the connection yet."""
    return isinstance(connection, H11Protocol) and connection.cycle is None


def _accept_all(listener: socket.socket) -> list[socket.socket]:
    """The connections that wait at ``listener``, which is closed right after."""
    listener.setblocking(False)
    found: list[socket.socket] = []
    with listener:
        while True:
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                return found
            connection.setblocking(False)
            found.append(connection)
