"""What a router itself says to clients, in the form of OpenAI's interface."""

import json
import math
from dataclasses import dataclass
from typing import Self

from oarlock.fleet_ext.serving.balancing import Full, NoReplica
from oarlock.fleet_ext.serving.forwarding import Exhausted
from oarlock.fleet_ext.serving.incoming import Send
from oarlock.fleet_ext.serving.routing import Routing

RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """
    Args:
        status: of HTTP.
        code: for programs.
        message: for people.
        retry_after: seconds, which the client is told to wait.
    """

    status: int
    code: str
    message: str
    retry_after: float | None = None

    @classmethod
    def of(cls, error: Exception, routing: Routing) -> Self:
        """
        Args:
            error: `Full`, `NoReplica`, `Exhausted`, `TimeoutError` or a `ValueError`.
        """
        if isinstance(error, Full):
            return cls(status=429, code="queue_full", message=f"{error}; try again later.", retry_after=RETRY_AFTER_S)  # fmt: skip
        if isinstance(error, NoReplica):
            return cls(status=503, code="no_replica", message=f"{error}; try again later.", retry_after=RETRY_AFTER_S)  # fmt: skip
        if isinstance(error, Exhausted):
            return cls(status=502, code="replica_lost", message=str(error))
        if isinstance(error, TimeoutError):
            return cls(status=504, code="no_answer", message=f"No answer began within {routing.answer_s:g} s.")  # fmt: skip
        return cls(status=400, code="bad_request", message=str(error))

    async def send(self, send: Send) -> None:
        body = _error(self.message, self.code)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]  # fmt: skip
        if self.retry_after is not None:
            headers.append((b"retry-after", str(math.ceil(self.retry_after)).encode()))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def broken_event(replica: str, why: Exception) -> bytes:
    """The last event of a stream that broke off."""
    message = f"Replica {replica} was lost within this answer, and no other could go on: {why}"
    return b"data: " + _error(message, "replica_lost") + b"\n\n"


def _error(message: str, code: str) -> bytes:
    kind = "invalid_request_error" if code == "bad_request" else "server_error"
    return json.dumps(
        {"error": {"message": message, "type": kind, "param": None, "code": code}}
    ).encode()
