"""An HTTP server of this process: for a router, and for the dashboard."""

import asyncio
import socket
import threading
from typing import Any

import uvicorn


class Server(uvicorn.Server):
    """Uvicorn with our settings.

    `run` serves until SIGTERM or Ctrl-C; then nobody is let in any more, and the requests that run end. `start` and
    `close` do the same beside the caller.

    Args:
        app: ASGI's.
        host, port: to listen on; port 0 for a free one.
        drain: seconds for requests to end.

    Raises:
        OSError: the address cannot be listened on.
    """

    def __init__(self, app: Any, *, host: str = "127.0.0.1", port: int = 0, drain: float = 60.0) -> None:  # fmt: skip
        self._socket = _listener(host, port)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self._thread: threading.Thread | None = None
        super().__init__(
            uvicorn.Config(
                app, http="h11", ws="none", loop="asyncio", lifespan="on", log_config=None, access_log=False,
                proxy_headers=False, server_header=False, date_header=False, timeout_keep_alive=75,
                timeout_graceful_shutdown=max(1, round(drain)),
            )
        )  # fmt: skip

    @property
    def url(self) -> str:
        host, port = self.address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def serve_here(self) -> None:
        """Until this process is told to end."""
        self.run(sockets=[self._socket])

    def start(self) -> "Server":
        """Serves from a thread of its own.

        Raises:
            RuntimeError: it did not begin.
        """
        begun = threading.Event()
        self._thread = threading.Thread(target=self._run_apart, args=(begun,), name=f"server {self.url}", daemon=True)  # fmt: skip
        self._thread.start()
        begun.wait()
        if not self.started:
            raise RuntimeError(f"the server at {self.url} did not begin; its log says why")
        return self

    def close(self) -> None:
        """Ends what `start` began, behind the requests that run."""
        self.should_exit = True
        if self._thread is not None:
            self._thread.join()
        self._socket.close()

    def _run_apart(self, begun: threading.Event) -> None:
        async def both() -> None:
            serving = asyncio.ensure_future(self.serve(sockets=[self._socket]))
            while not self.started and not serving.done():
                await asyncio.sleep(0.01)
            begun.set()
            await serving

        try:
            asyncio.run(both())
        finally:
            begun.set()


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sends small answers at once (TCP_NODELAY).
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(2048)
    except BaseException:
        made.close()
        raise
    return made
