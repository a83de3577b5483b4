"""One request over a connection of its own, read piece by piece."""

import asyncio
import dataclasses
import json
import socket
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import h11

SMALL = 4096  # bytes: what a slow reader takes at once, and its socket's buffer


@dataclasses.dataclass(slots=True)
class Exchange:
    """What was sent, and what came back.

    Args:
        connected: whether the server took the connection.
        status: of HTTP; None if there was no answer.
        first_s: from the request to the first text, seconds.
        end_s: to the end, seconds.
        text: what came.
        pieces: arrivals of text, times in seconds since the request.
        done: whether the answer says that it is whole.
        error: code of an error in OpenAI's shape, as answer or event of the stream.
        broke: how the connection ended early.
    """

    connected: bool = False
    status: int | None = None
    first_s: float | None = None
    end_s: float = 0.0
    text: str = ""
    pieces: list[float] = dataclasses.field(default_factory=list)
    done: bool = False
    error: str | None = None
    broke: str | None = None


async def exchange(
    url: str,
    body: bytes,
    *,
    key: str | None,
    limit_s: float,
    close_after: int | None = None,
    pause_s: float | None = None,
) -> Exchange:
    """Ask ``/v1/completions``.

    Args:
        url: of the server.
        body: of the request.
        key: to show; None for none.
        limit_s: for all of it, seconds.
        close_after: pieces of text after which to go away; None to stay.
        pause_s: before each read of little, seconds; None to read at once.
    """
    found, began = Exchange(), time.perf_counter()
    try:
        async with asyncio.timeout(limit_s):
            await _run(found, began, url, body, key, close_after, pause_s)
    except TimeoutError:
        found.broke = f"no end within {limit_s:g} s"
    except (OSError, h11.RemoteProtocolError) as error:
        found.broke = type(error).__name__
    except (ValueError, KeyError, TypeError):
        found.broke = "an answer that is not OpenAI's JSON"
    found.end_s = time.perf_counter() - began
    return found


async def _run(
    found: Exchange,
    began: float,
    url: str,
    body: bytes,
    key: str | None,
    close_after: int | None,
    pause_s: float | None,
) -> None:
    parts = urlsplit(url)
    connection = socket.socket(socket.AF_INET6 if ":" in str(parts.hostname) else socket.AF_INET)
    connection.setblocking(False)
    if pause_s is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    try:
        address = (parts.hostname, parts.port or 80)
        await asyncio.get_running_loop().sock_connect(connection, address)
    except OSError:
        connection.close()
        raise
    reader, writer = await asyncio.open_connection(sock=connection, limit=SMALL)
    found.connected = True
    try:
        http = h11.Connection(h11.CLIENT)
        writer.write(_request(http, parts.netloc, body, key))
        await writer.drain()
        held = b""
        async for part in _body(http, reader, found, pause_s):
            held += part
            if found.status != 200:
                continue
            *events, held = held.split(b"\n\n")
            for event in events:
                _read_event(event, found, began)
            if close_after is not None and len(found.pieces) >= close_after:
                return
        if held:
            _read_whole(held, found, began)
    finally:
        writer.close()


def _request(http: h11.Connection, host: str, body: bytes, key: str | None) -> bytes:
    headers = [("Host", host), ("Content-Type", "application/json"), ("Connection", "close")]
    headers.append(("Content-Length", str(len(body))))
    if key is not None:
        headers.append(("Authorization", f"Bearer {key}"))
    request = h11.Request(method="POST", target="/v1/completions", headers=headers)
    sent = [http.send(request), http.send(h11.Data(data=body)), http.send(h11.EndOfMessage())]
    return b"".join(part for part in sent if part)


async def _body(
    http: h11.Connection, reader: asyncio.StreamReader, found: Exchange, pause_s: float | None
) -> AsyncIterator[bytes]:
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            if pause_s is not None:
                await asyncio.sleep(pause_s)
            http.receive_data(await reader.read(SMALL if pause_s is not None else 1 << 16))
        elif isinstance(event, h11.Response):
            found.status = event.status_code
        elif isinstance(event, h11.Data):
            yield bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return
        elif isinstance(event, h11.ConnectionClosed):
            raise ConnectionResetError


def _read_event(event: bytes, found: Exchange, began: float) -> None:
    data = event.removeprefix(b"data: ")
    if data == b"[DONE]":
        found.done = True
        return
    _read_answer(json.loads(data), found, began)


def _read_whole(data: bytes, found: Exchange, began: float) -> None:
    answer = json.loads(data)
    _read_answer(answer, found, began)
    found.done = "choices" in answer


def _read_answer(answer: dict, found: Exchange, began: float) -> None:
    if "error" in answer:
        if {"message", "type", "param", "code"} == set(answer["error"]):
            found.error = answer["error"]["code"] or answer["error"]["type"]
        return
    for choice in answer["choices"]:
        if choice["text"]:
            found.text += choice["text"]
            found.pieces.append(time.perf_counter() - began)
    if found.pieces and found.first_s is None:
        found.first_s = found.pieces[0]
