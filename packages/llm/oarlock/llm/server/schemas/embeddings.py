"""Requests and responses of /v1/embeddings."""

from typing import Annotated, Literal

from pydantic import Field

from oarlock.llm.server.schemas.common import Answer, RequestFields
from oarlock.llm.server.schemas.completions import Prompt


class EmbeddingRequest(RequestFields):
    """Texts to embed."""

    refused = {"truncate_prompt_tokens": ((-1,), "shorten the input.")}

    input: Prompt = Field(description="A text, several, or token ids.")
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="base64: of the numbers as little-endian float32."
    )
    dimensions: Annotated[int, Field(ge=1, le=1 << 30)] | None = Field(
        None, description="The model's own number of dimensions, if given."
    )


class Embedding(Answer):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Answer):
    prompt_tokens: int
    total_tokens: int


class EmbeddingAnswer(Answer):
    object: Literal["list"] = "list"
    model: str
    data: list[Embedding]
    usage: EmbeddingUsage
