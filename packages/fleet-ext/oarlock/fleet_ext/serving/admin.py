"""A router's own paths: health and metrics for all, draining and rescaling for who has the token."""

import asyncio
import hmac
import json
from typing import Any
from urllib.parse import unquote

from oarlock.fleet_ext.rendezvous import Store, StoreError
from oarlock.fleet_ext.serving.balancing import Balancer
from oarlock.fleet_ext.serving.incoming import Body, ClientGone, Message, Receive, Send
from oarlock.fleet_ext.serving.metrics import CONTENT_TYPE, Metrics
from oarlock.fleet_ext.serving.records import Fleet

_BODY_BYTES = 1 << 16


class Admin:
    """
    | | |
    |---|---|
    | `GET /router/health` | 200 where a replica is ready, else 503 |
    | `GET /router/metrics` | Prometheus' text |
    | `GET /router/replicas` | replicas and what this router has running there |
    | `PUT /router/replicas` | `{"wanted": 4}`: rescales |
    | `POST /router/replicas/ID/drain` | takes a replica out of use, behind another one |

    The last three want `Authorization: Bearer TOKEN`.
    """

    def __init__(
        self, store: Store, balancer: Balancer, metrics: Metrics, token: str | None
    ) -> None:
        if token is not None and len(token) < 8:
            raise ValueError("admin token must have at least 8 characters")
        self._fleet, self._balancer, self._metrics, self._token = Fleet(store), balancer, metrics, token  # fmt: skip

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"].removeprefix("/router/").split("/")
        if path == ["health"] and method in ("GET", "HEAD"):
            ready = self._balancer.ready
            said = {"status": "ready" if ready else "no replica", "replicas": ready}
            await _say(send, 200 if ready else 503, said)
        elif path == ["metrics"] and method == "GET":
            await _send(send, 200, CONTENT_TYPE, self._metrics.text())
        elif self._token is None or path[0] != "replicas":
            await _say(send, 404, {"error": {"message": f"{method} {scope['path']}: there is no such thing here"}})  # fmt: skip
        elif not self._knows(scope):
            await _say(send, 401, {"error": {"message": "Authorization: Bearer TOKEN is missing or wrong"}})  # fmt: skip
        else:
            try:
                body = await Body.of(receive, _BODY_BYTES)
                given = b"".join([piece async for piece in body.pieces()]) if body.whole else b""
                await _say(send, 200, await self._do(method, path[1:], given))
            except ClientGone:
                return
            except ValueError as error:
                await _say(send, 400, {"error": {"message": str(error)}})
            except StoreError as error:
                await _say(send, 503, {"error": {"message": str(error)}})

    async def _do(self, method: str, path: list[str], body: bytes) -> dict[str, Any]:
        if method == "PUT" and not path:
            given = json.loads(body)
            if not isinstance(given, dict) or set(given) != {"wanted"}:
                raise ValueError('the body must be {"wanted": N}')
            await asyncio.to_thread(self._fleet.rescale, given["wanted"])
        elif method == "POST" and len(path) == 2 and path[1] == "drain":
            await asyncio.to_thread(self._fleet.drain, unquote(path[0]))
        elif method != "GET" or path:
            raise ValueError("it must be GET or PUT of /router/replicas, or POST of /router/replicas/ID/drain")  # fmt: skip
        uses = {id: {"state": use.state, "running": use.running} for id, use in self._balancer.uses().items()}  # fmt: skip
        return {"replicas": uses, "waiting": self._balancer.waiting}

    def _knows(self, scope: Message) -> bool:
        said = dict(scope["headers"]).get(b"authorization", b"")
        assert self._token is not None
        return hmac.compare_digest(said, f"Bearer {self._token}".encode())


async def _say(send: Send, status: int, said: dict[str, Any]) -> None:
    await _send(send, status, "application/json", json.dumps(said).encode())


async def _send(send: Send, status: int, kind: str, body: bytes) -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
