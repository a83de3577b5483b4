"""/v1/completions: prompts continued."""

import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request

from oarlock.llm.engine import params as engine
from oarlock.llm.engine.outputs import Delta
from oarlock.llm.server import record
from oarlock.llm.server.connection import EventStream, while_there
from oarlock.llm.server.context import Context
from oarlock.llm.server.generation import Generation
from oarlock.llm.server.logprobs import CompletionLogprobsBuilder, joined
from oarlock.llm.server.routes.common import (
    ALL,
    check_texts,
    may_stream,
    new_id,
    prompts_of,
    usage_of,
)
from oarlock.llm.server.sampling import constraint_of, length, sampling_params
from oarlock.llm.server.schemas.completions import CompletionAnswer, CompletionRequest

DEFAULT_TOKENS = 16  # as OpenAI


def router(context: Context) -> APIRouter:
    """The endpoint of ``context``'s model."""
    routes = APIRouter(tags=["completions"])
    responses = ALL | may_stream("Texts, or a stream.")

    @routes.post("/v1/completions", response_model=CompletionAnswer, responses=responses)
    async def create_completion(body: CompletionRequest, http: Request) -> Any:
        """Continue one or several prompts."""
        task = await _Task.prepare(context, body, record.of(http.scope))
        streaming = False
        try:
            await while_there(http.receive, task.generation.open())
            if body.stream:
                streaming = True
                return EventStream(task.events(), close=task.generation.close)
            return await while_there(http.receive, task.whole())
        finally:
            if not streaming:
                task.generation.close()

    return routes


class _Task:
    """One request on its way."""

    def __init__(
        self,
        context: Context,
        body: CompletionRequest,
        prompts: list[tuple[int, ...]],
        begins: list[int],
        generation: Generation,
    ):
        self._context, self._body, self.generation = context, body, generation
        self._prompts, self._begins = prompts, begins
        self._n = body.n or 1
        self._logprobs: dict[int, CompletionLogprobsBuilder] = {}
        self._head = {
            "id": new_id("cmpl"),
            "object": "text_completion",
            "created": int(time.time()),
            "model": body.model,
            "system_fingerprint": context.fingerprint,
        }

    @classmethod
    async def prepare(
        cls, context: Context, body: CompletionRequest, entry: record.Record
    ) -> "_Task":
        adapter = context.adapter(body.model)
        prompts, begins = await prompts_of(context, body.prompt, "prompt")
        check_texts(context, len(prompts) * (body.n or 1), "prompt")
        constraint = constraint_of(body, body.response_format)
        default = context.service.generation.get("max_tokens")
        requests = []
        for prompt in prompts:
            tokens = length(
                prompt_tokens=len(prompt),
                asked=(
                    DEFAULT_TOKENS
                    if body.max_tokens is None and default is None
                    else body.max_tokens
                ),
                default=default,
                max_length=context.service.about.max_length,
                limits=context.limits,
                param="prompt",
            )
            sampling = sampling_params(
                body,
                max_tokens=tokens,
                constraint=constraint,
                defaults=context.service.generation,
                logprobs=body.logprobs,
                prompt_logprobs=body.logprobs if body.echo else None,
            )
            requests.append(
                engine.Request(
                    id=new_id("cmpl"),
                    prompt=prompt,
                    params=sampling,
                    priority=body.priority or 0,
                    adapter=adapter,
                )
            )
        entry.prompt_tokens = sum(map(len, prompts))
        return cls(context, body, prompts, begins, Generation(context, requests, entry))

    async def whole(self) -> CompletionAnswer:
        choices: dict[int, dict[str, Any]] = {}
        parts: dict[int, list[dict[str, Any]]] = {}
        async for number, delta in self.generation.deltas():
            piece = self._choice(number, delta)
            choice = choices.setdefault(piece["index"], {"text": "", "finish_reason": None})
            choice["text"] += piece["text"]
            choice["finish_reason"] = piece["finish_reason"] or choice["finish_reason"]
            parts.setdefault(piece["index"], []).append(piece["logprobs"])
        return CompletionAnswer.model_validate(
            self._head
            | {
                "choices": [
                    {
                        "index": index,
                        "text": choices[index]["text"],
                        "finish_reason": choices[index]["finish_reason"],
                        "logprobs": None if self._body.logprobs is None else joined(parts[index]),
                    }
                    for index in sorted(choices)
                ],
                "usage": usage_of(self.generation.usage),
            }
        )

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        options = self._body.stream_options
        with_usage = options is not None and options.include_usage
        extra = {"usage": None} if with_usage else {}
        async for number, delta in self.generation.deltas():
            yield self._head | {"choices": [self._choice(number, delta)]} | extra
        if with_usage:
            usage = usage_of(self.generation.usage).model_dump()
            yield self._head | {"choices": [], "usage": usage}

    def _choice(self, number: int, delta: Delta) -> dict[str, Any]:
        """What a delta adds; the first of a text is preceded by the prompt if that is to be shown."""
        index = number * self._n + delta.index
        text, logprobs = delta.text, None
        first = index not in self._logprobs
        builder = self._logprobs.setdefault(
            index, CompletionLogprobsBuilder(self._context.token_texts)
        )
        shown = self._prompts[number][self._begins[number] :]
        if first and self._body.echo:
            text = self._echo(number) + text
        if self._body.logprobs is not None:
            parts = []
            if first and self._body.echo:
                known = delta.prompt_logprobs[-len(shown) :] if shown else ()
                parts.append(builder.unscored(shown[: len(shown) - len(known)]))
                parts.append(builder.scored(known))
            parts.append(builder.scored(delta.logprobs))
            logprobs = joined(parts)
        return {
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": delta.finish_reason,
        }

    def _echo(self, number: int) -> str:
        given = self._body.prompt
        if isinstance(given, str):
            return given
        prompt = given[number]
        if isinstance(prompt, str):
            return prompt
        return self._context.service.tokenizer.decode(self._prompts[number])
