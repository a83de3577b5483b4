"""The page and its data over HTTP."""

import asyncio
import base64
import hashlib
import json
import logging
import re
import time
from importlib import resources
from pathlib import Path
from typing import Any

from oarlock.fleet_ext.dashboard.snapshot import snapshot
from oarlock.fleet_ext.rendezvous import Store, StoreError
from oarlock.fleet_ext.serving.incoming import Message, Receive, Send
from oarlock.fleet_ext.serving.server import Server

_log = logging.getLogger(__name__)
_FRESH_S = 0.4  #: for which all who look get the same
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)
_LOCAL = ("127.0.0.1", "localhost", "::1")


class Dashboard:
    """An ASGI application; `serve` runs it.

    Args:
        store: the job's.
        title: of the page.
        report: a JSON object that is shown, too: a drill's.
        local: whether to answer only those who call this machine by a name of its own, so that pages of others cannot
            read it through a browser here.
    """

    def __init__(
        self, store: Store, *, title: str = "Oarlock", report: dict[str, Any] | None = None,
        local: bool = True,
    ) -> None:  # fmt: skip
        self._store, self._local = store, local
        self._about = {"title": title, "report": report}
        source = resources.files("oarlock.fleet_ext.dashboard") / "page" / "dashboard.html"
        self._html = source.read_bytes()
        self._policy = _policy(self._html)
        self._reading = asyncio.Lock()
        self._said: tuple[int, bytes] = 200, b""
        self._until = 0.0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for done in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{done}.complete"})
        elif scope["type"] == "http":
            await self._answer(scope, send)

    async def _answer(self, scope: Message, send: Send) -> None:
        if self._local and _host(scope) not in _LOCAL:
            return await _send(send, 403, "text/plain", b"This page is for this machine: call it by 127.0.0.1.\n")  # fmt: skip
        if scope["method"] not in ("GET", "HEAD"):
            return await _send(send, 405, "text/plain", b"There is only GET.\n")
        if scope["path"] == "/":
            more = ((b"content-security-policy", self._policy), (b"x-frame-options", b"DENY"))
            return await _send(send, 200, "text/html; charset=utf-8", self._html, *more)
        if scope["path"] == "/data":
            status, said = await self._data()
            return await _send(send, status, "application/json", said)
        await _send(send, 404, "text/plain", b"There is nothing here.\n")

    async def _data(self) -> tuple[int, bytes]:
        async with self._reading:
            if time.monotonic() >= self._until:
                try:
                    found = await asyncio.to_thread(snapshot, self._store)
                    said = json.dumps({**self._about, **found}, allow_nan=False)
                    self._said = 200, said.encode()
                except (StoreError, ValueError) as error:
                    _log.warning("the job cannot be shown: %s", error)
                    self._said = 503, json.dumps({"error": str(error)}).encode()
                self._until = time.monotonic() + _FRESH_S
            return self._said


def serve(
    store: Store, *, host: str = "127.0.0.1", port: int = 8080, title: str = "Oarlock",
    report: dict[str, Any] | None = None,
) -> Server:  # fmt: skip
    """Shows a job, from a thread of its own, until `close`.

    Args:
        host: anybody who reaches another address than this machine's own may look.
        port: 0 for a free one.
        title, report: of `Dashboard`.

    Raises:
        OSError: the address cannot be listened on.
    """
    app = Dashboard(store, title=title, report=report, local=host in _LOCAL)
    return Server(app, host=host, port=port, drain=1.0).start()


def read_report(path: Path) -> dict[str, Any]:
    """A drill's report.

    Raises:
        ValueError: the file is no JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"report must be a JSON file, but {path} is not: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"report must be a JSON object, but {path} holds a {type(found).__name__}")
    return found


def _host(scope: Message) -> str:
    given = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
    return given[1:].partition("]")[0] if given.startswith("[") else given.partition(":")[0]


def _policy(html: bytes) -> bytes:
    """Content security: the page's own script and style by their hashes, requests to this server."""
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for found in _INLINE.finditer(html.decode()):
        digest = hashlib.sha256(found[2].encode()).digest()
        hashes[found[1]].append(f"'sha256-{base64.b64encode(digest).decode()}'")
    return (
        f"default-src 'none'; script-src {' '.join(hashes['script'])}; style-src {' '.join(hashes['style'])}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ).encode()


async def _send(send: Send, status: int, kind: str, body: bytes, *more: tuple[bytes, bytes]) -> None:  # fmt: skip
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode()),
               (b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"),
               (b"referrer-policy", b"no-referrer"), *more]  # fmt: skip
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
