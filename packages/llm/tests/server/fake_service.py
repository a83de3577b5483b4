"""A model without weights for the tests of the server, and a process that serves it.

Its texts depend on prompt, adapter, seed and number only, so that a client knows what to expect;
they grow token by token in one task per request, as those of an engine do.
"""

import argparse
import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import numpy as np

from oarlock.llm.engine.outputs import Delta, TokenLogprob, Usage
from oarlock.llm.engine.params import Request
from oarlock.llm.engine.service import About, Overloaded
from oarlock.llm.tokenizers import ByteTokenizer

SPECIAL = {"<s>": 256, "<|im_start|>": 257, "<|im_end|>": 258}
TEMPLATE = """\
{%- if tools %}<|im_start|>system
Call as <tool_call>{"name": ..., "arguments": ...}</tool_call>:
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}<|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role not in ["system", "user", "assistant", "tool"] %}{{ raise_exception("no role " + message.role) }}{% endif -%}
<|im_start|>{{ message.role }}
{{ message.content }}
{%- for call in message.tool_calls or [] %}
<tool_call>{{ {"name": call.function.name, "arguments": call.function.arguments} | tojson }}</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


class ChatTokenizer(ByteTokenizer):
    """Bytes, and three special tokens."""

    @property
    def vocab_size(self) -> int:
        return 256 + len(SPECIAL)

    @property
    def special_tokens(self) -> Mapping[str, int]:
        return SPECIAL

    def _bytes_of(self, token: int) -> bytes:
        return bytes([token]) if token < 256 else b""

    def _decode(self, ids: list[int]) -> str:
        names = {token: name for name, token in SPECIAL.items()}
        spelt = b"".join(names[i].encode() if i in names else bytes([i]) for i in ids)
        return spelt.decode(errors="replace")


def expected_text(request: Request, index: int) -> str:
    """What the fake answers: words that no other request gets, without an end of their own."""
    key = repr((request.prompt, request.adapter, request.params.seed, index)).encode()
    words = []
    for number in range(1 + (request.params.max_tokens or 64) // 8):
        words.append(hashlib.sha256(key + b"%d" % number).hexdigest()[:7])
    return " ".join(words)


class FakeService:
    """Behaves as an engine does in time.

    Args:
        step_s: seconds a token takes.
        capacity: requests at once; more are `Overloaded`.
        reply: text of a request and index, to its end; None for `expected_text` cut at max_tokens.
        max_length: of prompt and text.
        fail_after: tokens after which a request fails with an error.
    """

    chat_template: str | None = TEMPLATE
    template_tokens: Mapping[str, str] = {"bos_token": "<s>", "eos_token": "<|im_end|>"}
    begin: tuple[int, ...] = (SPECIAL["<s>"],)
    generation: Mapping[str, Any] = {}
    rounded_anew: Mapping[str, int] = {}

    def __init__(
        self,
        *,
        step_s: float = 0.0,
        capacity: int = 1000,
        reply: Callable[[Request, int], str] | None = None,
        max_length: int = 4096,
        fail_after: int | None = None,
    ):
        self.tokenizer = ChatTokenizer()
        self.about = About(
            name="fake/model",
            family="fake",
            parameters=0,
            weights="none",
            max_length=max_length,
            adapters=("fake/adapter",),
        )
        self.step_s, self.capacity, self.reply, self.fail_after = (
            step_s,
            capacity,
            reply,
            fail_after,
        )
        self.requests: list[Request] = []  # the last ones
        self.streams: set[FakeStream] = set()
        self.cancelled = self.tokens_generated = 0
        self.draining = False

    def submit(self, request: Request) -> "FakeStream":
        if self.draining or len(self.streams) >= self.capacity:
            raise Overloaded(f"{len(self.streams)} requests are in the fake engine.")
        if len(request.prompt) + (request.params.max_tokens or 0) > self.about.max_length:
            raise ValueError("prompt is too long for the fake engine.")
        self.requests = [*self.requests[-99:], request]
        return FakeStream(self, request)

    async def embed(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        await asyncio.sleep(self.step_s)
        if not all(prompts):
            raise ValueError("prompts must not be empty.")
        rows = np.array([np.bincount(np.array(p) % 8, minlength=8) for p in prompts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def stats(self) -> Mapping[str, float]:
        return {
            "requests_running": float(len(self.streams)),
            "tokens_generated": float(self.tokens_generated),
            "prefix_cache_hits": 0.0,
        }

    async def drain(self, timeout_s: float) -> bool:
        self.draining = True
        end = asyncio.get_running_loop().time() + timeout_s
        while self.streams and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.01)
        aborted = list(self.streams)
        for stream in aborted:
            stream.cancel()
        return not aborted

    def close(self) -> None:
        """As of the protocol; nothing runs."""


class FakeStream:
    """Deltas of one request."""

    def __init__(self, service: FakeService, request: Request):
        self._service, self._request = service, request
        self._queue: asyncio.Queue[Delta | None] = asyncio.Queue()
        self._open = set(range(request.params.n))
        service.streams.add(self)
        self._task = asyncio.get_running_loop().create_task(self._run())

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self

    async def __anext__(self) -> Delta:
        delta = await self._queue.get()
        if delta is None:
            raise StopAsyncIteration
        return delta

    async def accepted(self) -> None:
        """As of the protocol; ``submit`` has refused what is to be refused."""

    def cancel(self) -> None:
        if self not in self._service.streams:
            return
        self._task.cancel()
        self._service.cancelled += 1
        self._service.streams.discard(self)
        for index in sorted(self._open):
            self._queue.put_nowait(
                Delta(request=self._request.id, index=index, finish_reason="abort")
            )
        self._queue.put_nowait(None)

    async def _run(self) -> None:
        request, params, service = self._request, self._request.params, self._service
        texts = [self._text(index) for index in range(params.n)]
        made = 0
        for position in range(max(len(data) for data, _, _ in texts) + 1):
            if service.step_s or position % 16 == 0:
                await asyncio.sleep(service.step_s)
            for index in sorted(self._open):
                data, reason, stop = texts[index]
                common = {"request": request.id, "index": index}
                if params.prompt_logprobs is not None and position == 0:
                    scored = tuple(
                        self._logprob(t, params.prompt_logprobs) for t in request.prompt[1:]
                    )
                    common["prompt_logprobs"] = scored
                if service.fail_after is not None and position >= service.fail_after:
                    self._put(Delta(**common, finish_reason="error", error="the fake was told to"))
                    self._open.clear()
                    break
                if position < len(data):
                    made += 1
                    service.tokens_generated += 1
                    known = params.logprobs is not None
                    scored = (self._logprob(data[position], params.logprobs),) if known else ()
                    common |= {"tokens": (data[position],), "logprobs": scored}
                    common["text"] = self._whole_characters(data, position)
                if position >= len(data) - 1:
                    self._open.discard(index)
                    usage = None
                    if not self._open:
                        usage = Usage(
                            prompt_tokens=len(request.prompt),
                            cached_tokens=len(request.prompt) // 2,
                            completion_tokens=made,
                        )
                    common |= {"finish_reason": reason, "stop": stop, "usage": usage}
                self._put(Delta(**common))
            if not self._open:
                break
        service.streams.discard(self)
        self._queue.put_nowait(None)

    def _put(self, delta: Delta) -> None:
        self._queue.put_nowait(delta)

    def _text(self, index: int) -> tuple[bytes, str, str | None]:
        """Bytes of a whole text, and why it ends."""
        request, params = self._request, self._request.params
        reply = self._service.reply
        text = expected_text(request, index) if reply is None else reply(request, index)
        for stop in params.stop:
            if stop in text:
                return text[: text.index(stop)].encode(), "stop", stop
        data = text.encode()
        if params.max_tokens is not None and len(data) > params.max_tokens:
            return data[: params.max_tokens], "length", None
        return data, "stop", None

    @staticmethod
    def _whole_characters(data: bytes, position: int) -> str:
        before = data[:position].decode(errors="ignore")
        return data[: position + 1].decode(errors="ignore")[len(before) :]

    @staticmethod
    def _logprob(token: int, top: int) -> TokenLogprob:
        best = tuple(((token + i) % 256, -0.5 - i) for i in range(top))
        return TokenLogprob(token, -0.5, best)


def serve(arguments: Sequence[str] | None = None) -> None:
    """Serve the fake until a signal; the address is printed when it listens."""
    import logging

    from oarlock.llm.server import ApiKeys, Limits, Server, ServerConfig, create_app

    parser = argparse.ArgumentParser()
    parser.add_argument("--step-s", type=float, default=0.0)
    parser.add_argument("--limits", type=json.loads, default={})
    parser.add_argument("--key", action="append", default=[])
    parser.add_argument("--access-log", action="store_true")
    options = parser.parse_args(arguments)
    if options.access_log:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
    app = create_app(
        FakeService(step_s=options.step_s),
        config=ServerConfig(limits=Limits(**options.limits)),
        keys=ApiKeys(options.key),
    )

    class Announcing(Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            print(self.address, flush=True)

    Announcing(app, port=0).run()


if __name__ == "__main__":
    serve()
