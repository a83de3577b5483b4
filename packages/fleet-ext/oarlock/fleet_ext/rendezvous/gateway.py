"""etcd's HTTP gateway: calls that are repeated until their deadline, and streams of messages."""

import base64
import json
import random
import time
from collections.abc import Generator, Sequence
from typing import Any

import httpx

from oarlock.fleet_ext.rendezvous.errors import Closed, StoreError, Unreachable
from oarlock.fleet_ext.transport import wire

_ATTEMPT_S = 3.0  #: for one answer, before another member of the cluster is asked
_STREAM_S = 15.0  #: of silence on a stream, before it is opened anew
_PAUSES_S = (0.02, 0.5)  #: between tries: the first, and the longest
NOT_FOUND = 5
UNAUTHENTICATED = 16
_AGAIN = {4, 14}  #: deadline exceeded, unavailable: no leader, a member starts or stops
_OLD_TOKEN = "revision of auth store is old"


Json = dict[str, Any]


class GatewayError(StoreError):
    """etcd's own words.

    Attributes:
        code: gRPC's.
    """

    def __init__(self, said: str, code: int) -> None:
        super().__init__(said)
        self.code = code


class Gateway:
    """
    Args:
        endpoints: addresses of the cluster's members, such as "http://10.0.0.1:2379".
        user, password: where the cluster has authentication.
        tls: certificates, where endpoints begin with "https".
    """

    def __init__(
        self, endpoints: Sequence[str], user: str | None, password: str | None, tls: wire.Tls | None
    ) -> None:
        self._endpoints = [endpoint.rstrip("/") for endpoint in endpoints]
        self._user, self._password = user, password
        self._current = random.randrange(len(self._endpoints))
        self._token: str | None = None
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=16)
        secure = any(endpoint.startswith("https:") for endpoint in self._endpoints)
        verify = secure if tls is None else tls.context(server=False)
        self._http = httpx.Client(verify=verify, limits=limits, trust_env=False)
        self.where = "etcd at " + ", ".join(self._endpoints)

    def post(self, path: str, body: Json, until: float) -> Json:
        """The answer to a request, which may be made several times.

        Args:
            until: on the monotonic clock.

        Raises:
            GatewayError: etcd refuses.
            Unreachable: no member answered in time.
        """
        begun = time.monotonic()
        pause = _PAUSES_S[0]
        while True:
            left = until - time.monotonic()
            try:
                return self._once(path, body, max(1e-3, min(left, _ATTEMPT_S)))
            except httpx.TransportError as error:
                why: Exception = error
            except GatewayError as error:
                if not self.may_pass(error):
                    raise
                why = error
            self.check_open(why)
            if time.monotonic() + pause >= until:
                raise Unreachable(
                    f"{self.where} gave no answer to {path!r} within {until - begun:.3g} s: {_words(why)}"
                ) from why
            self.turn()
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _PAUSES_S[1])

    def stream(self, path: str, body: Json, until: float) -> Generator[Json, None, None]:
        """Messages as they come, until one is long in coming, or the time is over.

        Raises:
            GatewayError: etcd refuses.
            httpx.TransportError: the connection failed, or no message came at all.
        """
        self.check_open()
        came = False
        left = max(1e-3, until - time.monotonic())
        timeout = httpx.Timeout(min(left, _ATTEMPT_S), read=min(left, _STREAM_S))
        url = f"{self._endpoints[self._current]}/v3/{path}"
        try:
            with self._http.stream("POST", url, json=body, headers=self._headers(left), timeout=timeout) as reply:  # fmt: skip
                if reply.is_error:
                    reply.read()
                    self._check(reply.status_code, reply.text)
                for line in reply.iter_lines():
                    message = json.loads(line)
                    if "error" in message:
                        self._check(500, json.dumps(message["error"]))
                    came = True
                    yield message["result"]
                    if time.monotonic() >= until:
                        return
        except httpx.ReadTimeout:
            if not came:
                raise

    def turn(self) -> None:
        """Asks the next member from now on."""
        self._current = (self._current + 1) % len(self._endpoints)

    def check_open(self, why: Exception | None = None) -> None:
        """
        Raises:
            Closed: it was closed.
        """
        if self._http.is_closed:
            raise Closed(f"{self.where} was closed by this process") from why

    def close(self) -> None:
        self._http.close()

    def may_pass(self, error: GatewayError) -> bool:
        """Whether a request that failed so may be well when it is made again."""
        if self._user is not None and (error.code == UNAUTHENTICATED or _OLD_TOKEN in str(error)):
            self._token = None  # it expired, or etcd was restarted
            return True
        return error.code in _AGAIN

    def _once(self, path: str, body: Json, seconds: float) -> Json:
        self.check_open()
        return self._send(path, body, self._headers(seconds), seconds)

    def _send(self, path: str, body: Json, headers: dict[str, str], seconds: float) -> Json:
        url = f"{self._endpoints[self._current]}/v3/{path}"
        reply = self._http.post(url, json=body, headers=headers, timeout=seconds)
        self._check(reply.status_code, reply.text)
        return reply.json()

    def _headers(self, seconds: float) -> dict[str, str]:
        if self._user is None:
            return {}
        token = self._token
        if token is None:
            body = {"name": self._user, "password": self._password}
            token = self._token = self._send("auth/authenticate", body, {}, seconds)["token"]
        return {"Authorization": token}

    def _check(self, status: int, text: str) -> None:
        if status < 400:
            return
        try:
            said = json.loads(text)
            message = said.get("error") or said["message"]
            code = said.get("code", said.get("grpc_code", 2))
        except (ValueError, KeyError, AttributeError):
            message, code = f"HTTP status {status}: {text[:200]}", 14 if status >= 500 else 2
        raise GatewayError(f"{self.where}: {message}", code)


def coded(text: str | bytes) -> str:
    """As the gateway wants bytes."""
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def decoded(text: str) -> bytes:
    return base64.b64decode(text)


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
