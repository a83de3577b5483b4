"""/v1/chat/completions: messages answered."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request

from oarlock.llm.engine import params as engine
from oarlock.llm.engine.outputs import Delta
from oarlock.llm.server import record
from oarlock.llm.server.connection import EventStream, while_there
from oarlock.llm.server.context import Context
from oarlock.llm.server.errors import bad_request
from oarlock.llm.server.generation import Generation
from oarlock.llm.server.logprobs import chat_logprobs
from oarlock.llm.server.messages import character_count, template_messages
from oarlock.llm.server.routes.common import (
    ALL,
    check_characters,
    check_texts,
    may_stream,
    new_id,
    off_loop,
    usage_of,
)
from oarlock.llm.server.sampling import constraint_of, length, sampling_params
from oarlock.llm.server.schemas.chat import ChatCompletion, ChatRequest
from oarlock.llm.server.tools import CallArguments, CallStart, Content, Event, ToolPlan, plan_tools


def router(context: Context) -> APIRouter:
    """The endpoint of ``context``'s model."""
    routes = APIRouter(tags=["chat"])
    responses = ALL | may_stream("An answer, or a stream.")

    @routes.post("/v1/chat/completions", response_model=ChatCompletion, responses=responses)
    async def create_chat_completion(body: ChatRequest, http: Request) -> Any:
        """Answer the messages of a conversation."""
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

    def __init__(self, context: Context, body: ChatRequest, plan: ToolPlan, generation: Generation):
        self._context, self._body, self._plan, self.generation = context, body, plan, generation
        self._texts = [_Text(plan) for _ in range(body.n or 1)]
        self._head = {
            "id": new_id("chatcmpl"),
            "created": int(time.time()),
            "model": body.model,
            "system_fingerprint": context.fingerprint,
        }

    @classmethod
    async def prepare(cls, context: Context, body: ChatRequest, entry: record.Record) -> "_Task":
        adapter = context.adapter(body.model)
        check_texts(context, body.n or 1, "n")
        plan = plan_tools(
            body,
            style=context.tool_style,
            template_has_tools=context.prompts.names("tools"),
        )
        constraint = constraint_of(body, body.response_format)
        if constraint is not None and plan.shown is not None:
            raise bad_request(
                "A format of the answer and tools cannot be had at once, as calls have a format of "
                "their own: leave one out, or set tool_choice to 'none'.",
                param="response_format",
            )
        prompt = await _prompt(context, body, plan)
        asked = body.max_completion_tokens if body.max_tokens is None else body.max_tokens
        tokens = length(
            prompt_tokens=len(prompt),
            asked=asked,
            max_length=context.service.about.max_length,
            limits=context.limits,
            param="messages",
            default=context.service.generation.get("max_tokens"),
        )
        request = engine.Request(
            id=new_id("chatcmpl"),
            prompt=prompt,
            params=sampling_params(
                body,
                max_tokens=tokens,
                constraint=plan.constraint or constraint,
                defaults=context.service.generation,
                logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            ),
            priority=body.priority or 0,
            adapter=adapter,
        )
        entry.prompt_tokens = len(prompt)
        return cls(context, body, plan, Generation(context, [request], entry))

    async def whole(self) -> ChatCompletion:
        logprobs: list[list[dict[str, Any]]] = [[] for _ in self._texts]
        async for _, delta in self.generation.deltas():
            self._texts[delta.index].read(delta)
            if self._body.logprobs:
                found = chat_logprobs(delta.logprobs, self._context.token_texts)
                logprobs[delta.index] += found["content"]
        choices = [
            {
                "index": index,
                "message": text.message(),
                "logprobs": {"content": logprobs[index]} if self._body.logprobs else None,
                "finish_reason": text.finish_reason,
            }
            for index, text in enumerate(self._texts)
        ]
        usage = usage_of(self.generation.usage)
        return ChatCompletion.model_validate(self._head | {"choices": choices, "usage": usage})

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        options = self._body.stream_options
        with_usage = options is not None and options.include_usage
        head = self._head | {"object": "chat.completion.chunk"}
        extra = {"usage": None} if with_usage else {}

        def chunk(index: int, delta: dict[str, Any], **more: Any) -> dict[str, Any]:
            choice = {
                "index": index,
                "delta": delta,
                "logprobs": None,
                "finish_reason": None,
            } | more
            return head | {"choices": [choice]} | extra

        for index in range(len(self._texts)):
            yield chunk(index, {"role": "assistant", "content": ""})
        async for _, delta in self.generation.deltas():
            text = self._texts[delta.index]
            pieces = [_piece(event, text) for event in text.read(delta)]
            logprobs = None
            if self._body.logprobs and delta.logprobs:
                logprobs = chat_logprobs(delta.logprobs, self._context.token_texts)
                pieces = pieces or [{"content": ""}]
            for piece in pieces:
                yield chunk(delta.index, piece, logprobs=logprobs)
                logprobs = None
            if delta.finish_reason is not None:
                yield chunk(delta.index, {}, finish_reason=text.finish_reason)
        if with_usage:
            usage = usage_of(self.generation.usage).model_dump()
            yield head | {"choices": [], "usage": usage}


class _Text:
    """One answer as it grows: what it says, and the calls in it."""

    def __init__(self, plan: ToolPlan):
        self._plan, self._reader = plan, plan.reader()
        self.content: list[str] = []
        self.calls: list[dict[str, Any]] = []
        self.finish_reason: str | None = None

    def read(self, delta: Delta) -> list[Event]:
        """What a delta adds."""
        events = self._reader.push(delta.text)
        if delta.finish_reason is not None:
            events += self._reader.finish()
        if not self._plan.parallel:
            events = [event for event in events if isinstance(event, Content) or event.index == 0]
        for event in events:
            if isinstance(event, Content):
                self.content.append(event.text)
            elif isinstance(event, CallStart):
                function = {"name": event.name, "arguments": ""}
                self.calls.append({"id": new_id("call"), "type": "function", "function": function})
            else:
                self.calls[event.index]["function"]["arguments"] += event.text
        if delta.finish_reason is not None:
            called = self.calls and self._plan.named is None and delta.finish_reason == "stop"
            self.finish_reason = "tool_calls" if called else delta.finish_reason
        return events

    def message(self) -> dict[str, Any]:
        """The whole answer."""
        content = "".join(self.content)
        return {
            "content": content if content or not self.calls else None,
            "tool_calls": self.calls or None,
        }


def _piece(event: Event, text: _Text) -> dict[str, Any]:
    if isinstance(event, Content):
        return {"content": event.text}
    if isinstance(event, CallArguments):
        return {"tool_calls": [{"index": event.index, "function": {"arguments": event.text}}]}
    call = text.calls[event.index]
    function = {"name": event.name, "arguments": ""}
    return {
        "tool_calls": [
            {"index": event.index, "id": call["id"], "type": "function", "function": function}
        ]
    }


async def _prompt(context: Context, body: ChatRequest, plan: ToolPlan) -> tuple[int, ...]:
    size = character_count(body.messages) + len(json.dumps(plan.shown))
    check_characters(context, size, "messages")
    variables = dict(body.chat_template_kwargs or {})
    if body.reasoning_effort is not None:
        if not context.prompts.names("reasoning_effort"):
            raise bad_request(
                "reasoning_effort is nothing to this model's chat template: leave it out.",
                param="reasoning_effort",
            )
        variables["reasoning_effort"] = body.reasoning_effort
    messages = template_messages(body.messages, context.service.chat_template or "")
    return await off_loop(
        size, context.prompts.of_messages, messages, tools=plan.shown, variables=variables
    )
