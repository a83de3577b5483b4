"""What requests of several endpoints share."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Text = Annotated[str, Field(min_length=1)]
TokenId = Annotated[int, Field(ge=0)]


class Strict(BaseModel):
    """A part of a request: JSON types as they are declared, nothing converted."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, protected_namespaces=())


class Answer(BaseModel):
    """A part of a response."""

    model_config = ConfigDict(protected_namespaces=())


class StreamOptions(Strict):
    include_usage: bool = Field(False, description="Send the usage in a last chunk of its own.")


class RequestFields(Strict):
    """Fields of any request. Those that are not known are ignored, unless they would change the result."""

    model_config = ConfigDict(extra="allow")

    #: Fields that this server does not have, the values that mean nothing, and what to do instead.
    refused: ClassVar[dict[str, tuple[tuple[Any, ...], str]]] = {}

    model: str = Field(description="The model's name, or an adapter's, as /v1/models lists them.")
    user: str | None = Field(None, description="Ignored.")

    @model_validator(mode="after")
    def _refuse(self) -> "RequestFields":
        for name, value in (self.model_extra or {}).items():
            neutral, remedy = self.refused.get(name, ((value,), ""))
            if value is not None and value not in neutral:
                raise ValueError(f"{name} is not supported: {remedy}")
        return self


class StructuredOutputs(Strict):
    """A language that the text must belong to."""

    json_: dict[str, Any] | Text | None = Field(None, alias="json")
    json_object: bool | None = None
    regex: Text | None = None
    choice: list[Text] | None = Field(None, min_length=1, max_length=1024)
    grammar: Text | None = None


class SamplingFields(RequestFields):
    """How texts are drawn: OpenAI's fields, and further ones under vLLM's names."""

    refused = {
        "min_tokens": ((0,), "leave it out, or use ignore_eos with max_tokens."),
        "length_penalty": ((1, 1.0), "there is no beam search."),
        "use_beam_search": ((False,), "there is no beam search."),
        "early_stopping": ((False,), "there is no beam search."),
        "bad_words": (([],), "use logit_bias."),
        "allowed_token_ids": (([],), "use guided_choice, guided_regex or logit_bias."),
        "truncate_prompt_tokens": ((-1,), "shorten the prompt."),
        "skip_special_tokens": ((True,), "special tokens are never shown as text."),
        "include_stop_str_in_output": ((False,), "stop texts are always left out."),
        "guided_decoding_backend": ((), "there is one only."),
        "guided_whitespace_pattern": ((), "write it into guided_regex or guided_grammar."),
        "structural_tag": ((), "use tools, or guided_grammar."),
        "top_a": ((0, 0.0), "use min_p."),
        "typical_p": ((1, 1.0), "use top_p."),
        "logits_processors": (([],), "use logit_bias."),
        "best_of": ((1,), "ask for n texts and choose among them."),
    }

    max_tokens: int | None = Field(None, ge=0, le=1 << 30)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1, le=128)
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    stop: Text | list[Text] | None = Field(None, description="At most 16 texts.")
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: (
        dict[
            Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]
        ]
        | None
    ) = Field(None, description="Added to the logits of token ids.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    top_k: int | None = Field(None, ge=-1, le=1 << 30, description="-1 or 0 for all tokens.")
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=100)
    stop_token_ids: list[TokenId] | None = Field(None, max_length=64)
    ignore_eos: bool | None = None
    priority: int | None = Field(
        None, ge=-(1 << 31), lt=1 << 31, description="Smaller numbers are served first."
    )
    guided_json: dict[str, Any] | Text | None = Field(None, description="A JSON schema.")
    guided_regex: Text | None = Field(None, description="An expression of the whole text.")
    guided_choice: list[Text] | None = Field(None, min_length=1, max_length=1024)
    guided_grammar: Text | None = Field(None, description="A grammar in Lark's notation.")
    structured_outputs: StructuredOutputs | None = Field(
        None, description="The guided_ fields in one object."
    )

    @model_validator(mode="after")
    def _check_streaming(self) -> "SamplingFields":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only allowed when stream is true")
        if isinstance(self.stop, list) and len(self.stop) > 16:
            raise ValueError(f"stop must be 16 texts at most, got {len(self.stop)}")
        return self


class PromptTokensDetails(Answer):
    cached_tokens: int


class UsageAnswer(Answer):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class ErrorDetail(Answer):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(Answer):
    """What every refusal and failure looks like."""

    error: ErrorDetail


FinishReason = Literal["stop", "length", "tool_calls"]
