"""What the endpoints that use the model have in common."""

import asyncio
import uuid
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from oarlock.llm.engine.outputs import Usage
from oarlock.llm.server.context import Context
from oarlock.llm.server.errors import bad_request
from oarlock.llm.server.schemas.common import (
    ErrorAnswer,
    PromptTokensDetails,
    UsageAnswer,
)

P = ParamSpec("P")
T = TypeVar("T")

SHORT = 2_000  # characters: tokenised at once; longer texts would keep others waiting

_MEANINGS = {
    400: "The request is malformed, or asks for what the model cannot do.",
    401: "A key of this server is missing.",
    404: "The model does not exist here.",
    408: "The body, or the whole request, took too long.",
    413: "The body is too large.",
    429: "Too many requests wait.",
    500: "The engine or the server failed.",
    503: "The server is shutting down.",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Their description for OpenAPI."""
    return {status: {"model": ErrorAnswer, "description": _MEANINGS[status]} for status in statuses}


ALL = refusals(*_MEANINGS)


def may_stream(description: str) -> dict[int | str, dict[str, Any]]:
    """The description of an answer that may also come as events."""
    return {200: {"content": {"text/event-stream": {}}, "description": description}}


def new_id(kind: str) -> str:
    """An id for an answer."""
    return f"{kind}-{uuid.uuid4().hex}"


def check_characters(context: Context, count: int, param: str) -> None:
    """Refuse texts that are too long to be worth tokenising."""
    most = context.limits.prompt_characters
    if count > most:
        raise bad_request(
            f"{param} must have at most {most} characters on this server, got {count}.",
            param=param,
            code="context_length_exceeded",
        )


async def off_loop(size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that takes long for a long text of ``size`` characters."""
    if size <= SHORT:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)


async def prompts_of(
    context: Context, given: str | list[Any], param: str
) -> tuple[list[tuple[int, ...]], list[int]]:
    """Tokens of one or several prompts, and of each how many the model's beginning took.

    Args:
        context: of the server.
        given: a text, texts, token ids, or lists of them.
        param: the field they come from.

    Raises:
        APIError: 400, they are too long or no ids of the model.
    """
    one = isinstance(given, str) or isinstance(given[0], int)
    prompts: list[str | list[int]] = [given] if one else list(given)  # type: ignore[list-item]
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    check_characters(context, sum(map(len, texts)), param)
    vocab_size = context.service.tokenizer.vocab_size
    for prompt in prompts:
        if not isinstance(prompt, str) and max(prompt) >= vocab_size:
            raise bad_request(
                f"{param} must hold token ids in 0..{vocab_size - 1}, got {max(prompt)}.",
                param=param,
            )
    begin = context.prompts.begin

    def encode() -> list[tuple[int, ...]]:
        return [
            context.prompts.of_text(prompt) if isinstance(prompt, str) else tuple(prompt)
            for prompt in prompts
        ]

    ids = await off_loop(sum(map(len, texts)), encode)
    return ids, [len(begin) if isinstance(prompt, str) else 0 for prompt in prompts]


def check_texts(context: Context, count: int, param: str) -> None:
    """Refuse a request for too many texts."""
    if count > context.limits.texts:
        raise bad_request(
            f"{param}: a request may ask for at most {context.limits.texts} texts on this server, got {count}.",
            param=param,
        )


def usage_of(usage: Usage) -> UsageAnswer:
    """As OpenAI writes it."""
    return UsageAnswer(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cached_tokens),
    )
