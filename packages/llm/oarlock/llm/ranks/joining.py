"""How ranks of several machines find each other: connections whose ends both know the token.

The side that listens sends a random number; the side that joins answers with one of its own, with what it comes for,
and a code of all that under the token (HMAC-SHA256); the listener answers with a code of both numbers. So neither
learns the token from the other, and nobody without it gets further than one small frame. What follows is neither
encrypted nor signed: use a network that only these machines see, or a tunnel.
"""

import contextlib
import hmac
import json
import logging
import secrets
import socket
import time
from collections.abc import Iterator
from typing import Any

from oarlock.llm.ranks import frames

LOG = logging.getLogger("oarlock.llm.ranks")
#: Grows with every change of what leader and followers say to each other.
VERSION = 1
HELLO_S = 10.0  #: for a peer to prove itself
_JOIN, _ADMIT = "oarlock join", "oarlock admit"


class NotAdmitted(ValueError):
    """The other side does not know the token, or is of another version."""


def listen(host: str, port: int) -> socket.socket:
    """A socket where ranks can join.

    Raises:
        OSError: the address is not this machine's, or in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=64)


def accept(
    server: socket.socket, token: bytes, *, session: str, until: float
) -> tuple[socket.socket, dict[str, Any]]:
    """The next peer that knows the token, and what it comes for; others are sent away.

    Args:
        server: of ``listen``.
        token: that peers know.
        session: that peers name, or "" where they do not know it yet.
        until: when to give up, of ``time.monotonic``.

    Raises:
        TimeoutError: nobody came.
    """
    while True:
        server.settimeout(max(0.001, until - time.monotonic()))
        try:
            link, peer = server.accept()
        except TimeoutError:
            raise TimeoutError("no rank has joined in time") from None
        try:
            link.settimeout(HELLO_S)
            purpose = _admit(link, token, session, time.monotonic() + HELLO_S)
        except (OSError, EOFError, ValueError) as error:
            LOG.warning("%s was not admitted: %s", peer[0], error)
            link.close()
            continue
        tuned(link)
        return link, purpose


def _admit(link: socket.socket, token: bytes, session: str, until: float) -> dict[str, Any]:
    mine = secrets.token_hex(32)
    frames.send(link, {"version": VERSION, "number": mine})
    answer, _ = frames.receive(link, most=frames.SMALL, until=until)
    purpose, theirs = answer.get("purpose"), answer.get("number")
    code = _code(token, _JOIN, mine, theirs, json.dumps(purpose, sort_keys=True))
    if not isinstance(purpose, dict) or not _same(code, answer.get("code")):
        frames.send(link, {"error": "the token is another one"})
        raise NotAdmitted("the token is another one")
    if purpose.get("session", "") != session:
        frames.send(link, {"error": "this is a rank of another model"})
        raise NotAdmitted("it is a rank of another model")
    frames.send(link, {"code": _code(token, _ADMIT, theirs, mine)})
    return purpose


def join(
    host: str, port: int, token: bytes, purpose: dict[str, Any], *, wait_s: float
) -> socket.socket:
    """Connect to a rank that listens.

    Args:
        host, port: where.
        token: that it knows.
        purpose: what for.
        wait_s: how long to try while nobody listens.

    Raises:
        NotAdmitted: it does not know the token, or is of another version.
        ConnectionError: nobody listens there.
    """
    end = time.monotonic() + wait_s
    while True:
        try:
            link = socket.create_connection((host, port), timeout=HELLO_S)
            break
        except OSError as error:
            if time.monotonic() > end:
                reason = (error.strerror or str(error) or "no answer").lower()
                raise ConnectionError(
                    f"nobody listens at {host}:{port} ({reason}; tried for {wait_s:g} s): start the leader first."
                ) from error
            time.sleep(0.2)
    try:
        _prove(link, token, purpose)
    except BaseException:
        link.close()
        raise
    tuned(link)
    return link


def _prove(link: socket.socket, token: bytes, purpose: dict[str, Any]) -> None:
    hello, _ = frames.receive(link, most=frames.SMALL)
    if hello.get("version") != VERSION:
        raise NotAdmitted(
            f"the leader speaks version {hello.get('version')}, this rank {VERSION}: install the same oarlock-llm."
        )
    mine, theirs = secrets.token_hex(32), hello.get("number")
    code = _code(token, _JOIN, theirs, mine, json.dumps(purpose, sort_keys=True))
    frames.send(link, {"purpose": purpose, "number": mine, "code": code})
    try:
        answer, _ = frames.receive(link, most=frames.SMALL)
    except EOFError:
        raise NotAdmitted("the leader has closed the connection") from None
    if "error" in answer:
        raise NotAdmitted(f"not admitted: {answer['error']}.")
    if not _same(_code(token, _ADMIT, mine, theirs), answer.get("code")):
        raise NotAdmitted("the one that listens does not know the token.")


def _same(code: str, given: Any) -> bool:
    return hmac.compare_digest(code.encode(), str(given).encode(errors="replace"))


def _code(token: bytes, *parts: Any) -> str:
    text = json.dumps([str(one) for one in parts]).encode()
    return hmac.new(token, text, "sha256").hexdigest()


def tuned(link: socket.socket) -> None:
    """Small messages at once, an error for a peer whose machine is gone, no other limit of time."""
    link.settimeout(None)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


@contextlib.contextmanager
def closing_on_error(links: dict[int, socket.socket]) -> Iterator[None]:
    """Close connections where what follows fails."""
    try:
        yield
    except BaseException:
        for link in links.values():
            link.close()
        raise
