"""What is logged and counted of a request: never what is in it."""

import dataclasses
import json
import logging
import re
import time
import uuid

from starlette.types import Scope

LOG = logging.getLogger("oarlock.llm.server.access")
KEY = "oarlock.record"
_OWN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclasses.dataclass(slots=True)
class Record:
    """One request of a client.

    Args:
        id: of the request, the client's own where it gave one that is safe to log.
        method: of HTTP.
        client: address.
    """

    id: str
    method: str
    client: str
    route: str = "other"
    status: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_token_s: float | None = None
    body_bytes: int = 0
    sent_bytes: int = 0
    cancelled: bool = False
    begun: float = dataclasses.field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Since the headers."""
        return time.perf_counter() - self.begun

    def log(self) -> None:
        """Write one line of JSON."""
        line = dataclasses.asdict(self)
        del line["begun"]
        line["seconds"] = round(self.seconds, 6)
        if self.first_token_s is not None:
            line["first_token_s"] = round(self.first_token_s, 6)
        LOG.info("%s", json.dumps(line))


def begin(scope: Scope) -> Record:
    """The record of a request whose headers have come, kept in its scope."""
    headers = dict(scope["headers"])
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    id = given if _OWN_ID.fullmatch(given) else f"req-{uuid.uuid4().hex}"
    client = scope.get("client")
    record = Record(id=id, method=scope["method"], client=client[0] if client else "")
    scope[KEY] = record
    return record


def of(scope: Scope) -> Record:
    """The record that `begin` put there."""
    return scope[KEY]
