"""Requests and responses of /v1/completions."""

from typing import Annotated, Literal

from pydantic import Field

from oarlock.llm.server.schemas.chat import ResponseFormat
from oarlock.llm.server.schemas.common import (
    Answer,
    FinishReason,
    SamplingFields,
    Text,
    TokenId,
    UsageAnswer,
)

Tokens = Annotated[list[TokenId], Field(min_length=1)]
Prompt = (
    Text
    | Tokens
    | Annotated[list[Text], Field(min_length=1)]
    | Annotated[list[Tokens], Field(min_length=1)]
)


class CompletionRequest(SamplingFields):
    """Prompts to continue."""

    refused = SamplingFields.refused | {
        "suffix": (("",), "the models here do not fill in; put what follows into the prompt."),
        "prompt_embeds": ((), "give text or token ids."),
        "add_special_tokens": ((True,), "give token ids to have none added."),
    }

    prompt: Prompt = Field(description="A text, several, or token ids.")
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None


class CompletionLogprobs(Answer):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(Answer):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason


class CompletionAnswer(Answer):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: UsageAnswer
