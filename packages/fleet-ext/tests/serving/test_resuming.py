"""What a client has of a stream, and what it gets from another replica."""

import asyncio
import json

import pytest
from oarlock.fleet_ext.serving.resuming import Differs, alike, forwarded
from oarlock.fleet_ext.serving.upstream import Head

EVENTS = Head(200, ((b"content-type", b"text/event-stream; charset=utf-8"),))
BYTES = Head(200, ((b"content-type", b"application/octet-stream"),))


def follow(client, pieces, most=None):
    async def given():
        for piece in pieces:
            yield piece

    async def run():
        found = []
        async for piece in client.follow(given()):
            found.append(piece)
            if most is not None and len(found) == most:
                break
        return found

    return asyncio.run(run())


def cut(text, size):
    return [text[begin : begin + size] for begin in range(0, len(text), size)]


def events(name, count, end="\n\n"):
    said = [{"id": name, "created": hash(name), "text": f"é {number}"} for number in range(count)]
    return "".join(f"data: {json.dumps(one)}{end}" for one in said).encode() + b"data: [DONE]\n\n"


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize("had", [0, 1, 2])
def test_bytes_go_on_where_they_broke_off(size, had):
    text = bytes(range(256)) * 3
    client = forwarded(BYTES)
    first = b"".join(follow(client, cut(text, 50)[: had * 3]))
    assert first == text[: had * 150]
    assert first + b"".join(follow(client, cut(text, size))) == text


@pytest.mark.parametrize("size", [1, 3, 50, 10_000])
@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"])
@pytest.mark.parametrize("had", [0, 1, 4])
def test_events_go_on_under_the_first_name(size, end, had):
    client = forwarded(EVENTS)
    first = follow(client, cut(events("one", 6, end), size), most=had) if had else []
    rest = follow(client, cut(events("two", 6, end), size))
    found = b"".join(first + rest).decode().replace("\r", "").split("\n\n")[:-1]
    assert found[-1] == "data: [DONE]"
    said = [json.loads(one.removeprefix("data:")) for one in found[:-1]]
    assert [one["text"] for one in said] == [f"é {number}" for number in range(6)]
    assert {one["id"] for one in said} == {"one" if had else "two"}


def test_whole_events_only_are_forwarded():
    assert follow(forwarded(EVENTS), [b": note\n\ndata: a\nda", b"ta: b\n\ndat"]) == [
        b": note\n\n", b"data: a\ndata: b\n\n", b"dat",
    ]  # fmt: skip


@pytest.mark.parametrize("head, text", [(BYTES, b"abcdef"), (EVENTS, b"data: a\n\ndata: b\n\ndata: c\n\n")])  # fmt: skip
def test_another_beginning_and_a_shorter_answer_are_told(head, text):
    half = len(text) // 3 * 2
    for other in (b"x" + text[1:], text[:half].replace(b"b", b"x") + text[half:], text[: half - 2]):
        client = forwarded(head)
        follow(client, [text[:half]])
        with pytest.raises(Differs):
            follow(client, [other])


def test_events_that_are_not_json_are_compared_as_they_are():
    client = forwarded(EVENTS)
    follow(client, [b"data: [1]\n\n"])
    with pytest.raises(Differs):
        follow(client, [b"data: [ 1 ]\n\n"])


def test_an_endless_event_is_told():
    with pytest.raises(Differs, match="an event"):
        follow(forwarded(EVENTS), [b"data: " + b"x" * (1 << 19)] * 3)


def test_answers_of_another_kind_are_not_alike():
    assert alike(EVENTS, EVENTS) and not alike(EVENTS, BYTES)
    assert not alike(EVENTS, Head(500, EVENTS.headers))
    assert not alike(BYTES, Head(200, (*BYTES.headers, (b"content-length", b"3"))))
